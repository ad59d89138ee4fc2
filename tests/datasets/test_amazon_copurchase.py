from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hgmm.datasets import check_published, info, load
from hgmm.errors import DataError
from hgmm.graph import MultimodalGraph
from tests.datasets.official_files import write_copurchase, write_matrix


@pytest.fixture(scope="module")
def stand_in() -> MultimodalGraph:
    return load("amazon-1", root="/nonexistent")


@pytest.fixture
def folder(tmp_path: Path, stand_in: MultimodalGraph) -> Path:
    write_copurchase(stand_in, tmp_path / "amazon-1")
    for name in ("text", "image"):
        write_matrix(tmp_path / "amazon-1" / f"item_{name}_features.npy", np.ones((6000, 4)))
    return tmp_path / "amazon-1"


def test_the_stand_in_says_that_its_sizes_are_made_up(stand_in: MultimodalGraph) -> None:
    check_published(stand_in, info("amazon-1"))
    assert "made-up sizes (none are published)" in stand_in.source.note
    third = load("amazon-2", root="/nonexistent")
    assert third.schema.modality_names == ("text", "image", "numeric")
    assert third.schema.widths("item")["numeric"] == 1


def test_the_pickled_files_are_read(folder: Path, stand_in: MultimodalGraph) -> None:
    graph = load("amazon-1", root=folder.parent, require_official=True)
    assert graph.source.source == "official"
    assert torch.equal(graph.labels, stand_in.labels)
    assert torch.equal(graph.test_idx, stand_in.test_idx)
    for etype in stand_in.schema.canonical_etypes:
        pairs = [torch.stack(g.g.edges(etype=etype)).unique(dim=1) for g in (stand_in, graph)]
        assert torch.equal(*pairs)


def test_a_pair_stored_both_ways_becomes_parallel_edges(folder: Path) -> None:
    rows = np.array(
        [[0, 1, "also_viewed"], ["1", 0, "also_viewed"], [0, 1, "also_viewed"], [2, 3, "also_bought"]], object
    )
    np.save(folder / "triples.npy", rows, allow_pickle=True)
    graph = load("amazon-1", root=folder.parent)
    src, dst = graph.g.edges(etype="also_viewed")
    assert sorted(zip(src.tolist(), dst.tolist(), strict=True)) == [(0, 1), (0, 1), (1, 0), (1, 0)]
    assert graph.g.num_edges("also_bought") == 2
    assert graph.g.num_edges("bought_together") == 0


def test_amazon_2_finds_the_files_of_amazon_1_and_adds_the_price(folder: Path) -> None:
    assert load("amazon-2", root=folder.parent).source.absent == ("item.numeric",)
    np.save(folder / "item_price.npy", np.linspace(0, 9, 6000)[:, None])
    graph = load("amazon-2", root=folder.parent, require_official=True)
    assert graph.schema.widths("item") == {"text": 4, "image": 4, "numeric": 1}


def table(folder: Path, rows: list[list[object]]) -> None:
    np.save(folder / "triples.npy", np.array(rows, dtype=object), allow_pickle=True)


def splits(folder: Path, content: object) -> None:
    array = np.empty((), dtype=object)
    array[()] = content
    np.save(folder / "item_data_dict.npy", array, allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: table(f, [[0, 1]]), r"triples\.npy: must be rows .*, got shape \(1, 2\)"),
        (lambda f: table(f, [[0, 1, "likes"]]), "unknown relation 'likes'; known: also_bought, also_viewed"),
        (lambda f: table(f, [[0, "x", "also_bought"]]), r"heads and tails must be whole numbers \(.*'x'"),
        (lambda f: table(f, [[0, 6000, "also_bought"]]), "item numbers must be from 0 to 5999, got 6000"),
        (lambda f: splits(f, [1]), r"must hold a dict, got an array of shape \(\)"),
        (lambda f: splits(f, {"train_idx": [0], "val_idx": [1]}), "'test_idx' is missing; found: train_idx, val_idx"),
        (lambda f: splits(f, {"train_idx": {0}}), "its pickle holds a set"),
        (lambda f: table(f, [[0, 10**30, "also_bought"]]), "heads and tails must be whole numbers"),
        (
            lambda f: splits(f, {"train_idx": [0], "val_idx": ["x"], "test_idx": [1]}),
            r"val_idx must be whole numbers \(.*'x'",
        ),
    ],
)
def test_damaged_files_are_named(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load("amazon-1", root=folder.parent)


def test_the_published_settings() -> None:
    assert info("amazon-1").settings_for("modal2_align")["train.branch_weight"] == 1.0
    assert info("amazon-1").settings["train.monitor"] == "micro_f1"
    assert info("amazon-2").settings["train.monitor"] == "macro_f1"
    assert info("amazon-2").settings["model.hidden_size"] == 128
