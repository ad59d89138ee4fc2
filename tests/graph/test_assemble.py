from __future__ import annotations

from typing import Any

import pytest
import torch

from hgmm.errors import SchemaError
from hgmm.graph import from_tensors

ETYPE = ("a", "to", "b")
EDGES = {ETYPE: (torch.tensor([0, 1]), torch.tensor([0, 0]))}


def test_masks_numbers_and_defaults() -> None:
    values = torch.ones(3, 2)
    graph = from_tensors(
        {"a": 3, "b": 1},
        EDGES,
        features={"a": {"image": values, "audio": values}},
        present={"a": {"image": torch.tensor([True, False, True]), "audio": torch.ones(3, dtype=torch.bool)}},
        target="a",
        labels=torch.tensor([0, 1, -1]),
        splits={"train": torch.tensor([1], dtype=torch.int32), "val": torch.tensor([True, False, False])},
    )
    assert graph.schema.classes == ("0", "1")
    assert {name: spec.kind for name, spec in graph.schema.modalities["a"].items()} == {
        "image": "image",
        "audio": "other",
    }
    assert graph.features("a")["image"].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert values.all()
    assert "audio_present" not in graph.g.nodes["a"].data
    assert graph.train_idx.tolist() == [1]
    assert graph.val_idx.tolist() == [0]
    assert graph.node_ids["a"] == ["0", "1", "2"]


def test_edges_of_any_integer_type() -> None:
    short = torch.tensor([0, 1], dtype=torch.int32)
    graph = from_tensors({"a": 3, "b": 1}, {ETYPE: (short, torch.tensor([0, 0])), ("a", "on", "a"): (short, short)})
    assert graph.g.idtype == torch.int64
    assert [ends.tolist() for ends in graph.g.edges(etype="to")] == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": {ETYPE: (torch.tensor([3]), torch.tensor([0]))}}, "node numbers go from 3 to 3, 'a' has 3"),
        ({"edges": {ETYPE: (torch.tensor([0, 1]), torch.tensor([0]))}}, r"must be \(E,\), got \(2,\) and \(1,\)"),
        ({"edges": {ETYPE: (torch.tensor([0]), torch.tensor([0.0]))}}, "numbers must be whole, got torch.float32"),
        ({"edges": {}}, "edges: a graph needs at least one relation"),
        ({"edges": {("a", "to", "c"): EDGES[ETYPE]}}, "unknown node type 'c'; known: a, b"),
        ({"features": {"c": {}}}, "features: unknown node type 'c'; known: a, b"),
        ({"features": {"a": {"text": torch.ones(2, 2)}}}, r"features a.text: the shape is \(2, 2\) for 3 nodes"),
        (
            {"present": {"a": {"text": torch.ones(3, dtype=torch.bool)}}},
            "present a.text: unknown modality 'text'; known: n",
        ),
        (
            {"features": {"a": {"text": torch.ones(3, 2)}}, "present": {"a": {"text": torch.ones(3)}}},
            "present a.text: must be bool, got torch.float32",
        ),
        ({"labels": torch.tensor([0, 1])}, r"labels: the shape is \(2,\) for 3 nodes"),
        ({"labels": torch.tensor([0.0, 1.0, float("nan")])}, "labels: must be int64, got torch.float32"),
        ({"splits": {"val": torch.tensor([0.5])}}, "split 'val': must be bool or whole numbers, got torch.float32"),
        ({"target": None}, "target: labels and splits need a target node type"),
        ({"target": None, "labels": None, "splits": {"val": torch.tensor([0])}}, "labels and splits need a target"),
        ({"splits": {"dev": torch.tensor([0])}}, "splits: unknown split 'dev'; known: test, train, val"),
        ({"splits": {"val": torch.tensor([True])}}, r"split 'val': the shape is \(1,\) for 3 nodes"),
        ({"splits": {"val": torch.tensor([-1])}}, "split 'val': node numbers go from -1 to -1, there are 3"),
        ({"target": "c", "labels": None}, "target: unknown node type 'c'; known: a, b"),
    ],
)
def test_parts_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    options = {"edges": EDGES, "target": "a", "labels": torch.tensor([0, 1, -1])} | options
    edges = options.pop("edges")
    with pytest.raises(SchemaError, match=message):
        from_tensors({"a": 3, "b": 1}, edges, **options)
