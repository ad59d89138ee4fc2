from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from hgmm.datasets import load
from hgmm.datasets.official import read_array, read_matrix, read_splits, relation_rows, with_reverse
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


def test_a_split_must_belong_to_the_labels(douban: Path) -> None:
    path = douban / "hgnn-ima" / "douban" / "train_val_test_idx_929.npz"
    parts = dict(np.load(path))
    parts["test_idx"][0] = 1888
    np.savez(path, **parts)
    with pytest.raises(DataError, match="split 'test': node numbers must be from 0 to 1887, got 1888"):
        load("douban", root=douban)


VALUES = np.array([[0.0, 1.5], [2.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("kind", ["dense.npy", "dense.npz", "sparse.npz"])
def test_a_matrix_is_read_from_each_published_form(tmp_path: Path, kind: str) -> None:
    write_matrix(tmp_path / kind, VALUES, sparse=kind.startswith("sparse"))
    values = read_matrix(tmp_path / kind)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, VALUES)


def test_one_dimension_is_one_column(tmp_path: Path) -> None:
    np.save(tmp_path / "price.npy", np.arange(3))
    assert read_matrix(tmp_path / "price.npy").shape == (3, 1)


def test_what_is_no_matrix_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=VALUES)
    with pytest.raises(DataError, match="must hold the array 'feature' or a sparse matrix, found: features"):
        read_matrix(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match=r"must be a matrix of numbers, got shape \(2, 2, 2\), dtype float64"):
        read_matrix(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([["x"]]))
    with pytest.raises(DataError, match="dtype <U1"):
        read_matrix(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"c\.npy: cannot be read as numpy data \(.*allow_pickle"):
        read_matrix(tmp_path / "c.npy")
    (tmp_path / "d.npz").write_bytes(b"PK but no archive")
    with pytest.raises(DataError, match=r"d\.npz: cannot be read as numpy data"):
        read_matrix(tmp_path / "d.npz")
    np.save(tmp_path / "e.npz.npy", VALUES)
    (tmp_path / "e.npz.npy").rename(tmp_path / "e.npz")
    with pytest.raises(DataError, match=r"e\.npz: must be a \.npz archive, got one array of shape \(3, 2\)"):
        read_matrix(tmp_path / "e.npz")
    scipy.sparse.save_npz(tmp_path / "f.npz", scipy.sparse.csr_matrix(VALUES))
    with pytest.raises(DataError, match=r"f\.npz: must be a \.npy file with one array, got an archive of .*'indptr'"):
        read_array(tmp_path / "f.npz")


def test_splits_need_all_three_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", train_idx=[0], test_idx=[1])
    with pytest.raises(DataError, match="array 'val_idx' is missing; found: test_idx, train_idx"):
        read_splits(tmp_path / "s.npz")


def test_relations_lose_their_offsets(tmp_path: Path) -> None:
    path, etype = tmp_path / "rdf.npy", ("a", "ab", "b")
    options = {"first": {"a": 0, "b": 3}, "num_nodes": {"a": 3, "b": 2}}
    np.save(path, np.array([[0, 4, 0], [4, 0, 1], [2, 3, 0], [0, 4, 0]]))
    src, dst = relation_rows(path, 0, etype, **options)
    assert (src.tolist(), dst.tolist()) == ([0, 2, 0], [1, 0, 1])
    forward, backward = with_reverse(src, dst)
    assert [end.tolist() for end in forward] == [[0, 2], [1, 0]]
    assert [end.tolist() for end in backward] == [[1, 0], [0, 2]]
    np.save(path, np.array([[0, 5, 0]]))
    with pytest.raises(DataError, match=r"relation 0 \(ab\) must be nodes 3 to 4 \(b\), got 5"):
        relation_rows(path, 0, etype, **options)
    np.save(path, np.array([[0, 5]]))
    with pytest.raises(DataError, match=r"must be whole numbers of shape \(n, 3\), got \(1, 2\) int64"):
        relation_rows(path, 0, etype, **options)
