from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hgmm.errors import DataError
from hgmm.graph import GraphBuilder
from hgmm.graph.edges import KnownIds

ITEMS = pd.DataFrame({"id": ["a", "b", "c"], "label": ["x", "y", None], "size": [1.0, 2.0, np.nan]})
LINKS = pd.DataFrame({"src": ["a", "b"], "dst": ["b", "c"]})
ETYPE = ("item", "near", "item")


def builder(nodes: pd.DataFrame = ITEMS, edges: pd.DataFrame = LINKS, **options: Any) -> GraphBuilder:
    options = {"id": "id", "label": "label", "modalities": {"numeric": "size"}} | options
    return GraphBuilder().add_nodes("item", nodes, **options).add_edges(ETYPE, edges, src="src", dst="dst")


def test_tables_are_not_written_to() -> None:
    nodes, edges = ITEMS.copy(deep=True), LINKS.copy(deep=True)
    graph = builder(nodes, edges).build()
    graph.g.nodes["item"].data["numeric"].fill_(9)
    pd.testing.assert_frame_equal(nodes, ITEMS)
    pd.testing.assert_frame_equal(edges, LINKS)


def test_labels_presence_and_positions() -> None:
    graph = builder().build()
    assert graph.target == "item"
    assert graph.labels.tolist() == [0, 1, -1]
    assert graph.present("item")[:, 0].tolist() == [True, True, False]
    assert graph.features("item")["numeric"][:, 0].tolist() == [-1, 1, 0]
    assert [ends.tolist() for ends in graph.g.edges(order="eid", etype=ETYPE)] == [[0, 1], [1, 2]]


def test_without_an_id_column_rows_are_ids() -> None:
    edges = pd.DataFrame({"src": [0, 1], "dst": [2.0, 1.0]})
    graph = builder(edges=edges, id=None).build()
    assert graph.node_ids["item"] == ["0", "1", "2"]
    assert graph.g.edges(order="eid", etype=ETYPE)[1].tolist() == [2, 1]


def test_an_integer_id_column_with_floats_in_the_edge_table() -> None:
    nodes = ITEMS.assign(id=[10, 20, 30])
    edges = pd.DataFrame({"src": [10.0, 20.0, 10.0], "dst": ["30", "30", "20"]})
    assert builder(nodes, edges).build().g.edges(order="eid", etype=ETYPE)[0].tolist() == [0, 1, 0]


def test_matrices_in_memory_with_presence() -> None:
    matrix = torch.tensor([[1.0, 2.0], [np.nan, 4.0], [5.0, 6.0]])
    present = torch.tensor([True, False, True])
    graph = builder(modalities={"image": matrix}, present={"image": present}).build()
    assert graph.features("item")["image"].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert graph.present("item")[:, 0].tolist() == present.tolist()
    assert graph.schema.modalities["item"]["image"].source == "array"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": {"image": np.zeros((2, 4))}}, r"modality 'image' of 'item': 2 rows for 3 nodes"),
        ({"modalities": {"image": np.zeros(3)}}, r"is \(N, width\) of numbers, got \(3,\) float64"),
        ({"modalities": {"image": np.full((3, 1), np.inf)}}, r"of 'item' row 0: column 0 is inf"),
        (
            {"modalities": {"image": np.zeros((3, 1))}, "present": {"image": np.zeros(3)}},
            r"`present` must be \(3,\) bool, got \(3,\) float64",
        ),
        ({"present": {"picture": np.ones(3, dtype=bool)}}, r"unknown modality 'picture'; known: numeric"),
        ({"present": {"numeric": np.ones(3, dtype=bool)}}, r"`present` goes with a matrix in memory"),
        ({"label": "kind"}, r"unknown column 'kind'; known: id, label, size"),
        ({"split": {"train": 0.9, "test": 0.3}}, r"the fractions add up to 1.2; together they are at most 1"),
        ({"label": None, "split": "label"}, r"only the target None has a label and a split"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        builder(**options).build()


def test_the_target_without_label_cannot_be_split() -> None:
    graph = GraphBuilder("item").add_nodes("item", ITEMS, id="id", split={"train": 1.0})
    with pytest.raises(DataError, match=r"node type 'item' has a split and no label"):
        graph.add_edges(ETYPE, LINKS, src="src", dst="dst").build()


def test_a_label_off_target_and_types_added_twice() -> None:
    twice = builder().add_nodes("item", ITEMS).add_edges(ETYPE, LINKS, src="src", dst="dst")
    twice.add_nodes("other", ITEMS, label="label")
    with pytest.raises(DataError) as caught:
        twice.build()
    text = str(caught.value)
    assert "node type 'other': only the target 'item' has a label and a split" in text
    assert "node type 'item': it is added twice" in text
    assert "edge type ('item', 'near', 'item'): it is added twice" in text


def test_nothing_added() -> None:
    with pytest.raises(DataError, match=r"graph 'empty': 2 problems found"):
        GraphBuilder(name="empty").build()


def test_an_empty_node_table_is_refused_unless_a_model_was_trained(tmp_path: Path) -> None:
    empty = tmp_path / "user.csv"
    empty.write_text("id\n")
    users = builder().add_nodes("user", empty, id="id")
    with pytest.raises(DataError, match=r"user.csv: it has a header and no row; 'user' needs one"):
        users.build()
    transforms = builder().build().transforms | {"user": {}}
    again = GraphBuilder("item", transforms=transforms).add_nodes("user", empty, id="id")
    again.add_nodes("item", ITEMS, id="id", modalities={"numeric": "size"})
    again.add_edges(ETYPE, LINKS, src="src", dst="dst")
    assert again.build().num_nodes("user") == 0


def test_other_columns_or_kinds_than_the_trained_model_has() -> None:
    transforms = builder().build().transforms

    def again(modality: Any) -> GraphBuilder:
        built = GraphBuilder("item", transforms=transforms)
        built.add_nodes("item", ITEMS, id="id", modalities={"numeric": modality})
        return built.add_edges(ETYPE, LINKS, src="src", dst="dst")

    with pytest.raises(DataError, match=r"fitted on the columns \['size'\], declared are \['id'\]"):
        again("id").build()
    with pytest.raises(DataError, match=r"has a NumericTransform here, which does not fit column size of kind 'categ"):
        again({"column": "size", "kind": "categorical"}).build()
    matrix = transforms["item"]["numeric"] = {"type": "matrix", "width": 2, "mean": []}
    with pytest.raises(DataError, match=r"modality 'numeric' of 'item': 3 columns; the trained model expects 2"):
        again({"array": np.zeros((3, 3))}).build()
    assert matrix["width"] == 2


def test_names_and_an_edge_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text("src,dst\n")
    built = GraphBuilder(root=tmp_path).add_nodes("item", ITEMS, id="id", name="label")
    graph = built.add_edges(ETYPE, "links.csv", src="src", dst="dst", reverse="far").build()
    assert graph.node_names["item"] == ["x", "y", ""]
    assert graph.g.num_edges() == 0
    assert graph.schema.canonical_etypes[1] == ("item", "far", "item")


def test_known_ids() -> None:
    known = KnownIds(np.array(["b", "a", "b"], dtype=object), "t.csv")
    assert known.positions(np.array(["a", "z", "b"], dtype=object)).tolist() == [1, -1, 0]


def test_a_hundred_thousand_nodes_and_a_million_edges_arrive_where_they_belong() -> None:
    generator = np.random.default_rng(0)
    order = generator.permutation(100_000)
    nodes = pd.DataFrame({"id": [f"n{number}" for number in order]})
    ends = generator.integers(0, 100_000, (1_000_000, 2))
    names = np.array([f"n{number}" for number in range(100_000)], dtype=object)
    edges = pd.DataFrame({"src": names[ends[:, 0]], "dst": names[ends[:, 1]]})
    graph = GraphBuilder().add_nodes("item", nodes, id="id").add_edges(ETYPE, edges, src="src", dst="dst").build()
    src, dst = graph.g.edges(order="eid", etype=ETYPE)
    assert np.array_equal(order[src.numpy()], ends[:, 0])
    assert np.array_equal(order[dst.numpy()], ends[:, 1])


def test_missing_columns_of_ids() -> None:
    graph = GraphBuilder().add_nodes("item", ITEMS, id="key").add_edges(ETYPE, LINKS, src="from", dst="dst")
    with pytest.raises(DataError) as caught:
        graph.build()
    assert "table of 'item': unknown column 'key'; known: id, label, size." in str(caught.value)
    assert "table of 'near': unknown column 'from'; known: dst, src." in str(caught.value)
