from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from hgmm.datasets import emoji
from hgmm.datasets.base import statistics
from hgmm.errors import DataError, ShapeError
from hgmm.graph import MultimodalGraph

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 4 * 2**20
LEAK = 0.35
BINS = (2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def graph() -> MultimodalGraph:
    return emoji.load_emoji()


@pytest.fixture(scope="module")
def description() -> dict[str, object]:
    return json.loads((emoji.DATA / "emoji.json").read_text(encoding="utf-8"))


@pytest.fixture
def build_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import build_emoji

    yield build_emoji
    for name in ("build_emoji", "emoji_features", "emoji_images", "emoji_sources"):
        sys.modules.pop(name, None)


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    for name in (*emoji.FILES, emoji.CHECKSUMS):
        (tmp_path / name).write_bytes((emoji.DATA / name).read_bytes())
    monkeypatch.setattr(emoji, "DATA", tmp_path)
    emoji.embedded_contents.cache_clear()
    yield tmp_path
    emoji.embedded_contents.cache_clear()


def binned_accuracy(column: np.ndarray, graph: MultimodalGraph, bins: int) -> float:
    """Predict the commonest training class of each quantile bin; an empty bin takes the largest class."""
    labels, train, test = (x.numpy() for x in (graph.labels, graph.train_idx, graph.test_idx))
    edges = np.unique(np.quantile(column[train], np.linspace(0, 1, bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, column, side="right")
    counts = np.zeros((len(edges) + 1, graph.schema.num_classes))
    np.add.at(counts, (bin_of[train], labels[train]), 1)
    counts += 1e-3 * np.bincount(labels[train], minlength=graph.schema.num_classes)
    return float((counts.argmax(axis=1)[bin_of[test]] == labels[test]).mean())


def best_accuracy(column: np.ndarray, graph: MultimodalGraph) -> float:
    return max(binned_accuracy(column, graph, bins) for bins in BINS)


def neighbour(graph: MultimodalGraph, etype: str) -> np.ndarray:
    tail, head = (end.numpy() for end in graph.g.edges(etype=etype))
    found = np.full(graph.num_nodes("emoji"), -1)
    found[tail] = head
    return found


def test_statistics_are_those_of_the_description(graph: MultimodalGraph) -> None:
    found = statistics(graph)
    assert {key: found[key] for key in emoji.INFO.published} == dict(emoji.INFO.published)


def test_files_are_small_and_match_their_checksums() -> None:
    assert sum(path.stat().st_size for path in emoji.DATA.glob("*emoji*")) < MAX_BYTES
    for line in (emoji.DATA / emoji.CHECKSUMS).read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((emoji.DATA / name).read_bytes()).hexdigest() == digest


def test_notice_names_every_source(description: dict[str, object]) -> None:
    notice = (emoji.DATA / "NOTICE-emoji.txt").read_text(encoding="utf-8")
    for source in description["sources"]:
        assert f"{source['name']} {source['version']}" in notice
    for words in ("Miles Johnson", "UNICODE LICENSE V3", "Apache License", "Permission is hereby granted"):
        assert words in notice


def test_schema(graph: MultimodalGraph) -> None:
    assert {ntype: list(specs) for ntype, specs in graph.schema.modalities.items()} == {
        "emoji": ["text", "image"],
        "keyword": ["text"],
        "version": ["numeric"],
    }
    assert graph.schema.widths("emoji") == {"text": 128, "image": 128}
    assert graph.schema.widths("keyword")["text"] == graph.schema.widths("emoji")["text"]
    assert graph.source.source == "embedded"
    for ntype in graph.schema.ntypes:
        for values in graph.features(ntype).values():
            assert values.dtype == torch.float32
            assert bool(torch.isfinite(values).all())


@pytest.mark.parametrize(("etype", "reverse"), [(e[1], reverse) for e, reverse in emoji.RELATIONS])
def test_relations_are_simple_and_have_a_reverse(graph: MultimodalGraph, etype: str, reverse: str) -> None:
    tail, head = graph.g.edges(etype=etype)
    back_tail, back_head = graph.g.edges(etype=reverse)
    pairs = set(zip(tail.tolist(), head.tolist(), strict=True))
    assert len(pairs) == tail.numel()
    assert pairs == set(zip(back_head.tolist(), back_tail.tolist(), strict=True))


def test_part_of_leads_from_the_part_to_the_whole(graph: MultimodalGraph) -> None:
    names = graph.node_names["emoji"]
    parts, wholes = (end.tolist() for end in graph.g.edges(etype="part_of"))
    assert ("rocket", "woman astronaut") in {(names[p], names[w]) for p, w in zip(parts, wholes, strict=True)}
    assert all(part != whole for part, whole in zip(parts, wholes, strict=True))


def test_every_keyword_is_shared_and_every_emoji_has_one_version(graph: MultimodalGraph) -> None:
    assert int(graph.g.in_degrees(etype="has_keyword").min()) >= 2
    assert graph.g.out_degrees(etype="introduced_in").unique().tolist() == [1]
    assert int(graph.g.in_degrees(etype="introduced_in").min()) >= 1


def test_keywords_do_not_state_a_group(graph: MultimodalGraph) -> None:
    words = {word for name in graph.schema.classes for word in name.split("-")}
    assert words.isdisjoint(graph.node_ids["keyword"])
    assert {"flag", "animal", "food"}.isdisjoint(graph.node_ids["keyword"])


def test_split_is_20_10_70_in_each_class(graph: MultimodalGraph) -> None:
    for label in range(graph.schema.num_classes):
        members = int((graph.labels == label).sum())
        for name, share in (("train", 0.2), ("val", 0.1), ("test", 0.7)):
            assert abs(int((graph.labels[graph.split(name)] == label).sum()) - share * members) <= 1


def test_no_feature_column_predicts_the_label(graph: MultimodalGraph) -> None:
    for modality, values in graph.features("emoji").items():
        for number, column in enumerate(values.numpy().T):
            assert best_accuracy(column, graph) < LEAK, f"{modality} column {number}"


def test_id_order_does_not_predict_the_label(graph: MultimodalGraph) -> None:
    order = np.arange(graph.num_nodes("emoji"))
    assert best_accuracy(order, graph) < LEAK
    labels = graph.labels.numpy()
    shares = np.bincount(labels) / len(labels)
    assert (labels[1:] == labels[:-1]).mean() < (shares**2).sum() + 0.03
    ids = np.argsort(np.argsort(graph.node_ids["emoji"]))
    assert abs(np.corrcoef(ids, order)[0, 1]) < 0.05


def test_keyword_and_version_order_is_shuffled(graph: MultimodalGraph) -> None:
    for ntype, limit in (("keyword", 0.1), ("version", 0.9)):
        rank = np.argsort(np.argsort(graph.node_ids[ntype]))
        assert abs(np.corrcoef(rank, np.arange(len(rank)))[0, 1]) < limit


def test_keywords_alone_tell_what_is_documented(graph: MultimodalGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import emoji_baselines

    monkeypatch.setattr(emoji_baselines, "PENALTIES", (1e-4,))
    features = torch.from_numpy(emoji_baselines.incidence(graph).toarray())
    accuracy, _, _ = emoji_baselines.evaluate(graph, features)
    sys.modules.pop("emoji_baselines")
    assert emoji.__doc__ is not None
    assert "tell .703" in emoji.__doc__
    assert accuracy == pytest.approx(0.703, abs=0.01)


def test_version_edges_do_not_predict_the_label(graph: MultimodalGraph) -> None:
    version = neighbour(graph, "introduced_in")
    labels, train, test = (x.numpy() for x in (graph.labels, graph.train_idx, graph.test_idx))
    counts = np.zeros((graph.num_nodes("version"), graph.schema.num_classes))
    np.add.at(counts, (version[train], labels[train]), 1)
    assert (counts.argmax(axis=1)[version[test]] == labels[test]).mean() < LEAK


def test_leak_check_finds_a_leak(graph: MultimodalGraph) -> None:
    assert best_accuracy(graph.labels.numpy().astype(float), graph) > 0.9


def test_thumbnails_are_small_pictures(graph: MultimodalGraph) -> None:
    for node in (0, 777, graph.num_nodes("emoji") - 1):
        picture = Image.open(io.BytesIO(emoji.thumbnail(node)))
        assert (picture.format, picture.size) == ("PNG", (32, 32))


@pytest.mark.parametrize("node", [-1, 1906])
def test_thumbnail_of_no_node(node: int) -> None:
    with pytest.raises(ShapeError, match=rf"from 0 to 1905, got {node};"):
        emoji.thumbnail(node)


def test_loading_twice_shares_nothing(graph: MultimodalGraph) -> None:
    other = emoji.load_emoji()
    before = graph.features("emoji")["text"][0, 0].item()
    other.g.nodes["emoji"].data["text"].zero_()
    assert graph.features("emoji")["text"][0, 0].item() == before != 0


def test_damaged_file(damaged: Path) -> None:
    (damaged / "emoji.json").write_text("{}")
    with pytest.raises(DataError, match=hashlib.sha256(b"{}").hexdigest()):
        emoji.load_emoji()


def test_missing_file(damaged: Path) -> None:
    (damaged / "emoji.safetensors").unlink()
    with pytest.raises(DataError, match=r"file emoji\.safetensors: must be in the package"):
        emoji.load_emoji()


def test_build_principal_components_keep_inner_products(build_module: ModuleType) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 8)) * np.arange(1, 9)
    reduced = build_module.principal_components(rows @ rows.T, width=8, sign_seed=3)
    centred = rows - rows.mean(axis=0)
    gram = centred @ centred.T
    found = reduced.features @ reduced.features.T
    np.testing.assert_allclose(found / np.trace(found), gram / np.trace(gram), atol=1e-12)
    np.testing.assert_allclose(reduced.features.var(axis=0), 1.0)
    assert reduced.explained_variance == pytest.approx(1.0)


def test_build_words_of_groups_are_left_out(build_module: ModuleType) -> None:
    from emoji_features import mean_word_vectors, tfidf

    words = build_module.group_words(["travel-places", "activities", "flags"])
    assert words == {"travel", "places", "place", "activities", "activity", "flags", "flag"}
    texts = ["flag: Chad", "Chad"]
    ngrams = tfidf(texts, stop_words=words).toarray()
    vectors = {"flag": [1.0] * 100, "chad": [0.0, 2.0] + [0.0] * 98}
    np.testing.assert_allclose(ngrams[0], ngrams[1])
    np.testing.assert_allclose(mean_word_vectors(texts, vectors, stop_words=words)[:, 1], 1.0)


def test_build_edges_and_split_of_a_handful(build_module: ModuleType) -> None:
    from emoji_sources import EmojiRecord

    def record(code: str, *tags: str, version: float = 1.0) -> EmojiRecord:
        return EmojiRecord(code=code, name=code, group="objects", tags=tags, version=version, png=b"")

    records = [record("1F469-200D-1F680", "a", "b", version=4.0), record("1F680", "a"), record("1F469", "c", "flag")]
    assert build_module.shared_keywords(records, {"flag"}) == ["a"]
    assert build_module.part_edges(records).tolist() == [[2, 1], [0, 0]]
    assert build_module.keyword_edges(records, ["a"]).tolist() == [[0, 1], [0, 0]]
    assert build_module.release_edges(records, [4.0, 2.0]).tolist() == [[0, 1, 2], [0, 1, 1]]
    codes = build_module.stratified_split(np.repeat([0, 1], [10, 20]), 5)
    assert np.bincount(codes[:10]).tolist() == [2, 1, 7]
    assert np.bincount(codes[10:]).tolist() == [4, 2, 14]
