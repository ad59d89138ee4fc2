from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hgmm.datasets import fetch, info, load
from hgmm.datasets.base import check_published
from hgmm.graph import MultimodalGraph, load_graph, save_graph
from hgmm.triples import TripleSet


@pytest.fixture(scope="module")
def graph() -> MultimodalGraph:
    return load("emoji-kg")


@pytest.fixture(scope="module")
def triples(graph: MultimodalGraph) -> TripleSet:
    assert graph.triples is not None
    return graph.triples


def named(graph: MultimodalGraph, relation: str) -> Iterator[tuple[str, str]]:
    """Yield the shown names of head and tail of all triples of a relation."""
    assert graph.triples is not None
    names = graph.node_names["entity"]
    number = graph.triples.relation_vocab.index(relation)
    yield from ((names[h], names[t]) for h, r, t in graph.triples.known.tolist() if r == number)


def test_numbers(graph: MultimodalGraph) -> None:
    check_published(graph, info("emoji-kg"))
    assert fetch("emoji-kg") == []
    assert graph.source.source == "embedded"
    assert info("emoji-kg").task == "link-prediction"


def test_nothing_leaks_and_training_sees_everything(triples: TripleSet) -> None:
    report = triples.report()
    assert not report.has_leaks
    assert report.unseen() == []
    assert len(triples.known) == sum(report.sizes.values())


def test_no_triple_is_told_by_its_reverse(triples: TripleSet) -> None:
    pairs = {(h, t) for h, _, t in triples.known.tolist()}
    # Keywords share a name with an emoji at times, but not an entity.
    assert [(h, t) for h, t in pairs if (t, h) in pairs] == []
    assert len(pairs) == len(triples.known)


def test_relations_say_what_they_mean(graph: MultimodalGraph) -> None:
    assert ("rocket", "travel-places") in set(named(graph, "in_group"))
    assert ("rocket", "space") in set(named(graph, "has_keyword"))
    parts, variants = set(named(graph, "part_of")), set(named(graph, "variant_of"))
    assert ("rocket", "astronaut") in parts
    assert ("woman mage", "mage") in variants
    assert ("mage", "woman mage") not in parts
    assert ("man artist", "artist") in variants
    assert ("female sign", "woman mage") in parts
    assert len(list(named(graph, "introduced_in"))) == 1906


def test_numbers_of_entities_and_their_modalities_agree(graph: MultimodalGraph) -> None:
    emoji = load("emoji")
    ids = graph.node_ids["entity"]
    present = dict(zip(graph.schema.modality_names, graph.present("entity").unbind(1), strict=True))
    kinds = torch.tensor([("emoji", "keyword", "group", "version").index(name.split(":")[0]) for name in ids])
    assert torch.equal(present["image"], kinds == 0)
    assert torch.equal(present["text"], kinds <= 1)
    assert torch.equal(present["numeric"], kinds == 3)
    features = graph.features("entity")
    for ntype, modality in (("emoji", "image"), ("emoji", "text"), ("keyword", "text"), ("version", "numeric")):
        rows = torch.tensor([ids.index(f"{ntype}:{name}") for name in emoji.node_ids[ntype][::97]])
        assert torch.equal(features[modality][rows], emoji.features(ntype)[modality][::97])
    assert bool((features["image"][kinds != 0] == 0).all())
    assert graph.schema.modalities["entity"]["image"].source == emoji.schema.modalities["emoji"]["image"].source


def test_the_split_is_always_the_same(triples: TripleSet) -> None:
    again = load("emoji-kg").triples
    assert again is not None
    assert all(torch.equal(rows, again.splits[split]) for split, rows in triples.splits.items())
    names = triples.entity_vocab
    head, relation, tail = triples.test[0].tolist()
    assert (names[head], triples.relation_vocab[relation], names[tail]) == (
        "emoji:1F550",
        "has_keyword",
        "keyword:time",
    )


def test_it_comes_back_from_a_folder(graph: MultimodalGraph, tmp_path: Path) -> None:
    again = load_graph(save_graph(graph, tmp_path / "saved"))
    assert again.triples is not None
    assert graph.triples is not None
    assert torch.equal(again.triples.known, graph.triples.known)
    assert again.triples.entity_vocab == graph.triples.entity_vocab
    assert again.node_names == graph.node_names
    assert torch.equal(again.present("entity"), graph.present("entity"))
