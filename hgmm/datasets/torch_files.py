"""Read the .pt files of published datasets: tensors, arrays and lists of numbers; no code from a pickle ever runs."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hgmm.datasets.safe_pickle import unpickle_plain
from hgmm.dgl_compat import dgl
from hgmm.errors import DataError

__all__ = ["load_dgl_graph", "load_torch", "numbers_of"]

AGAIN = "fetch the file again"

_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    struct.error,
)


def load_torch(path: Path) -> Any:
    """Read what ``torch.save`` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Tensor, ndarray, dict, list or number
        Tensors are on the CPU.

    Raises
    ------
    DataError
        If the file is damaged or holds anything but plain data. Nothing of it is run.

    Notes
    -----
    ``torch.load(weights_only=True)`` refuses NumPy arrays, which some published files hold; these are read by
    `hgmm.datasets.safe_pickle`.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = error
    except _DAMAGE as error:
        raise DataError(f"{path}: cannot be read as a torch file ({_first_line(error)}); {AGAIN}") from error
    try:
        with zipfile.ZipFile(path) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(member) as stream:
                return unpickle_plain(stream)  # type: ignore[arg-type]  # a member of an archive is a binary stream
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{path}: holds more than tensors ({_first_line(reason)}); nothing was run") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def load_dgl_graph(path: Path) -> Any:
    """Read the first graph of a file in DGL's binary format, which holds no pickle.

    Raises
    ------
    DataError
        If it is no such file, or the graph has several node types or relations.
    """
    try:
        graph = dgl.load_graphs(str(path))[0][0]
    except (dgl.DGLError, OSError, IndexError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a DGL graph ({_first_line(error)}); {AGAIN}") from error
    if len(graph.canonical_etypes) != 1 or len(graph.ntypes) != 1:
        raise DataError(f"{path}: must hold a graph of one node type and one relation, got {graph.canonical_etypes}")
    return graph


def numbers_of(where: object, value: Any, *, ndim: int) -> Tensor:
    """Return whole numbers as an int64 tensor.

    Parameters
    ----------
    where : object
        The file, for the message.
    value : Tensor, ndarray or nested list
        Whole numbers.
    ndim : int
        How many dimensions it must have.

    Raises
    ------
    DataError
        If it is something else.
    """
    try:
        tensor = torch.as_tensor(np.asarray(value) if isinstance(value, list | tuple) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: must be whole numbers, got a {type(value).__name__}; {AGAIN}") from error
    if tensor.ndim != ndim or tensor.is_floating_point() or tensor.dtype == torch.bool:
        got = f"{tuple(tensor.shape)} {tensor.dtype}"
        raise DataError(f"{where}: must be whole numbers in {ndim} dimension{'s' if ndim > 1 else ''}, got {got}")
    return tensor.long()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
