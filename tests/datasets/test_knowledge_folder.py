from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hgmm.datasets import info, load
from hgmm.errors import DataError
from hgmm.graph import load_graph, save_graph


@pytest.fixture
def openke(tmp_path: Path) -> Path:
    (tmp_path / "entity2id.txt").write_text("3\na 0\nb 1\nc 2\n")
    (tmp_path / "relation2id.txt").write_text("2\nr 0\ns 1\n")
    (tmp_path / "train2id.txt").write_text("3\n0 1 1\n1 2 0\n0 1 1\n")
    (tmp_path / "valid2id.txt").write_text("1\n2 0 1\n")
    (tmp_path / "test2id.txt").write_text("2\n1 2 0\n2 1 0\n")
    return tmp_path


def test_an_openke_folder(openke: Path) -> None:
    np.save(openke / "text.npy", np.arange(6.0).reshape(3, 2))
    graph = load(openke)
    assert graph.triples is not None
    assert graph.g.num_edges() == 3
    assert graph.schema.relations == ("r", "s")
    assert graph.node_ids["entity"] == ["a", "b", "c"]
    assert graph.schema.modalities["entity"]["text"].source == "text.npy"
    assert graph.source.source == "local"
    assert graph.source.files == (
        "entity2id.txt",
        "relation2id.txt",
        "test2id.txt",
        "text.npy",
        "train2id.txt",
        "valid2id.txt",
    )
    assert set(graph.source.sha256) == set(graph.source.files)
    assert graph.source.note == (
        "1 of 3 train triples are repetitions; 1 of 2 test triples (50.0%) are also train triples"
    )
    assert info(openke).task == "link-prediction"


def test_a_folder_of_names(tmp_path: Path) -> None:
    for name, row in (("train", "a\tr\tb"), ("val", "b\tr\ta"), ("test", "b\tr\tb")):
        (tmp_path / f"{name}.txt").write_text(row + "\n")
    (tmp_path / "entities.txt").write_text("b\na\n")
    (tmp_path / "literals.txt").write_text("a\tage\t3\nnobody\tage\t4\n")
    graph = load(tmp_path)
    assert graph.node_ids["entity"] == ["b", "a"]
    assert graph.source.files == ("entities.txt", "literals.txt", "test.txt", "train.txt", "val.txt")
    assert graph.source.note == "1 of 2 rows of literals.txt are about no entity of the graph"
    assert graph.present("entity")[:, 0].tolist() == [False, True]
    assert info(tmp_path).task == "link-prediction"


def test_a_folder_of_mmkg(tmp_path: Path) -> None:
    rows = [f"<{head}> <r> <{tail}> ." for head in range(6) for tail in range(6)]
    (tmp_path / "X_EntityTriples.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "X_NumericalTriples.txt").write_text("<0>\theight\t1.5\n<1>\theight\t-2\n")
    graph = load(tmp_path)
    assert graph.source.note == "split 80/10/10 at random (seed 0), 0 repeated triples left out"
    assert graph.num_nodes("entity") == 6
    assert graph.features("entity")["numeric"].tolist()[:3] == [[1, 1], [-1, 1], [0, 0]]
    assert info(tmp_path).task == "link-prediction"


def test_two_layouts_in_one_folder(openke: Path) -> None:
    (openke / "X_EntityTriples.txt").write_text("<a> <r> <b> .\n")
    with pytest.raises(DataError, match=r"it has entity2id\.txt, \*EntityTriples\.txt; move the others away"):
        load(openke)


def test_an_imported_graph_keeps_triples_names_and_masks(openke: Path, tmp_path: Path) -> None:
    np.save(openke / "image.npy", np.ones((2, 4)))
    (openke / "image_ids.txt").write_text("c\na\n")
    graph = load(openke)
    again = load_graph(save_graph(graph, tmp_path / "saved"))
    assert graph.triples is not None
    assert again.triples is not None
    assert {split: rows.tolist() for split, rows in again.triples.splits.items()} == {
        split: rows.tolist() for split, rows in graph.triples.splits.items()
    }
    assert again.triples.entity_vocab == ("a", "b", "c")
    assert again.triples.relation_vocab == ("r", "s") == again.schema.relations
    assert again.g.edata["relation"].tolist() == [1, 0, 1]
    assert again.present("entity").tolist() == [[True], [False], [True]]
    assert again.source == graph.source
    assert info(tmp_path / "saved").task == "link-prediction"
