from __future__ import annotations

import numpy as np
import pytest
import torch

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import DataSource, GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.graph.multimodal import present_mask
from hgmm.triples import TripleSet


def test_what_it_says_about_itself(small_graph: MultimodalGraph) -> None:
    assert repr(small_graph) == (
        "MultimodalGraph('small', nodes {item: 12, user: 4}, edges 24, text, image, structure)"
    )
    assert small_graph.target == "item"
    assert small_graph.num_nodes("user") == 4
    assert small_graph.labels.tolist() == [0, 1] * 6
    assert small_graph.train_idx.tolist() == list(range(6))
    assert small_graph.val_idx.tolist() == [6, 7]
    assert small_graph.test_idx.tolist() == [8, 9, 10, 11]
    assert list(small_graph.features("item")) == ["text", "image"]


def test_presence(small_graph: MultimodalGraph) -> None:
    item, user = small_graph.present("item"), small_graph.present("user")
    assert item[:, 0].all()
    assert item[:, 1].tolist() == [True, True, False, False] * 3
    assert not item[:, 2].any()
    assert user.tolist() == [[False, False, True]] * 4


def test_presence_in_a_block(small_graph: MultimodalGraph) -> None:
    sampler = dgl.dataloading.NeighborSampler([-1])
    block = sampler.sample_blocks(small_graph.g, {"item": torch.tensor([2, 4])})[2][0]
    nodes = block.srcnodes["user"].data[dgl.NID]
    mask = present_mask(block.srcnodes["user"].data, small_graph.schema, "user", len(nodes), "cpu")
    assert mask.tolist() == [[False, False, True]] * len(nodes)


def test_types_without_features_get_structure_and_the_given_graph_does_not_change() -> None:
    g = dgl.heterograph({("a", "to", "b"): ([0, 1], [0, 0])})
    graph = MultimodalGraph(g, GraphSchema(("a", "b"), (("a", "to", "b"),), {}))
    assert graph.schema.modality_names == ("structure",)
    assert graph.features("a")["structure"].shape == (2, 17)
    assert not g.nodes["a"].data
    assert graph.node_ids == {"a": ["0", "1"], "b": ["0"]}


def test_a_graph_without_target() -> None:
    g = dgl.graph(([0], [1]))
    graph = MultimodalGraph(g, GraphSchema(("_N",), (("_N", "_E", "_N"),), {}), name="bare")
    with pytest.raises(SchemaError, match="graph 'bare': it has no target node type"):
        _ = graph.target


def test_labels_and_splits_default_to_none() -> None:
    g = dgl.graph(([0], [1]))
    graph = MultimodalGraph(g, GraphSchema(("_N",), (("_N", "_E", "_N"),), {}, target="_N", classes=("a", "b")))
    assert graph.labels.tolist() == [-1, -1]
    assert graph.train_idx.tolist() == []
    with pytest.raises(ConfigError, match=r"unknown split 'valid'; known: test, train, val. Did you mean 'val'"):
        graph.split("valid")


def test_dropping_modalities(small_graph: MultimodalGraph) -> None:
    less = small_graph.drop_modalities(["text", "image"])
    assert less.schema.modality_names == ("structure",)
    assert less.features("item")["structure"].shape == (12, 18)
    assert "image_present" not in less.g.nodes["item"].data
    assert less.node_ids == small_graph.node_ids
    assert list(small_graph.features("item")) == ["text", "image"]
    assert torch.equal(less.labels, small_graph.labels)
    with pytest.raises(
        SchemaError, match=r"drop_modalities names: unknown modality 'txet'; known: image, struct.*'text'"
    ):
        small_graph.drop_modalities(["txet"])


def test_ids_may_be_any_sequence_of_text(small_graph: MultimodalGraph) -> None:
    ids = {"user": np.array(["a", "b", "c", "d"], dtype=object), "item": ()}
    graph = MultimodalGraph(small_graph.g, small_graph.schema, node_ids=ids)
    assert graph.node_ids == {"user": ["a", "b", "c", "d"], "item": [str(number) for number in range(12)]}


def test_moving_keeps_everything(small_graph: MultimodalGraph) -> None:
    moved = small_graph.to("cpu")
    assert moved.schema == small_graph.schema
    assert moved.node_ids == small_graph.node_ids


def test_unknown_node_types(small_graph: MultimodalGraph) -> None:
    for method in (small_graph.num_nodes, small_graph.features, small_graph.present):
        with pytest.raises(SchemaError, match=r"unknown node type 'itm'; known: item, user. Did you mean 'item'"):
            method("itm")


def test_sources() -> None:
    source = DataSource("synthetic", ("a",), {"a": "0"}, ("item.image",), "a stand-in")
    assert DataSource(**source.to_dict()).to_dict() == source.to_dict()
    with pytest.raises(
        ConfigError, match="DataSource source: unknown source 'offical'; known: embedded, local, official"
    ):
        DataSource("offical")


def test_a_knowledge_graph() -> None:
    triples = TripleSet(
        torch.tensor([[0, 1, 2], [2, 0, 1]]),
        torch.tensor([[0, 0, 1]]),
        torch.zeros(0, 3).long(),
        ("a", "b", "c"),
        ("r", "s"),
    )
    graph = MultimodalGraph.from_triples(
        triples,
        features={"image": torch.ones(3, 2), "audio": torch.ones(3, 1)},
        present={"image": torch.tensor([True, False, True])},
        kinds={"audio": "numeric"},
    )
    assert graph.triples is triples
    assert graph.schema.relations == ("r", "s")
    assert graph.g.edges["triple"].data["relation"].tolist() == [1, 0]
    assert [ends.tolist() for ends in graph.g.edges(order="eid")] == [[0, 2], [2, 1]]
    assert graph.present("entity").tolist() == [[True, True], [False, True], [True, True]]
    assert {name: spec.kind for name, spec in graph.schema.modalities["entity"].items()} == {
        "image": "image",
        "audio": "numeric",
    }
    assert graph.node_ids["entity"] == ["a", "b", "c"]


def test_a_schema_given_for_the_wrong_graph_lists_the_problems(small_graph: MultimodalGraph) -> None:
    schema = GraphSchema(("item",), (("item", "to", "item"),), {"item": {"text": ModalitySpec("text", 5)}})
    with pytest.raises(SchemaError, match=r"graph 'x': 2 problems found(.|\n)*the graph has \['item', 'user'\]"):
        MultimodalGraph(small_graph.g, schema, name="x")
