from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from hgmm.dgl_compat import dgl
from hgmm.errors import DataError, HgmmError, SchemaError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.graph.structure import structure_features
from hgmm.training.conform import conform
from tests.training.tiny import ETYPES, make_graph


def part(
    *,
    etypes: tuple[tuple[str, str, str], ...] = ETYPES,
    ntypes: tuple[str, ...] = ("item", "user"),
    modalities: dict[str, dict[str, ModalitySpec]] | None = None,
    classes: tuple[str, ...] = (),
    labels: list[int] | None = None,
    **arguments: Any,
) -> MultimodalGraph:
    """Four new items and two new users, with as little else as is asked for."""
    count = {"item": 4, "user": 2, "shop": 1}
    g = dgl.heterograph(
        {etype: ([0], [1 % count[etype[2]]]) for etype in etypes},
        num_nodes_dict={ntype: count[ntype] for ntype in ntypes},
    )
    modalities = {"item": {"text": ModalitySpec("text", 6)}} if modalities is None else modalities
    for ntype, specs in modalities.items():
        for name, spec in specs.items():
            g.nodes[ntype].data[name] = torch.ones(count[ntype], spec.width)
    if labels is not None:
        g.nodes["item"].data["label"] = torch.tensor(labels)
        g.nodes["item"].data["test_mask"] = torch.tensor(labels) >= 0
    schema = GraphSchema(ntypes, etypes, modalities, target=arguments.pop("target", "item"), classes=classes)
    return MultimodalGraph(g, schema, name="new", **arguments)


def known_schema() -> GraphSchema:
    return make_graph().schema


def test_the_training_graph_is_taken_as_it_is() -> None:
    graph = make_graph()
    assert conform(graph, graph.schema, {}) is graph


def test_new_nodes_with_everything() -> None:
    graph = part()
    known = conform(graph, known_schema(), {})
    assert known.schema == known_schema()
    assert known.node_ids == graph.node_ids
    assert torch.equal(known.features("item")["text"], torch.ones(4, 6))
    for etype in ETYPES:
        assert torch.equal(torch.stack(known.g.edges(etype=etype)), torch.stack(graph.g.edges(etype=etype)))


def test_an_absent_modality_is_marked_absent() -> None:
    known = conform(part(modalities={}), known_schema(), {})
    assert known.features("item")["text"].shape == (4, 6)
    assert not known.present("item")[:, 0].any()
    assert "structure" not in known.g.nodes["item"].data


def test_a_mask_travels() -> None:
    graph = part()
    graph.g.nodes["item"].data["text_present"] = torch.tensor([True, False, True, False])
    assert conform(graph, known_schema(), {}).present("item")[:, 0].tolist() == [True, False, True, False]


def test_absent_types_and_relations_are_empty() -> None:
    like = ("item", "like", "item")
    schema = dataclasses.replace(known_schema(), canonical_etypes=(*ETYPES, like))
    known = conform(part(ntypes=("item",), etypes=(like,)), schema, {})
    assert known.num_nodes("user") == 0
    assert {etype: known.g.num_edges(etype) for etype in schema.canonical_etypes} == {
        **dict.fromkeys(ETYPES, 0),
        like: 1,
    }
    assert known.features("user")["structure"].shape == (0, 18)


def test_structure_is_that_of_all_relations() -> None:
    graph = part(etypes=ETYPES[:1])
    assert graph.features("user")["structure"].shape[1] == 17
    known = conform(graph, known_schema(), {})
    expected = structure_features(known.g, "user", graph.node_ids["user"])
    assert torch.equal(known.features("user")["structure"], expected)
    assert expected.shape[1] == known_schema().widths("user")["structure"]


def test_labels_are_matched_by_name() -> None:
    graph = part(classes=("blue", "pink", "red"), labels=[0, 1, 2, -1])
    known = conform(graph, known_schema(), {})
    assert known.labels.tolist() == [2, -1, 0, -1]
    assert known.test_idx.tolist() == [0, 2]
    assert graph.labels.tolist() == [0, 1, 2, -1]


TEXT = {"text": ModalitySpec("text", 6)}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"ntypes": ("item", "user", "shop")}, r"unknown node type 'shop'; known: item, user"),
        (
            {"etypes": (("item", "like", "item"),)},
            r"\('item', 'like', 'item'\) is not one of: \('user', 'buys', 'item'\)",
        ),
        (
            {"modalities": {"item": {**TEXT, "image": ModalitySpec("image", 2)}}},
            r"'item': unknown modality 'image'; known: text",
        ),
        ({"modalities": {"item": TEXT, "user": TEXT}}, r"'user': unknown modality 'text'; known: structure"),
        ({"modalities": {"item": {"text": ModalitySpec("text", 5)}}}, r"'text' has 5 columns here and 6 in the model"),
        ({"target": "user"}, r"the model predicts 'item', the graph's target is 'user'"),
        (
            {"ntypes": ("user",), "etypes": (("user", "knows", "user"),), "modalities": {}, "target": None},
            r"the model predicts 'item', the graph's target is None",
        ),
    ],
)
def test_nothing_new_is_taken(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(SchemaError, match=match):
        conform(part(**arguments), known_schema(), {})


def test_a_graph_without_a_target_may_be_predicted() -> None:
    assert conform(part(target=None), known_schema(), {}).target == "item"


def test_features_fitted_on_other_data() -> None:
    fitted = {"item": {"text": {"type": "numeric", "mean": [0.0], "columns": ("a",)}}}
    other = {"item": {"text": {"type": "numeric", "mean": [1.0], "columns": ["a"]}}}
    same = {"item": {"text": {"type": "numeric", "mean": [0.0], "columns": ["a"]}}}
    with pytest.raises(DataError, match=r"item.text: its numbers mean something else(.|\n)*run.load_graph") as caught:
        conform(part(transforms=other), known_schema(), fitted)
    assert isinstance(caught.value, HgmmError)
    for transforms in (same, {}):
        assert conform(part(transforms=transforms), known_schema(), fitted).num_nodes("item") == 4


def test_training_graphs_with_other_numbers_are_refused_too() -> None:
    graph = make_graph()
    graph.transforms = {"item": {"text": {"mean": [2.0]}}}
    with pytest.raises(DataError, match=r"item.text"):
        conform(graph, graph.schema, {"item": {"text": {"mean": [3.0]}}})


def test_other_class_names_are_those_of_the_model() -> None:
    graph = make_graph()
    schema = dataclasses.replace(graph.schema, classes=("a", "b", "c"))
    known = conform(graph, schema, {})
    assert known.schema.classes == ("a", "b", "c")
    assert not (known.labels >= 0).any()
