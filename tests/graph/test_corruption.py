from __future__ import annotations

import pytest
import torch

from hgmm.datasets import synthetic
from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import Corruption, GraphSchema, ModalitySpec, MultimodalGraph, corrupt, load_graph, save_graph
from hgmm.graph.structure import structure_features
from hgmm.triples import TripleSet


@pytest.fixture(scope="module")
def graph() -> MultimodalGraph:
    """Items with text and image, the latter missing at one in five; users with text; tags with nothing."""
    return synthetic(
        {"item": 300, "user": 200, "tag": 20},
        {("item", "similar", "item"): 600, ("user", "rates", "item"): 900, ("item", "has", "tag"): 400},
        {"item": {"text": 6, "image": 4}, "user": {"text": 5}},
        missing={"image": 0.2},
        split=(100, 50, 150),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image=0.3", Corruption("missing", 0.3, "image")),
        ("missing:labels=1", Corruption("missing", 1.0, "labels")),
        (" noise : image = 2 ", Corruption("noise", 2.0, "image")),
        ("labels=0.2", Corruption("labels", 0.2)),
        ("edges=1e-1", Corruption("edges", 0.1)),
    ],
)
def test_an_entry_is_a_name_and_an_amount(text: str, expected: Corruption) -> None:
    assert Corruption.parse(text) == expected
    assert Corruption.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["image", "=0.3", "noise:=0.3", "image=much", "image=nan", ""])
def test_anything_else_says_how_to_write_it(text: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"corruption '{text}': must be a name and a number; write image=0\.3, noise"
    ):
        Corruption.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image=1.5", r"amount of 'missing:image': a share is from 0 to 1, got 1\.5"),
        ("labels=-0.1", r"amount of 'labels': a share is from 0 to 1, got -0\.1"),
        ("edges=inf", r"amount of 'edges': a share is from 0 to 1, got inf"),
        ("noise:image=inf", r"amount of 'noise:image': the noise must be at least 0 and finite, got inf"),
        ("noise:image=-1", r"amount of 'noise:image': the noise must be at least 0 and finite, got -1\.0"),
        ("blur:image=0.1", r"unknown kind 'blur'; known: edges, labels, missing, noise"),
        ("labels:train=0.1", r"'labels' has no modality, got 'train'; write"),
    ],
)
def test_an_amount_or_kind_that_makes_no_sense_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Corruption.parse(text)


def test_a_modality_is_needed_where_one_is_damaged() -> None:
    with pytest.raises(ConfigError, match="'noise' needs the name of a modality, got None"):
        Corruption("noise", 0.1)


def test_a_modality_is_taken_from_a_share_of_those_that_have_it(graph: MultimodalGraph) -> None:
    before, after = graph.present("item"), corrupt(graph, ["image=0.25"]).present("item")
    had = int(before[:, 1].sum())
    assert int(after[:, 1].sum()) == had - round(0.25 * had)
    assert not (after & ~before).any()
    assert torch.equal(after[:, 0], before[:, 0])
    damaged = corrupt(graph, ["image=0.25"])
    features = damaged.features("item")["image"]
    assert (features[~after[:, 1]] == 0).all()
    assert torch.equal(features[after[:, 1]], graph.features("item")["image"][after[:, 1]])
    assert damaged.features("item")["text"] is graph.features("item")["text"]


def test_a_modality_is_taken_at_every_node_type_that_has_it(graph: MultimodalGraph) -> None:
    damaged = corrupt(graph, ["text=1"])
    assert not damaged.present("item")[:, 0].any()
    assert not damaged.present("user")[:, 0].any()
    assert damaged.source.note.endswith(
        "corrupted on purpose (seed 0): text taken from 300 of 300 item, text taken from 200 of 200 user"
    )
    assert damaged.source.corrupted == ("missing:text=1",)


@pytest.mark.parametrize("what", ["image", "labels", "edges"])
def test_a_larger_amount_takes_what_a_smaller_one_takes(graph: MultimodalGraph, what: str) -> None:
    def touched(amount: float) -> set[object]:
        damaged = corrupt(graph, [f"{what}={amount}"])
        if what == "image":
            return set((~damaged.present("item")[:, 1]).nonzero().flatten().tolist())
        if what == "labels":
            return {(n, int(damaged.labels[n])) for n in (damaged.labels != graph.labels).nonzero().flatten().tolist()}
        return pairs(graph, "rates") - pairs(damaged, "rates")

    few, many = touched(0.2), touched(0.6)
    assert few < many


def test_other_damage_and_its_order_change_nothing(graph: MultimodalGraph) -> None:
    alone = corrupt(graph, ["image=0.3"])
    both = corrupt(graph, ["image=0.3", "text=0.5", "labels=0.5", "noise:text=1", "edges=0.5"])
    turned = corrupt(graph, ["edges=0.5", "noise:text=1", "labels=0.5", "text=0.5", "image=0.3"])
    assert torch.equal(alone.present("item")[:, 1], both.present("item")[:, 1])
    assert torch.equal(both.features("item")["text"], turned.features("item")["text"])
    assert both.source == turned.source


def test_seeds_decide(graph: MultimodalGraph) -> None:
    one, same, other = (corrupt(graph, ["image=0.3"], seed=seed).present("item") for seed in (4, 4, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_noise_is_measured_in_standard_deviations_of_a_column(graph: MultimodalGraph) -> None:
    g = graph.g.local_var()
    g.nodes["user"].data["text"] = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [0.0, 1.0, 10.0, 100.0, 1000.0]
    )
    wide = MultimodalGraph(g, graph.schema)
    noise = corrupt(wide, ["noise:text=0.5"]).features("user")["text"] - wide.features("user")["text"]
    ratio = noise.std(0)[1:] / wide.features("user")["text"].std(0)[1:]
    torch.testing.assert_close(ratio, torch.full((4,), 0.5), rtol=0.15, atol=0)
    assert (noise[:, 0] == 0).all()


def test_noise_leaves_absent_rows_alone_and_keeps_the_dtype(graph: MultimodalGraph) -> None:
    g = graph.g.local_var()
    g.nodes["item"].data["image"] = g.nodes["item"].data["image"].half()
    half = MultimodalGraph(g, graph.schema)
    image = corrupt(half, ["noise:image=1"]).features("item")["image"]
    present = graph.present("item")[:, 1]
    assert image.dtype == torch.float16
    assert (image[~present] == 0).all()
    assert not torch.equal(image[present], half.features("item")["image"][present])


def test_labels_change_in_training_only_and_always_to_another_class(graph: MultimodalGraph) -> None:
    damaged = corrupt(graph, ["labels=0.3"])
    changed = (damaged.labels != graph.labels).nonzero().flatten()
    assert len(changed) == 30
    assert set(changed.tolist()) <= set(graph.train_idx.tolist())
    assert set(damaged.labels[changed].tolist()) == {0, 1, 2, 3}
    assert len(corrupt(graph, ["labels=1"]).labels.ne(graph.labels).nonzero()) == 100


def pairs(graph: MultimodalGraph, etype: str) -> set[object]:
    src, dst = graph.g.edges(etype=etype)
    return set(zip(src.tolist(), dst.tolist(), strict=True))


def test_a_pair_of_nodes_loses_its_edges_in_both_directions(graph: MultimodalGraph) -> None:
    damaged = corrupt(graph, ["edges=0.4"])
    for forward, backward in (("rates", "rev_rates"), ("has", "rev_has"), ("similar", "similar")):
        kept = pairs(damaged, forward)
        assert kept < pairs(graph, forward)
        assert {(dst, src) for src, dst in kept} == pairs(damaged, backward)
    share = damaged.g.num_edges() / graph.g.num_edges()
    assert share == pytest.approx(0.6, abs=0.05)
    assert corrupt(graph, ["edges=1"]).g.num_edges() == 0
    assert corrupt(graph, ["edges=0"]).g.num_edges() == graph.g.num_edges()


def test_features_from_degrees_follow_the_edges(graph: MultimodalGraph) -> None:
    damaged = corrupt(graph, ["edges=0.4"])
    expected = structure_features(damaged.g, "tag", damaged.node_ids["tag"])
    assert torch.equal(damaged.features("tag")["structure"], expected)
    assert not torch.equal(expected, graph.features("tag")["structure"])


def test_structure_that_was_given_stays(small_graph: MultimodalGraph) -> None:
    g = small_graph.g.local_var()
    specs = {**small_graph.schema.modalities, "user": {"structure": ModalitySpec("structure", 2, "a file")}}
    g.nodes["user"].data["structure"] = torch.ones(4, 2)
    schema = GraphSchema(small_graph.schema.ntypes, small_graph.schema.canonical_etypes, specs, target="item")
    given = MultimodalGraph(g, GraphSchema.from_dict({**schema.to_dict(), "classes": ["even", "odd"]}))
    assert torch.equal(corrupt(given, ["edges=1"]).features("user")["structure"], torch.ones(4, 2))


def test_training_triples_go_with_their_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([torch.randint(high, (60,), generator=generator) for high in (20, 3, 20)], 1)
    names = tuple(f"e{n}" for n in range(20))
    knowledge = MultimodalGraph.from_triples(TripleSet(rows[:40], rows[40:50], rows[50:], names, ("a", "b", "c")))
    damaged = corrupt(knowledge, ["edges=0.5"])
    assert damaged.triples is not None
    kept = set(map(tuple, damaged.triples.train.tolist()))
    assert 0 < len(kept) < 40
    assert kept < set(map(tuple, rows[:40].tolist()))
    assert damaged.g.num_edges() == len(damaged.triples.train)
    assert torch.equal(damaged.triples.test, rows[50:])


def test_the_graph_itself_is_not_changed(small_graph: MultimodalGraph) -> None:
    before = {name: values.clone() for name, values in small_graph.g.nodes["item"].data.items()}
    corrupt(small_graph, ["text=0.5", "noise:image=1", "labels=0.5", "edges=0.5"])
    assert set(small_graph.g.nodes["item"].data) == set(before)
    assert all(torch.equal(small_graph.g.nodes["item"].data[name], values) for name, values in before.items())
    assert small_graph.g.num_edges() == 24
    assert small_graph.source.corrupted == ()


def test_without_damage_nothing_is_said(small_graph: MultimodalGraph) -> None:
    assert corrupt(small_graph, []).source == small_graph.source


def test_what_was_done_survives_saving(small_graph: MultimodalGraph, tmp_path: object) -> None:
    damaged = corrupt(corrupt(small_graph, ["text=0.5"]), ["labels=0.5"])
    assert damaged.source.corrupted == ("missing:text=0.5", "labels=0.5")
    save_graph(damaged, f"{tmp_path}/saved")
    assert load_graph(f"{tmp_path}/saved").source == damaged.source


def test_an_empty_node_type_can_be_damaged() -> None:
    g = dgl.heterograph({("a", "r", "a"): ([], [])}, num_nodes_dict={"a": 0})
    g.nodes["a"].data["text"] = torch.zeros(0, 3)
    schema = GraphSchema(("a",), (("a", "r", "a"),), {"a": {"text": ModalitySpec("text", 3)}})
    damaged = corrupt(MultimodalGraph(g, schema), ["text=0.5", "noise:text=1", "edges=0.5"])
    assert damaged.num_nodes("a") == 0


def test_an_unknown_modality_lists_the_known_ones(small_graph: MultimodalGraph) -> None:
    with pytest.raises(
        SchemaError,
        match=r"'missing:imgae=0\.3' on graph 'small': unknown modality 'imgae'; known: image, structure, t",
    ):
        corrupt(small_graph, ["imgae=0.3"])


def test_labels_need_two_classes() -> None:
    g = dgl.heterograph({("a", "r", "a"): ([0], [1])})
    schema = GraphSchema(("a",), (("a", "r", "a"),), {})
    with pytest.raises(SchemaError, match=r"'labels=0\.1' needs two classes, and graph 'graph' has 0; leave it out"):
        corrupt(MultimodalGraph(g, schema), ["labels=0.1"])


def test_one_thing_is_damaged_once(small_graph: MultimodalGraph) -> None:
    with pytest.raises(ConfigError, match="'missing:image' stands 2 times; give one amount"):
        corrupt(small_graph, ["image=0.1", "missing:image=0.2"])


def test_a_seed_is_not_negative(small_graph: MultimodalGraph) -> None:
    with pytest.raises(ConfigError, match="corrupt seed: must be at least 0, got -1"):
        corrupt(small_graph, ["image=0.1"], seed=-1)
