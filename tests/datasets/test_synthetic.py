from __future__ import annotations

from typing import Any

import pytest
import torch

from hgmm.datasets import check_published, info, load, statistics, synthetic
from hgmm.datasets.synthetic import RELIABILITY_SUFFIX
from hgmm.errors import ConfigError, DataError

NODES = {"item": 60, "user": 30}
EDGES = {("user", "buys", "item"): 120, ("item", "like", "item"): 80}
WIDTHS = {"item": {"text": 6, "image": 4}, "user": {"text": 5}}


def small(**options: Any) -> Any:
    return synthetic(NODES, EDGES, WIDTHS, **options)


def test_the_registered_graph_has_its_published_statistics() -> None:
    graph = load("synthetic")
    check_published(graph, info("synthetic"))
    assert graph.source.source == "synthetic"
    assert graph.source.note == "generated data (seed 0): scores say nothing about real data"
    assert graph.name == "synthetic"


def test_generated_data_is_never_official() -> None:
    with pytest.raises(DataError, match="dataset synthetic: its data is generated and never official"):
        load("synthetic", require_official=True)


def test_a_graph_has_the_types_numbers_and_widths_asked_for() -> None:
    graph = small(classes=3)
    assert statistics(graph) == {
        "item": 60,
        "user": 30,
        "buys": 120,
        "rev_buys": 120,
        "like": 80,
        "classes": 3,
        "class_counts": [20, 20, 20],
        "split_sizes": [12, 6, 42],
    }
    assert graph.schema.modality_names == ("text", "image")
    assert graph.schema.widths("item") == {"text": 6, "image": 4}
    assert graph.schema.widths("user") == {"text": 5}
    assert graph.present("user").all(0).tolist() == [True, False]


def test_reverse_relations_mirror_the_forward_ones() -> None:
    graph = small()
    src, dst = graph.g.edges(etype="buys")
    back_src, back_dst = graph.g.edges(etype="rev_buys")
    assert torch.equal(src, back_dst)
    assert torch.equal(dst, back_src)
    src, dst = graph.g.edges(etype="like")
    assert sorted(zip(src.tolist(), dst.tolist(), strict=True)) == sorted(zip(dst.tolist(), src.tolist(), strict=True))


def test_a_given_relation_of_equal_size_is_the_reverse() -> None:
    graph = synthetic({"item": 60, "user": 30}, {**EDGES, ("item", "bought_by", "user"): 120}, WIDTHS)
    assert {etype[1] for etype in graph.schema.canonical_etypes} == {"buys", "bought_by", "like"}
    src, dst = graph.g.edges(etype="buys")
    back = graph.g.edges(etype="bought_by")
    assert torch.equal(src, back[1])
    assert torch.equal(dst, back[0])


def test_equal_seeds_give_equal_graphs() -> None:
    one, same, other = small(seed=3, missing=0.3), small(seed=3, missing=0.3), small(seed=4, missing=0.3)
    for ntype in NODES:
        for key, values in one.g.nodes[ntype].data.items():
            assert torch.equal(values, same.g.nodes[ntype].data[key])
    assert all(
        torch.equal(mine, its)
        for etype in one.schema.canonical_etypes
        for mine, its in zip(one.g.edges(etype=etype), same.g.edges(etype=etype), strict=True)
    )
    assert not torch.equal(one.features("item")["text"], other.features("item")["text"])


def test_missing_modalities_are_masked_and_zero() -> None:
    graph = synthetic(
        {"item": 2000}, {("item", "like", "item"): 10}, {"item": {"text": 3, "image": 3}}, missing={"image": 0.4}
    )
    present = graph.present("item")
    assert present[:, 0].all()
    assert present[:, 1].float().mean().item() == pytest.approx(0.6, abs=0.05)
    image = graph.features("item")["image"]
    assert (image[~present[:, 1]] == 0).all()
    assert (image[present[:, 1]] != 0).all()


def test_reliability_is_that_of_each_modality_and_kept_with_the_nodes() -> None:
    graph = synthetic(
        {"item": 3000}, {("item", "like", "item"): 10}, {"item": {"text": 3, "image": 3}}, reliability={"text": 0.9}
    )
    data = graph.g.nodes["item"].data
    assert data["text" + RELIABILITY_SUFFIX].mean().item() == pytest.approx(0.9, abs=0.03)
    assert data["image" + RELIABILITY_SUFFIX].mean().item() == pytest.approx(0.7, abs=0.03)


def test_planted_classes_can_be_learnt_from_neighbours() -> None:
    graph = synthetic({"item": 3000}, {("item", "like", "item"): 24000}, {"item": {"text": 16}}, homophily=0.9, seed=1)
    labels = graph.labels
    src, dst = graph.g.edges(etype="like")
    votes = torch.zeros(3000, 4).index_put_((dst, labels[src]), torch.tensor(1.0), accumulate=True)
    connected = votes.sum(1) > 0
    assert (votes.argmax(1) == labels)[connected].float().mean() > 0.8


def test_classes_and_splits_may_be_exact_numbers() -> None:
    graph = small(classes={"a": 10, "b": 50}, split=(5, 5, 20))
    assert graph.schema.classes == ("a", "b")
    assert statistics(graph)["class_counts"] == [10, 50]
    assert statistics(graph)["split_sizes"] == [5, 5, 20]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "shop"}, "synthetic target: unknown node type 'shop'; known: item, user"),
        ({"reliability": {"sound": 0.5}}, "synthetic reliability: unknown name 'sound'; known: image, text"),
        ({"reliability": 1.5}, r"synthetic reliability: 'text' must be from 0 to 1, got 1\.5"),
        ({"missing": {"image": 1.0}}, r"synthetic missing: 'image' must be from 0 up to, but not, 1 .*, got 1\.0"),
        ({"homophily": -0.1}, r"synthetic homophily: 'buys' must be from 0 to 1, got -0\.1"),
        ({"homophily": {"rev_buys": 0.5}}, "synthetic homophily: unknown name 'rev_buys'; known: buys, like"),
        ({"degree_exponent": {"buys": 0.9}}, r"must be above 1, got 0\.9"),
        ({"degrees": {"like": 2}}, "synthetic degrees: unknown edge type between two node types 'like'; known: buys"),
        ({"classes": 0}, "synthetic classes: must be at least 1, got 0"),
        ({"classes": {"a": 10, "b": 20}}, "sum to 30, and there are 60 target nodes"),
        ({"classes": {"a": 70, "b": -10}}, "'b': -10"),
        ({"split": (0.5, 0.5, 0.5)}, r"synthetic split: .* got \(0\.5, 0\.5, 0\.5\)"),
        ({"split": (30, 31, 0)}, r"got \(30, 31, 0\)"),
        ({"split": (0.5, 0.5)}, r"got \(0\.5, 0\.5\)"),
        ({"split": (float("nan"), 0.1, 0.1)}, r"got \(nan, 0\.1, 0\.1\)"),
        ({"noise": float("nan")}, "synthetic noise: must be at least 0 and finite, got nan"),
        ({"noise": -1.0}, r"synthetic noise: must be at least 0 and finite, got -1\.0"),
        ({"seed": -1}, "synthetic seed: must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_bad_graphs_are_named() -> None:
    with pytest.raises(ConfigError, match="synthetic edges: unknown node type 'shop'"):
        synthetic({"item": 9}, {("shop", "sells", "item"): 1}, {})
    with pytest.raises(ConfigError, match="synthetic modalities: unknown node type 'shop'"):
        synthetic({"item": 9}, {("item", "like", "item"): 2}, {"shop": {"text": 1}})
    with pytest.raises(ConfigError, match=r"synthetic edges: must hold at least one relation, got \{\}"):
        synthetic({"item": 9}, {}, {"item": {"text": 1}})
    with pytest.raises(ConfigError, match="synthetic nodes: 'item' must be a whole number of at least 0, got -9"):
        synthetic({"item": -9}, {("item", "like", "item"): 2}, {})
    with pytest.raises(ConfigError, match="synthetic modalities: 'text' must be a whole number of at least 1, got 0"):
        synthetic({"item": 9}, {("item", "like", "item"): 2}, {"item": {"text": 0}})
    with pytest.raises(ConfigError, match=r"\('item', 'rev_buys', 'user'\) must have as many edges .*, got 8 and 6"):
        synthetic(
            {"item": 9, "user": 9},
            {("user", "buys", "item"): 6, ("item", "rev_buys", "user"): 8},
            {"item": {"text": 1}},
        )
    with pytest.raises(ConfigError, match="'like' is symmetric, so its number of edges must be even, got 7"):
        synthetic({"item": 9}, {("item", "like", "item"): 7}, {})
