"""What a trained classifier says about each node, as arrays and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hgmm.graph import MultimodalGraph
from hgmm.graph.multimodal import SPLITS
from hgmm.typing import NodeOutput

__all__ = ["Predictions", "labelled_table", "predictions_from_output"]


@dataclass(frozen=True)
class Predictions:
    """Predictions for ``n`` target nodes.

    Attributes
    ----------
    ids : list of str
        External ids.
    names : list of str or None
        Display names, where the graph has them.
    predicted : list of str
        Class names.
    probabilities : ndarray
        ``(n, C)`` float32, rows sum to 1.
    modality_weights : ndarray or None
        ``(n, M)`` float32: the share of each modality in the node's representation, where the model gives it.
    classes, modality_names : tuple of str
        Names of the columns.
    source : str
        Source of the data: ``official``, ``local``, ``embedded`` or ``synthetic``.
    branch_weights : ndarray or None
        ``(n, P)`` float32: the share of each branch in the node's prediction, where the model gives it.
    branch_names : tuple of str
        Names of its columns.
    """

    ids: list[str]
    names: list[str] | None
    predicted: list[str]
    probabilities: NDArray[np.float32]
    modality_weights: NDArray[np.float32] | None
    classes: tuple[str, ...]
    modality_names: tuple[str, ...]
    source: str
    branch_weights: NDArray[np.float32] | None = None
    branch_names: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return ``id, name, predicted, probability_<class> …, weight_<modality, branch> …, source``, a row a node."""
        columns: dict[str, Any] = {"id": self.ids}
        if self.names is not None:
            columns["name"] = self.names
        columns["predicted"] = self.predicted
        for index, name in enumerate(self.classes):
            columns[f"probability_{name}"] = self.probabilities[:, index]
        for names, weights in (
            (self.modality_names, self.modality_weights),
            (self.branch_names, self.branch_weights),
        ):
            if weights is not None:
                columns |= {f"weight_{name}": weights[:, index] for index, name in enumerate(names)}
        columns["source"] = self.source
        return pd.DataFrame(columns, index=range(len(self.ids)))


def predictions_from_output(
    output: NodeOutput, graph: MultimodalGraph, *, classes: tuple[str, ...], modality_names: tuple[str, ...]
) -> Predictions:
    """Put names to a model's output for all target nodes of a graph, in order."""
    target = graph.target
    probabilities = torch.softmax(output.logits.float(), 1).numpy()
    modality_weights, branch_weights = (
        output.aux[name].float().numpy() if name in output.aux else None
        for name in ("modality_weights", "branch_weights")
    )
    return Predictions(
        ids=list(graph.node_ids[target]),
        names=graph.node_names.get(target),
        predicted=[classes[index] for index in output.logits.argmax(1).tolist()],
        probabilities=probabilities,
        modality_weights=modality_weights,
        classes=classes,
        modality_names=modality_names,
        source=graph.source.source,
        branch_weights=branch_weights,
        branch_names=output.branch_names,
    )


def labelled_table(predictions: Predictions, graph: MultimodalGraph) -> pd.DataFrame:
    """Return `Predictions.table` with the columns ``split`` and ``label`` before ``predicted``; empty where unknown."""
    table = predictions.table()
    split = np.full(len(table), "", dtype=object)
    for name in SPLITS:
        split[graph.split(name).cpu().numpy()] = name
    labels = [graph.schema.classes[label] if label >= 0 else "" for label in graph.labels.tolist()]
    place = table.columns.get_loc("predicted")
    table.insert(place, "label", labels)
    table.insert(place, "split", split)
    return table
