from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from hgmm.dgl_compat import dgl
from hgmm.errors import SchemaError
from hgmm.graph import GraphSchema, MultimodalGraph
from hgmm.graph.validation import graph_problems
from hgmm.triples import TripleSet


def put(key: str, value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        if value is None:
            data.pop(key)
        else:
            data[key] = value

    return change


def nan_at(row: int, column: int) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        text = data["text"].clone()
        text[row, column] = float("nan")
        data["text"] = text

    return change


LABELS = torch.arange(12) % 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("text", None), r"item.text: the schema lists it, but g.nodes\['item'\].data has no 'text'"),
        (put("text", torch.zeros(12, 4)), r"item.text: the schema says \(N, 5\), the features are \(12, 4\)"),
        (put("text", torch.zeros(12)), r"item.text: the schema says \(N, 5\), the features are \(12,\)"),
        (
            put("text", torch.zeros(12, 5, dtype=torch.int64)),
            "item.text: features must be floating point, got torch.int64",
        ),
        (nan_at(3, 2), "item.text: row 3 column 2 is nan"),
        (put("image_present", torch.ones(12)), r"item.image_present: must be \(N,\) bool, got \(12,\) torch.float32"),
        (put("label", LABELS.int()), r"label: must be \(N,\) int64, got \(12,\) torch.int32"),
        (put("label", LABELS + 1), "label: row 1 is 2; labels go from 0 to 1, -1 means none"),
        (put("label", LABELS - 2), "label: row 0 is -2; labels go from 0 to 1"),
        (put("val_mask", torch.zeros(12)), r"val_mask: must be \(N,\) bool, got \(12,\) torch.float32"),
        (put("test_mask", torch.ones(12, dtype=torch.bool)), "row 0: it is in train and in test"),
        (put("label", torch.full((12,), -1)), "train_mask: row 0 has no label"),
        (put("label", None), "train_mask: row 0 has no label"),
    ],
)
def test_frames_that_break_a_rule(small_graph: MultimodalGraph, change: Callable[[Any], None], message: str) -> None:
    change(small_graph.g.nodes["item"].data)
    with pytest.raises(SchemaError, match=message):
        MultimodalGraph(small_graph.g, small_graph.schema)


def test_ids_and_names(small_graph: MultimodalGraph) -> None:
    with pytest.raises(SchemaError) as caught:
        MultimodalGraph(
            small_graph.g,
            small_graph.schema,
            node_ids={"item": ["a"] * 12, "user": ["u"]},
            node_names={"item": ["only one"]},
        )
    text = str(caught.value)
    assert "node type 'item': id 'a' stands for 12 nodes" in text
    assert "node_ids['user']: 1 entries for 4 nodes" in text
    assert "node_names['item']: 1 entries for 12 nodes" in text


def test_ids_are_text_and_of_known_types(small_graph: MultimodalGraph) -> None:
    with pytest.raises(SchemaError) as caught:
        MultimodalGraph(
            small_graph.g,
            small_graph.schema,
            node_ids={"item": list(range(12)), "itm": ["a"]},
            node_names={"user": ["a", "b", None, ["c"]], "shop": []},
        )
    text = str(caught.value)
    assert "not text (14)" in text
    assert "node_ids['item']: must hold text, got 0" in text
    assert "node_names['user']: must hold text, got None" in text
    assert "node_ids: unknown node type 'itm'; known: item, user. Did you mean 'item'?" in text
    assert "node_names: unknown node type 'shop'" in text


def test_edges_lead_to_nodes(small_graph: MultimodalGraph) -> None:
    ends = {etype: small_graph.g.edges(etype=etype) for etype in small_graph.schema.canonical_etypes}
    src, dst = ends["user", "buys", "item"]
    ends["user", "buys", "item"] = (torch.cat([torch.tensor([-7]), src[1:]]), dst)
    g = dgl.heterograph(ends, num_nodes_dict={"item": 12, "user": 4})
    schema = GraphSchema(small_graph.schema.ntypes, small_graph.schema.canonical_etypes, {})
    with pytest.raises(SchemaError, match=r"'buys', 'item'\) source: ids go from -7 to 3, 'user' has 4 nodes"):
        MultimodalGraph(g, schema)


ROWS = torch.tensor([[0, 1, 2], [2, 0, 1]])


NAMES = ("a", "b", "c"), ("r", "s")


@pytest.mark.parametrize(
    ("triples", "message"),
    [
        (TripleSet(ROWS, ROWS, ROWS, ("a", "b", "c", "d"), ("r", "s")), "4 entities in the vocabulary, 3 nodes"),
        (TripleSet(ROWS, ROWS, ROWS, ("a", "b", "c"), ("r", "t")), r"2 relations in the vocabulary, .* \(2\)"),
        (TripleSet(ROWS.flip(0), ROWS, ROWS, *NAMES), "the 2 edges must be the 2 training triples in the order"),
        (TripleSet(ROWS[:1], ROWS, ROWS, *NAMES), "the 2 edges must be the 1 training triples"),
    ],
    ids=["entities", "relations", "order", "number"],
)
def test_triples_are_those_of_the_graph(triples: TripleSet, message: str) -> None:
    good = MultimodalGraph.from_triples(TripleSet(ROWS, ROWS, ROWS, *NAMES))
    with pytest.raises(SchemaError, match=message):
        MultimodalGraph(good.g, good.schema, triples=triples)


def test_triples_need_a_knowledge_graph(small_graph: MultimodalGraph) -> None:
    triples = TripleSet(ROWS, ROWS, ROWS, *NAMES)
    with pytest.raises(SchemaError, match=r"triples need one node type and one edge type, got \('item', 'user'\)"):
        MultimodalGraph(small_graph.g, small_graph.schema, node_ids=small_graph.node_ids, triples=triples)


def test_many_bad_cells_cost_ten_sentences(small_graph: MultimodalGraph) -> None:
    small_graph.g.nodes["item"].data["text"] = torch.full((12, 5), float("inf"))
    problems = graph_problems(small_graph.g, small_graph.schema, small_graph.node_ids, {})
    assert len(problems) == 10
    assert sum(problem.count for problem in problems) == 60


def test_relations_of_a_knowledge_graph(small_graph: MultimodalGraph) -> None:
    schema = replace(small_graph.schema, relations=("r", "s"))
    with pytest.raises(
        SchemaError, match=r"\('user', 'buys', 'item'\).*: edges of a knowledge graph need the data 'rela"
    ):
        MultimodalGraph(small_graph.g, schema)
    for etype in schema.canonical_etypes:
        small_graph.g.edges[etype].data["relation"] = torch.arange(12)
    with pytest.raises(SchemaError, match="ids go from 0 to 11, known are 2"):
        MultimodalGraph(small_graph.g, schema)


def test_a_graph_of_other_types(small_graph: MultimodalGraph) -> None:
    schema = GraphSchema(("item", "shop"), (("item", "in", "shop"),), {})
    problems = graph_problems(small_graph.g, schema, small_graph.node_ids, {})
    assert [problem.kind for problem in problems] == ["other node types", "other edge types"]


def test_a_good_graph_has_none(small_graph: MultimodalGraph) -> None:
    assert graph_problems(small_graph.g, small_graph.schema, small_graph.node_ids, {}) == []
