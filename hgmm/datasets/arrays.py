"""The numpy files of published datasets: what they must hold, checked while they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from hgmm.datasets.planted import IntArray
from hgmm.errors import DataError
from hgmm.graph.matrices import NUMPY_DAMAGE
from hgmm.typing import CanonicalEtype

__all__ = ["read_array", "read_matrix", "read_splits", "relation_rows", "whole_numbers", "with_reverse"]

SPLIT_KEYS = {"train": "train_idx", "val": "val_idx", "test": "test_idx"}

A = TypeVar("A")


def with_reverse(src: IntArray, dst: IntArray) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
    """Return the edges without repetitions, sorted, and the same edges turned round."""
    pairs = np.unique(np.stack([src, dst], axis=1), axis=0).astype(np.int64)
    forward = (pairs[:, 0].copy(), pairs[:, 1].copy())
    return forward, forward[::-1]


def relation_rows(
    path: Path, number: int, etype: CanonicalEtype, *, first: Mapping[str, int], num_nodes: Mapping[str, int]
) -> tuple[IntArray, IntArray]:
    """Read one relation of an edge file whose rows are (source, destination, relation).

    Parameters
    ----------
    path : Path
        A .npy file with ``(n, 3)`` whole numbers; node numbers run through all node types.
    number : int
        The relation.
    etype : (str, str, str)
        Its name here.
    first : mapping of str to int
        Number of the first node of each type.
    num_nodes : mapping of str to int
        Nodes of each type.

    Returns
    -------
    src, dst : ndarray
        ``(E,)`` int64 numbers inside the types, as often as the file has them.

    Raises
    ------
    DataError
        If the file has another form, or an end is not of its type.
    """
    rows = read_array(path)
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iu":
        raise DataError(f"{path}: must be whole numbers of shape (n, 3), got {rows.shape} {rows.dtype}")
    of_kind = rows[rows[:, 2] == number].astype(np.int64)
    ends = []
    for column, ntype in ((0, etype[0]), (1, etype[2])):
        end = of_kind[:, column] - first[ntype]
        outside = np.flatnonzero((end < 0) | (end >= num_nodes[ntype]))
        if len(outside):
            raise DataError(
                f"{path}: the ends of relation {number} ({etype[1]}) must be nodes {first[ntype]} to "
                f"{first[ntype] + num_nodes[ntype] - 1} ({ntype}), got {of_kind[outside[0], column]}; fetch it again"
            )
        ends.append(end)
    return ends[0], ends[1]


def whole_numbers(where: object, values: NDArray[Any]) -> IntArray:
    """Return an array of whole numbers as int64.

    Parameters
    ----------
    where : object
        The file, for the message.
    values : ndarray
        Integers, or floating point numbers without a fraction.

    Raises
    ------
    DataError
        If a value is neither.
    """
    if values.dtype.kind not in "iuf":
        raise DataError(f"{where}: must be whole numbers, got dtype {values.dtype}; fetch the file again")
    odd = values[values % 1 != 0] if values.dtype.kind == "f" else values[:0]
    if odd.size:
        raise DataError(f"{where}: must be whole numbers, got {odd.flat[0]}; fetch the file again")
    return values.astype(np.int64)


def read_array(path: Path) -> NDArray[Any]:
    """Read one array of numbers from a .npy file; a pickle inside is refused.

    Raises
    ------
    DataError
        If the file is no such array.
    """
    return _read(path, lambda stream: _single(path, stream))


def read_splits(path: Path) -> dict[str, IntArray]:
    """Read ``train_idx``, ``val_idx`` and ``test_idx`` from a .npz file.

    Raises
    ------
    DataError
        If the file is unreadable, lacks one of them, or one holds something other than whole numbers.
    """

    def read(stream: BinaryIO) -> dict[str, IntArray]:
        archive = _archive(path, stream)
        for key in SPLIT_KEYS.values():
            if key not in archive:
                raise DataError(f"{path}: array {key!r} is missing; found: {', '.join(sorted(archive))}")
        return {name: whole_numbers(f"{path} {key}", archive[key]) for name, key in SPLIT_KEYS.items()}

    return _read(path, read)


def read_matrix(path: Path) -> NDArray[np.float32]:
    """Read features: a .npy array, a .npz archive with the key ``feature``, or a sparse matrix as SciPy saves it.

    Returns
    -------
    ndarray
        ``(N, width)`` float32. One dimension is read as one column; further dimensions of length 1 are dropped.

    Raises
    ------
    DataError
        If the file is none of these.
    """
    if path.suffix == ".npy":
        return _two_dimensional(path, read_array(path))
    return _read(path, lambda stream: _from_archive(path, stream))


def _from_archive(path: Path, stream: BinaryIO) -> NDArray[np.float32]:
    archive = _archive(path, stream)
    if "indptr" in archive:
        stream.seek(0)
        sparse = scipy.sparse.load_npz(stream)
        # SciPy takes indices on trust, and a wrong one makes it write where it must not.
        sparse.check_format(full_check=True)
        return np.asarray(sparse.astype(np.float32).toarray())
    if "feature" not in archive:
        raise DataError(
            f"{path}: must hold the array 'feature' or a sparse matrix, found: {', '.join(sorted(archive))}"
        )
    return _two_dimensional(path, archive["feature"])


def _two_dimensional(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    if values.ndim > 2:
        values = values.squeeze(tuple(axis for axis in range(1, values.ndim) if values.shape[axis] == 1))
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise DataError(f"{path}: must be a matrix of numbers, got shape {values.shape}, dtype {values.dtype}")
    return np.ascontiguousarray(values, dtype=np.float32)


def _single(path: Path, stream: BinaryIO) -> NDArray[Any]:
    values: Any = np.load(stream, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise DataError(f"{path}: must be a .npy file with one array, got an archive of {values.files}")
    return values


def _archive(path: Path, stream: BinaryIO) -> Mapping[str, NDArray[Any]]:
    values: Any = np.load(stream, allow_pickle=False)
    if isinstance(values, np.ndarray):
        raise DataError(f"{path}: must be a .npz archive, got one array of shape {values.shape}")
    archive: Mapping[str, NDArray[Any]] = values
    return archive


def _read(path: Path, read: Callable[[BinaryIO], A]) -> A:
    """Call `read` on the open file; an archive reads its arrays when they are asked for, so all of it happens here."""
    try:
        with path.open("rb") as stream:
            return read(stream)
    except DataError:
        raise
    except NUMPY_DAMAGE as error:
        raise DataError(f"{path}: cannot be read as numpy data ({error}); fetch the file again") from error
