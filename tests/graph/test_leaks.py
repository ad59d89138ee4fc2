from __future__ import annotations

import pytest
import torch

from hgmm.errors import SchemaError
from hgmm.graph import DataSource, ModalitySpec, MultimodalGraph, drop_leaks
from hgmm.graph.structure import structure_features
from hgmm.triples import TripleSet

ROWS = torch.tensor([[0, 0, 1], [1, 1, 2], [0, 0, 1]])
TRIPLES = TripleSet(ROWS, ROWS[:1], torch.tensor([[2, 0, 0], [1, 1, 2]]), ("a", "b", "c"), ("r", "s"))


def test_edges_and_triples_lose_what_leaks_and_features_stay() -> None:
    present = {"image": torch.tensor([True, False, True])}
    graph = MultimodalGraph.from_triples(
        TRIPLES, features={"image": torch.ones(3, 2)}, present=present, source=DataSource("local", note="mine")
    )
    clean = drop_leaks(graph)
    assert clean.triples is not None
    assert clean.triples.train.tolist() == [[0, 0, 1], [1, 1, 2]]
    assert (len(clean.triples.val), clean.triples.test.tolist()) == (0, [[2, 0, 0]])
    assert [ends.tolist() for ends in clean.g.edges(order="eid")] == [[0, 1], [1, 2]]
    assert clean.g.edata["relation"].tolist() == [0, 1]
    assert clean.source.note == "mine; leaks dropped: 1 train, 1 val, 1 test triples"
    assert clean.present("entity").tolist() == [[True], [False], [True]]
    assert clean.features("entity")["image"] is graph.features("entity")["image"]
    assert clean.schema == graph.schema
    assert graph.g.num_edges() == 3


def test_features_from_degrees_follow_the_edges() -> None:
    clean = drop_leaks(MultimodalGraph.from_triples(TRIPLES))
    expected = structure_features(clean.g, "entity", clean.node_ids["entity"])
    assert torch.equal(clean.features("entity")["structure"], expected)
    assert clean.schema.modalities["entity"]["structure"] == ModalitySpec(
        "structure", expected.shape[1], "log degrees by relation, random numbers by id"
    )


def test_a_graph_without_leaks_stays_as_it_is() -> None:
    graph = MultimodalGraph.from_triples(TRIPLES.drop_leaks())
    assert drop_leaks(graph) is graph


def test_other_triples_need_the_same_entities(small_graph: MultimodalGraph) -> None:
    graph = MultimodalGraph.from_triples(TRIPLES)
    with pytest.raises(SchemaError, match=r"those of graph 'knowledge graph' \(3 entities, 2 rel.*with 3 and 1"):
        graph.with_triples(TripleSet(ROWS[:1], ROWS[:1], ROWS[:1], TRIPLES.entity_vocab, ("r",)))
    with pytest.raises(SchemaError, match="graph 'small' has no triples; take a knowledge graph"):
        small_graph.with_triples(TRIPLES)
    with pytest.raises(SchemaError, match="drop_leaks graph: 'small' has no triples"):
        drop_leaks(small_graph)
