from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hgmm.datasets import fetch, load, nations
from hgmm.datasets.nations import NationsDataset
from hgmm.errors import DataError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package with few triples in the place of pykeen, and return the folder with its files."""
    published = {"entity": 2, "relations": 1, "split_sizes": [2, 1, 1]}
    monkeypatch.setattr(NationsDataset, "info", replace(NationsDataset.info, published=published))
    origin = str(tmp_path / "pykeen" / "__init__.py")
    monkeypatch.setattr(nations, "find_spec", lambda name: SimpleNamespace(origin=origin) if name == "pykeen" else None)
    folder = tmp_path / "pykeen" / "datasets" / "nations"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "train.txt").write_text("uk\ttreaties\tussr\nussr\ttreaties\tuk\n")
    (folder / "valid.txt").write_text("uk\ttreaties\tuk\n")
    (folder / "test.txt").write_text("ussr\ttreaties\tussr\n")
    (folder / "literals.txt").write_text("uk\tarea\t243610\n")
    return folder


def test_triples_and_numbers_come_from_the_package(package: Path) -> None:
    graph = load("nations")
    assert (graph.name, graph.source.source) == ("nations", "official")
    assert graph.node_ids["entity"] == ["uk", "ussr"]
    assert graph.present("entity").tolist() == [[True], [False]]
    assert graph.schema.modality_names == ("numeric",)
    assert graph.source.files == ("literals.txt", "test.txt", "train.txt", "valid.txt")
    assert fetch("nations") == []
    assert "pykeen" not in sys.modules


def test_other_numbers_than_the_published_ones(package: Path) -> None:
    (package / "valid.txt").write_text("uk\ttreaties\tuk\nuk\ttreaties\tuk\n")
    with pytest.raises(DataError, match=r"split_sizes: published \[2, 1, 1\], found \[2, 2, 1\]"):
        load("nations")


def test_without_the_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.rename(package.with_name("gone"))
    with pytest.raises(DataError, match=r"nations is missing from pykeen; run: pip install 'hgmm\[nations\]'"):
        load("nations")
    monkeypatch.setattr(nations, "find_spec", lambda name: None)
    for use in (load, fetch):
        with pytest.raises(DataError, match=r"needs the package pykeen, and it is not installed; .*'hgmm\[nations\]'"):
            use("nations")
