from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from hgmm.datasets.arrays import read_array, read_matrix, read_splits, relation_rows, whole_numbers, with_reverse
from hgmm.errors import DataError
from tests.datasets.official_files import write_matrix

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


def test_whole_numbers() -> None:
    assert whole_numbers("x", np.array([1.0, -2.0])).tolist() == [1, -2]
    assert whole_numbers("x", np.array([3], dtype=np.uint8)).dtype == np.int64
    for values, message in (([1.5], "got 1.5"), ([np.nan], "got nan"), (["a"], "got dtype <U1"), ([True], "bool")):
        with pytest.raises(DataError, match=f"x: must be whole numbers, .*{message}"):
            whole_numbers("x", np.array(values))


def test_dimensions_of_length_one_are_dropped(tmp_path: Path) -> None:
    np.save(tmp_path / "price.npy", VALUES[:, None, :])
    np.testing.assert_array_equal(read_matrix(tmp_path / "price.npy"), VALUES)
    np.save(tmp_path / "price.npy", VALUES[:1, :1, None])
    assert read_matrix(tmp_path / "price.npy").tolist() == [[0.0]]


def test_a_sparse_matrix_with_wild_indices_is_refused(tmp_path: Path) -> None:
    parts = {"indptr": [0, 1, 2], "indices": [0, 10**6], "data": [1.0, 2.0], "shape": [2, 3], "format": b"csr"}
    np.savez(tmp_path / "a.npz", **parts)
    with pytest.raises(DataError, match=r"a\.npz: cannot be read as numpy data \(.*indices"):
        read_matrix(tmp_path / "a.npz")


def save_splits(path: Path) -> None:
    np.savez_compressed(path, train_idx=np.arange(40), val_idx=[3], test_idx=[4])


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("a.npy", lambda path: np.save(path, VALUES), read_array),
        ("a.npz", lambda path: np.savez_compressed(path, feature=VALUES), read_matrix),
        ("s.npz", lambda path: scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(VALUES)), read_matrix),
        ("x.npz", save_splits, read_splits),
    ],
)
def test_damage_anywhere_is_told_or_harmless(
    tmp_path: Path, name: str, write: Callable[[Path], None], read: Callable[[Path], Any]
) -> None:
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for place in range(0, len(content), 5):
        (tmp_path / name).write_bytes(content[:place])
        with pytest.raises(DataError, match="cannot be read as numpy data"):
            read(tmp_path / name)
        for bits in (1, 255):
            (tmp_path / name).write_bytes(content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :])
            with suppress(DataError):
                read(tmp_path / name)
