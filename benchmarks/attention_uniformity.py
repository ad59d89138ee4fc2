"""How far the attention of each HGNN-IMA variant is from the plain mean over neighbours.

Run ``python -m benchmarks.attention_uniformity --help``. With beta the weight of an edge and deg the in-degree of its
destination in the relation, beta * deg is 1 everywhere for a mean; the table shows its standard deviation over edges
and heads of all layers, by in-degree. 0 means that attention does nothing. Rows divide beta by its sum first, so that
a variant whose weights do not sum to one is compared by their differences alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import hgmm.datasets
from hgmm.graph import MultimodalGraph
from hgmm.losses import cross_modal_loss
from hgmm.models import HGNNIMA
from hgmm.typing import CanonicalEtype

__all__ = ["BUCKETS", "main", "measure", "skewed_graph", "spread_by_degree"]

BUCKETS: tuple[tuple[int, float], ...] = ((2, 4), (5, 10), (11, 30), (31, float("inf")))
LEARNING_RATE = 1e-3


def skewed_graph(seed: int = 0) -> MultimodalGraph:
    """Return a synthetic graph in which every degree bucket is well filled."""
    return hgmm.datasets.synthetic(
        nodes={"item": 1500, "user": 500},
        edges={("user", "buys", "item"): 15000, ("item", "like", "item"): 8000},
        modalities={"item": {"text": 32, "image": 32}, "user": {"text": 32, "image": 32}},
        seed=seed,
    )


def spread_by_degree(graph: Any, layers: Iterable[Mapping[CanonicalEtype, Tensor]]) -> list[float]:
    """Return the standard deviation of beta * deg in each bucket; NaN for an empty one.

    Parameters
    ----------
    graph : dgl.DGLGraph
        The graph.
    layers : iterable of mapping of (str, str, str) to Tensor
        What `hgmm.models.HGNNIMA.attention` returns: ``(E, H)`` by relation.
    """
    values, degrees = [], []
    for layer in layers:
        for etype, attn in layer.items():
            dst = graph.edges(order="eid", etype=etype)[1]
            degree = graph.in_degrees(etype=etype)
            total = attn.new_zeros(len(degree), attn.shape[1]).index_add(0, dst, attn)
            values.append(attn / total[dst] * degree[dst].unsqueeze(1))
            degrees.append(degree[dst].unsqueeze(1).expand_as(attn))
    beta = torch.cat([x.flatten() for x in values]).double()
    degree = torch.cat([x.flatten() for x in degrees])
    inside = [(degree >= low) & (degree <= high) for low, high in BUCKETS]
    return [beta[rows].std(correction=0).item() if rows.any() else float("nan") for rows in inside]


def measure(graph: MultimodalGraph, variant: str, *, epochs: int, seed: int, num_layers: int = 2) -> list[float]:
    """Build a model, train it for some epochs, and return the spread of its attention."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = HGNNIMA(graph.schema, variant=variant, num_layers=num_layers)
        _train(model, graph, epochs)
    return spread_by_degree(graph.g, model.eval().attention(graph.g))


def _train(model: HGNNIMA, graph: MultimodalGraph, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    nodes = graph.train_idx
    for _ in range(epochs):
        out = model(graph.g, nodes)
        loss = cross_modal_loss(out.logits, out.branch_logits, graph.labels[nodes], available=out.available)
        optimizer.zero_grad()
        (loss + out.aux["missing_attention"]).backward()
        optimizer.step()


def _table(title: str, rows: Mapping[str, Sequence[float]]) -> Table:
    table = Table(title=title)
    table.add_column("variant", no_wrap=True)
    for low, high in BUCKETS:
        table.add_column(f"deg {low}-{high}" if high < float("inf") else f"deg > {low - 1}", justify="right")
    for variant, spreads in rows.items():
        table.add_row(variant, *(f"{spread:.4f}" for spread in spreads))
    return table


@click.command(help=__doc__)
@click.option("--dataset", default=None, help="A dataset of hgmm instead of the skewed synthetic graph.")
@click.option("--epochs", default=0, show_default=True, help="Train so long before measuring; 0 measures the start.")
@click.option("--variant", "variants", multiple=True, type=click.Choice(HGNNIMA.variants), help="Default: all.")
@click.option("--seed", default=0, show_default=True)
def main(dataset: str | None, epochs: int, variants: tuple[str, ...], seed: int) -> None:
    graph = skewed_graph(seed) if dataset is None else hgmm.datasets.load(dataset)
    rows = {name: measure(graph, name, epochs=epochs, seed=seed) for name in variants or HGNNIMA.variants}
    Console().print(_table(f"std of beta * deg, {graph.name}, epoch {epochs}", rows))


if __name__ == "__main__":
    main()
