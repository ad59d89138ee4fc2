from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hgmm.datasets import fetch, github, info, load, statistics
from hgmm.datasets.knowledge_graphs import MkgWDataset
from hgmm.datasets.openke import OPENKE_FILES
from hgmm.errors import DataError

NAMES = ("db15k", "fb15k", "fb15k-237", "mkg-w", "mkg-y")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make mkg-w a graph of three entities, and return the folder with its triples."""
    published = {"entity": 3, "relations": 2, "split_sizes": [3, 1, 1]}
    monkeypatch.setattr(MkgWDataset, "info", replace(MkgWDataset.info, published=published))
    folder = tmp_path / "kg" / "MKG-W"
    folder.mkdir(parents=True)
    (folder / "entity2id.txt").write_text("3\na 0\nb 1\nc 2\n")
    (folder / "relation2id.txt").write_text("2\nr 0\ns 1\n")
    (folder / "train2id.txt").write_text("3\n0 1 1\n1 2 0\n2 0 0\n")
    (folder / "valid2id.txt").write_text("1\n2 1 1\n")
    (folder / "test2id.txt").write_text("1\n1 2 0\n")
    return folder


def test_triples_without_vectors_are_local_and_say_what_is_absent(small: Path, tmp_path: Path) -> None:
    graph = load("mkg-w", root=tmp_path)
    assert (graph.name, graph.source.source) == ("mkg-w", "local")
    assert graph.source.absent == ("entity.image", "entity.text")
    assert graph.source.note == (
        "real triples of 'mkg-w', treated as absent: entity.image (*-visual.pth), entity.text (*-textual.pth); "
        "1 of 1 test triples (100.0%) are also train triples"
    )
    assert set(graph.source.files) == set(OPENKE_FILES)
    with pytest.raises(DataError, match=r"2 of 7 published files are missing .*download \*-visual\.pth from https"):
        load("mkg-w", root=tmp_path, require_official=True)


def test_published_vectors_make_it_official_and_own_ones_do_not(small: Path, tmp_path: Path) -> None:
    torch.save(torch.ones(3, 4), small / "MKG-W-visual.pth")
    np.save(small / "text.npy", np.ones((3, 2)))
    graph = load("mkg-w", root=tmp_path)
    assert graph.source.source == "local"
    assert graph.source.absent == ()
    assert graph.source.note == "1 of 1 test triples (100.0%) are also train triples"
    assert graph.schema.modality_names == ("image", "text")
    (small / "text.npy").unlink()
    torch.save(torch.ones(3, 2), small / "MKG-W-textual.pth")
    assert load("mkg-w", root=tmp_path, require_official=True).source.source == "official"


def test_triples_in_part_are_an_error(small: Path, tmp_path: Path) -> None:
    (small / "valid2id.txt").unlink()
    with pytest.raises(
        DataError, match=r"valid2id\.txt, .* run: hgmm datasets fetch mkg-w, or download them from https"
    ):
        load("mkg-w", root=tmp_path)


def test_other_numbers_than_the_published_ones(small: Path, tmp_path: Path) -> None:
    (small / "valid2id.txt").write_text("2\n2 1 1\n1 1 1\n")
    with pytest.raises(DataError, match=r"split_sizes: published \[3, 1, 1\], found \[3, 2, 1\]"):
        load("mkg-w", root=tmp_path)


def test_triples_are_fetched(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "web" / "zjukg" / "NATIVE" / "HEAD" / "benchmarks"
    there.mkdir(parents=True)
    small.rename(there / "MKG-W")
    monkeypatch.setattr(github, "RAW", (tmp_path / "web").as_uri())
    paths = fetch("mkg-w", root=tmp_path)
    assert paths == [small / name for name in OPENKE_FILES]
    assert load("mkg-w", root=tmp_path).source.source == "local"


@pytest.mark.parametrize("name", ["mkg-w", "mkg-y"])
def test_a_stand_in_has_the_published_numbers(tmp_path: Path, name: str) -> None:
    graph = load(name, root=tmp_path)
    published = dict(info(name).published)
    assert {key: value for key, value in statistics(graph).items() if key in published} == published
    assert graph.source.source == "synthetic"
    assert graph.source.note.startswith(f"synthetic stand-in: the published files of '{name}' are not in {tmp_path}")
    assert graph.schema.modality_names == ("image", "text")
    assert graph.triples is not None
    assert not graph.triples.report().has_leaks


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_without_loading(name: str) -> None:
    found = info(name)
    assert found.task == "link-prediction"
    assert tuple(file.path for file in found.official_files[:5]) == OPENKE_FILES
    assert all(file.url for file in found.official_files if file.modality)
    assert found.url.startswith("https://github.com/")


def test_real_files(real_data: Path) -> None:
    graph = load("db15k", root=real_data)
    assert graph.source.source == "local"
    assert graph.source.absent == ("entity.image",)
    assert "1,466 of 9,903 test triples (14.8%) are also train triples" in graph.source.note
    assert load("mkg-w", root=real_data).source.absent == ("entity.image", "entity.text")
