from __future__ import annotations

import torch

from hgmm.graph import MultimodalGraph
from hgmm.training.predictions import labelled_table, predictions_from_output
from hgmm.typing import NodeOutput
from tests.training.tiny import CLASSES


def test_rows_are_the_nodes_in_order(graph: MultimodalGraph) -> None:
    logits = torch.nn.functional.one_hot(graph.labels, 3).float() * 4
    output = NodeOutput(logits, aux={"modality_weights": torch.tensor([[0.25, 0.75]]).repeat(90, 1)})
    predictions = predictions_from_output(output, graph, classes=CLASSES, modality_names=graph.schema.modality_names)
    table = labelled_table(predictions, graph)
    assert list(table["label"]) == list(table["predicted"]) == [CLASSES[label] for label in graph.labels.tolist()]
    assert list(table["id"]) == graph.node_ids["item"]
    assert set(table["weight_structure"]) == {0.75}
    for name in ("train", "val", "test"):
        assert (table["split"] == name).to_numpy().nonzero()[0].tolist() == graph.split(name).tolist()


def test_unknown_labels_and_splits_are_empty(graph: MultimodalGraph) -> None:
    data = graph.g.nodes["item"].data
    for name in ("train", "val", "test"):
        data[f"{name}_mask"] = data[f"{name}_mask"] & (torch.arange(90) != 5)
    data["label"] = torch.where(torch.arange(90) == 5, -1, graph.labels)
    predictions = predictions_from_output(
        NodeOutput(torch.zeros(90, 3)), graph, classes=CLASSES, modality_names=graph.schema.modality_names
    )
    row = labelled_table(predictions, graph).iloc[5]
    assert (row["split"], row["label"], row["predicted"]) == ("", "", CLASSES[0])
    assert "weight_text" not in row
