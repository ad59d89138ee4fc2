"""Logistic regression on the emoji graph: what each modality tells alone, together, and with one hop of neighbours.

Run ``python examples/emoji_baselines.py``; it takes about a minute. The strength of the L2 penalty is chosen by the
accuracy on the validation nodes; the test nodes are looked at once, with that choice.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from rich.console import Console
from rich.table import Table

import hgmm.datasets
from hgmm.graph import MultimodalGraph

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


def main() -> None:
    graph = hgmm.datasets.load("emoji")
    table = Table(title="emoji, test accuracy of logistic regression (stored split, 20 % of the labels)")
    for column in ("input", "accuracy", "macro-F1", "L2 penalty"):
        table.add_column(column, justify="left" if column == "input" else "right")
    for name, features in inputs(graph).items():
        accuracy, macro_f1, penalty = evaluate(graph, features)
        table.add_row(name, f"{accuracy:.3f}", f"{macro_f1:.3f}", f"{penalty:g}")
    Console().print(table)


def inputs(graph: MultimodalGraph) -> dict[str, torch.Tensor]:
    """Return the inputs that are compared, each (N, width)."""
    features = graph.features("emoji")
    text, image = features["text"], features["image"]
    both = torch.cat([text, image], dim=1)
    keywords = incidence(graph)
    return {
        "nothing (largest class)": torch.zeros(len(text), 1),
        "keywords alone, one column each": torch.from_numpy(keywords.toarray()),
        "text": text,
        "image": image,
        "text + image": both,
        "text + image + 1 hop": torch.cat([both, unit_scale(neighbour_mean(keywords, both))], dim=1),
    }


def incidence(graph: MultimodalGraph) -> sp.csr_array:
    """Return the matrix emoji x keyword of the edges has_keyword."""
    emoji, keyword = (end.numpy() for end in graph.g.edges(etype="has_keyword"))
    shape = (graph.num_nodes("emoji"), graph.num_nodes("keyword"))
    return sp.csr_array((np.ones(len(emoji), dtype=np.float32), (emoji, keyword)), shape=shape)


def neighbour_mean(keywords: sp.csr_array, features: torch.Tensor) -> torch.Tensor:
    """Average over the other emoji, weighted by the number of keywords shared; zero where there is none."""
    shared = sp.csr_array(keywords @ keywords.T)
    shared.setdiag(0)
    total = np.maximum(shared.sum(axis=1), 1)[:, None]
    return torch.from_numpy((shared @ features.numpy()) / total).float()


def unit_scale(features: torch.Tensor) -> torch.Tensor:
    """Scale a block to mean square 1, as the stored features are, so that one penalty suits all blocks."""
    return features / features.square().mean().sqrt()


def evaluate(graph: MultimodalGraph, features: torch.Tensor) -> tuple[float, float, float]:
    """Return test accuracy, test macro-F1, and the penalty that was best on the validation nodes."""
    labels, num_classes = graph.labels, graph.schema.num_classes
    train, val, test = graph.train_idx, graph.val_idx, graph.test_idx
    features = features - features[train].mean(dim=0)
    features = features / features[train].std().clamp(min=1e-6)
    fits = {p: fit(features[train], labels[train], penalty=p, num_classes=num_classes) for p in PENALTIES}
    best = max(PENALTIES, key=lambda p: float((fits[p](features[val]).argmax(1) == labels[val]).float().mean()))
    predicted = fits[best](features[test]).argmax(dim=1)
    confusion = torch.zeros(num_classes, num_classes)
    confusion.index_put_((labels[test], predicted), torch.ones(len(test)), accumulate=True)
    f1 = 2 * confusion.diag() / (confusion.sum(dim=0) + confusion.sum(dim=1)).clamp(min=1)
    return float(confusion.diag().sum() / len(test)), float(f1.mean()), best


def fit(features: torch.Tensor, labels: torch.Tensor, *, penalty: float, num_classes: int) -> torch.nn.Linear:
    """Fit multinomial logistic regression with an L2 penalty by L-BFGS, from zero."""
    model = torch.nn.Linear(features.shape[1], num_classes)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(model(features), labels) + penalty * model.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return model


if __name__ == "__main__":
    main()
