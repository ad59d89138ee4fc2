"""Reading feature matrices and id lists; no pickle."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hgmm.errors import Problem, first_problems, unknown_name
from hgmm.files import missing_file

__all__ = ["NUMPY_DAMAGE", "read_ids", "read_matrix", "repeated_ids"]

SUFFIXES = (".npy", ".npz", ".safetensors")

NUMPY_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    MemoryError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and SciPy raise on files that are cut off or have wrong bytes in them."""


def read_matrix(path: Path, name: str, key: str | None, problems: list[Problem]) -> NDArray[np.float32] | None:
    """Read a matrix from ``.npy``, ``.npz`` or ``.safetensors``.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What messages call it.
    key : str or None
        Name of the array in an ``.npz`` or ``.safetensors`` file; may be None if the file holds one array only, and
        must be for an ``.npy`` file, whose array has no name.
    problems : list of Problem
        Findings are appended to it.

    Returns
    -------
    ndarray or None
        ``(rows, width)`` float32; None if there is no such matrix.
    """
    missing = missing_file(path, name)
    if missing:
        problems += missing
        return None
    if path.suffix.lower() not in SUFFIXES:
        text = f"its name ends in {path.suffix!r}; matrices are read from {', '.join(SUFFIXES)}"
        problems.append(Problem("unknown format", name, text))
        return None
    if path.stat().st_size == 0:
        problems.append(Problem("empty file", name, "it holds nothing; export it again"))
        return None
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, framework="numpy") as tensors:
                chosen = _chosen(tensors.keys(), name, key, problems)
                values = None if chosen is None else tensors.get_tensor(chosen)
        else:
            # NumPy leaves a file open that it opened itself and cannot read.
            with path.open("rb") as stream:
                values = _load_numpy(stream, name, key, problems)
    except (*NUMPY_DAMAGE, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        problems.append(Problem("unreadable file", name, reason))
        return None
    return None if values is None else _checked(values, name, problems)


def _load_numpy(stream: BinaryIO, name: str, key: str | None, problems: list[Problem]) -> NDArray[Any] | None:
    loaded: Any = np.load(stream, allow_pickle=False)
    array: NDArray[Any] | None = None
    if not isinstance(loaded, np.ndarray):
        with loaded:
            chosen = _chosen(loaded.keys(), name, key, problems)
            array = None if chosen is None else loaded[chosen]
    elif key is None:
        array = loaded
    else:
        problems.append(Problem("unknown array", name, f"its only array has no name; leave out the key {key!r}"))
    return array


def _chosen(keys: Any, name: str, key: str | None, problems: list[Problem]) -> str | None:
    names = sorted(keys)
    if key is None and len(names) == 1:
        return str(names[0])
    if key in names:
        return key
    if key is None:
        text = f"it holds {len(names)} arrays: {', '.join(names)}; say which one with `key:`"
        problems.append(Problem("no array chosen", name, text))
    else:
        problems.append(Problem("unknown array", name, unknown_name("array", key, names)))
    return None


def _checked(values: NDArray[Any], name: str, problems: list[Problem]) -> NDArray[np.float32] | None:
    if values.dtype.kind not in "fiub":
        text = f"its dtype is {values.dtype}; features must be real numbers"
        problems.append(Problem("not numeric", name, text))
        return None
    if values.ndim != 2 or values.shape[1] == 0:
        text = f"its shape is {values.shape}; a feature matrix is (rows, width) with a width of at least 1"
        problems.append(Problem("wrong width", name, text))
        return None
    # A number too large for float32 becomes infinite and is reported as such, with its row.
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def read_ids(path: Path, name: str, problems: list[Problem]) -> NDArray[np.object_] | None:
    """Read one id a line from a UTF-8 text file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What messages call it.
    problems : list of Problem
        Findings are appended to it: a missing or unreadable file, an id that stands twice.

    Returns
    -------
    ndarray or None
        ``(rows,)`` str in the order of the file, empty lines at the end left out.
    """
    missing = missing_file(path, name)
    if missing:
        problems += missing
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        problems.append(Problem("unreadable file", name, f"it is not UTF-8 text ({error}); save it as UTF-8"))
        return None
    except OSError as error:
        problems.append(Problem("unreadable file", name, str(error.strerror)))
        return None
    while lines and not lines[-1].strip():
        lines.pop()
    ids = np.array([*(line.removesuffix("\r") for line in lines), None], dtype=object)[:-1]
    if not len(ids):
        problems.append(Problem("empty file", name, "it holds no id; expected one a line"))
        return None
    problems += repeated_ids(ids, lambda row: f"{name} row {row + 1}")
    return ids


def repeated_ids(ids: NDArray[np.object_], at: Any) -> list[Problem]:
    """Return a problem for every row whose id stands in an earlier row already.

    Parameters
    ----------
    ids : ndarray
        ``(N,)`` str.
    at : callable
        Words a position.
    """
    codes, first = _factorize(ids)
    rows = np.flatnonzero(first[codes] != np.arange(len(ids)))
    return first_problems(
        "duplicate id",
        rows.tolist(),
        lambda row: (at(row), f"id {ids[row]!r} stands already in {at(first[codes[row]])}"),
    )


def _factorize(ids: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    codes, uniques = pd.factorize(pd.Series(ids, dtype=object))
    first = np.full(len(uniques), len(ids), dtype=np.int64)
    np.minimum.at(first, codes, np.arange(len(ids)))
    return codes, first
