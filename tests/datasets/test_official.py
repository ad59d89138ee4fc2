from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hgmm.datasets import load
from hgmm.errors import DataError
from hgmm.registry import DATASETS
from tests.datasets.official_files import write_matrix, write_movies


@pytest.fixture
def douban(tmp_path: Path) -> Path:
    """Return the data root of a DOUBAN whose graph is generated, with the published numbers and without features."""
    graph = load("douban", root=tmp_path / "none")
    folder = tmp_path / "hgnn-ima" / "douban"
    write_movies(graph, folder, edge_file="douban_actor_rdf.npy", split_file="train_val_test_idx_929.npz")
    return tmp_path


def write_features(root: Path, *, leave_out: str = "") -> None:
    dataset = DATASETS.get("douban")
    rng = np.random.default_rng(0)
    for file in dataset.info.official_files:
        if file.modality and file.path != leave_out:
            rows = dataset.counts.nodes[file.ntype]
            write_matrix(root / "hgnn-ima" / "douban" / file.path, rng.random((rows, 7)))


def test_all_files_are_official(douban: Path) -> None:
    write_features(douban)
    graph = load("douban", root=douban, require_official=True)
    assert graph.source.source == "official"
    assert graph.source.note == ""
    assert graph.source.absent == ()
    assert len(graph.source.files) == len(graph.source.sha256) == 7
    assert graph.schema.widths("movie") == {"text": 7, "image": 7}
    assert graph.schema.widths("actor") == {"text": 7}
    assert graph.schema.modalities["movie"]["image"].source == "img_feature_douban_512_199.npz"
    assert graph.name == "douban"


def test_the_root_may_be_the_folder_of_these_datasets(douban: Path) -> None:
    assert load("douban", root=douban / "hgnn-ima").source.source == "local"


def test_an_absent_modality_is_reported_and_stays_on_the_axis(douban: Path) -> None:
    write_features(douban, leave_out="img_feature_douban_512_199.npz")
    graph = load("douban", root=douban)
    assert graph.source.source == "local"
    assert graph.source.absent == ("movie.image",)
    assert graph.source.note == (
        "real data of 'douban', treated as absent: movie.image (img_feature_douban_512_199.npz)"
    )
    assert graph.schema.modality_names == ("text", "image")
    assert graph.present("movie").all(0).tolist() == [True, False]


def test_without_any_features_there_is_structure(douban: Path) -> None:
    graph = load("douban", root=douban)
    assert graph.source.absent == ("movie.text", "director.text", "actor.text", "movie.image")
    assert graph.schema.modality_names == ("structure",)


def test_official_files_may_be_required(douban: Path) -> None:
    folder = douban / "hgnn-ima" / "douban"
    write_features(douban, leave_out="img_feature_douban_512_199.npz")
    with pytest.raises(DataError) as caught:
        load("douban", root=douban, require_official=True)
    assert str(caught.value) == (
        f"dataset douban: 1 of 7 published files are missing in {folder}: img_feature_douban_512_199.npz; "
        "run: hgmm datasets fetch douban, or download them from "
        "https://drive.google.com/drive/folders/1BE8UC02t2-23F-aDBi3XXjXbX38Yg-Rkt"
    )
    with pytest.raises(DataError, match="7 of 7 published files are missing"):
        load("douban", root=douban / "nowhere", require_official=True)


def test_part_of_a_graph_is_no_reason_for_a_stand_in(douban: Path) -> None:
    (douban / "hgnn-ima" / "douban" / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"5 of 7 published files are missing in .*: labels\.npy, features_"):
        load("douban", root=douban)


def test_without_files_a_stand_in_says_so(tmp_path: Path) -> None:
    graph = load("douban", root=tmp_path)
    assert graph.source.source == "synthetic"
    assert graph.source.note == (
        f"synthetic stand-in: the published files of 'douban' are not in {tmp_path / 'douban'}, so a generated graph "
        "with the published schema and statistics takes their place; scores on it say nothing about the real data (to "
        "get the files: hgmm datasets fetch douban)"
    )
    assert "labels.npy" in graph.source.absent


def test_features_need_a_row_for_each_node(douban: Path) -> None:
    write_matrix(douban / "hgnn-ima" / "douban" / "img_feature_douban_512_199.npz", np.ones((1887, 3)))
    with pytest.raises(DataError, match="one row for each of the 1888 nodes of type 'movie', got 1887"):
        load("douban", root=douban)


def test_other_numbers_than_published_are_refused(douban: Path) -> None:
    path = douban / "hgnn-ima" / "douban" / "labels.npy"
    labels = np.load(path)
    labels[np.flatnonzero(labels == 0)[0]] = 1
    np.save(path, labels)
    with pytest.raises(DataError, match=r"class_counts: published \[1067, 821\], found \[1066, 822\]"):
        load("douban", root=douban)


def test_there_is_a_label_for_each_node(douban: Path) -> None:
    path = douban / "hgnn-ima" / "douban" / "labels.npy"
    labels = np.load(path)
    for wrong, shape in ((labels[:-1], r"\(1887,\)"), (labels[:, None], r"\(1888, 1\)")):
        np.save(path, wrong)
        with pytest.raises(DataError, match=f"one for each of the 1888 nodes of type 'movie', got the shape {shape}"):
            load("douban", root=douban)
    np.save(path, labels + 0.5)
    with pytest.raises(DataError, match=r"labels\.npy: must be whole numbers, got [01]\.5"):
        load("douban", root=douban)


def test_a_split_must_belong_to_the_labels(douban: Path) -> None:
    path = douban / "hgnn-ima" / "douban" / "train_val_test_idx_929.npz"
    parts = dict(np.load(path))
    parts["test_idx"][0] = 1888
    np.savez(path, **parts)
    with pytest.raises(DataError, match="split 'test': node numbers must be from 0 to 1887, got 1888"):
        load("douban", root=douban)
