"""Vectors of entities in an HDF5 file that has one data set an entity, or an image of it."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hgmm.datasets.mmkg_files import read_image_index
from hgmm.errors import DataError

__all__ = ["key_forms", "read_hdf5"]


def key_forms(name: str) -> list[str]:
    """Return how an entity may be called as a key: by its name, by the end of its address, ``/m/1`` as ``m.1``.

    Examples
    --------
    >>> key_forms("<http://dbpedia.org/resource/Ada>")
    ['http:/dbpedia.org/resource/Ada', 'Ada']
    >>> key_forms("/m/027rn")
    ['m/027rn', 'm.027rn', '027rn']
    """
    parts = [part for part in _bare(name).split("/") if part]
    # HDF5 takes slashes for folders and drops repeated ones.
    forms = ["/".join(parts), *([".".join(parts)] if name.startswith("/") else []), *parts[-1:]]
    return list(dict.fromkeys(forms))


def _bare(name: str) -> str:
    return name.removeprefix("<").removesuffix(">")


def read_hdf5(
    file: Path, entities: Sequence[str], image_indices: Sequence[Path] = ()
) -> tuple[Tensor, Tensor | None, str]:
    """Read vectors by key, or one matrix.

    Parameters
    ----------
    file : Path
        Its data sets are named after entities (`key_forms`) or pictures. One with several rows is averaged over those
        that are not all zero, several pictures of an entity likewise. A file with a single matrix that has as many rows
        as there are entities is read as it is.
    entities : sequence of str
        Names by id.
    image_indices : sequence of Path, optional
        Files that say which picture shows which entity.

    Returns
    -------
    table : Tensor
        ``(num_entities, width)`` float32.
    present : Tensor or None
        ``(num_entities,)`` bool; None if all are there.
    note : str
        How many keys are no entity; empty if none.

    Raises
    ------
    DataError
        If h5py is not installed, the file is damaged, no key is an entity, or widths differ.
    """
    vectors = _read(file)
    if len(vectors) == 1:
        (single,) = vectors.values()
        if single.ndim == 2 and len(single) == len(entities):
            return torch.from_numpy(single), None, ""
    place = _places(entities, image_indices)
    found = [(place[_bare(key)], _mean(values)) for key, values in vectors.items() if _bare(key) in place]
    if not found:
        raise DataError(
            f"{file}: none of its {len(vectors)} keys is one of the {len(entities)} entities or their pictures; the "
            f"first key is {next(iter(vectors), '')!r}, the first entity {next(iter(entities), '')!r}"
        )
    widths = Counter(len(vector) for _, vector in found)
    if len(widths) > 1:
        raise DataError(f"{file}: all vectors must be of one width, got {', '.join(map(str, sorted(widths)))}")
    index = torch.tensor([row for row, _ in found])
    sums = torch.zeros(len(entities), *widths).index_add(0, index, torch.from_numpy(np.stack([v for _, v in found])))
    counts = torch.bincount(index, minlength=len(entities))
    lost = len(vectors) - len(found)
    note = f"{lost:,} of {len(vectors):,} keys of {file.name} are no entity of the graph" if lost else ""
    return sums / counts.clamp(min=1)[:, None], counts > 0, note


def _places(entities: Sequence[str], image_indices: Sequence[Path]) -> dict[str, int]:
    """Return the entity of each key; what could be two entities is none."""
    forms = [(form, row) for row, name in enumerate(entities) for form in key_forms(name)]
    counts = Counter(form for form, _ in forms)
    place = {form: row for form, row in forms if counts[form] == 1}
    number = {name: row for row, name in enumerate(entities)}
    for file in image_indices:
        place |= {picture: number[name] for picture, name in read_image_index(file).items() if name in number}
    return place


def _read(file: Path) -> dict[str, NDArray[np.float32]]:
    h5py = _h5py(file)
    vectors: dict[str, NDArray[np.float32]] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in "biuf" or item.ndim < 1 or 0 in item.shape:
                raise DataError(f"{file}: {name!r} must be numbers, got {item.shape} {item.dtype}")
            vectors[name] = np.asarray(item[()], dtype=np.float32)

    try:
        with h5py.File(file, "r") as store:
            store.visititems(collect)
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as HDF5 ({error}); fetch the file again") from error
    return vectors


def _h5py(file: Path) -> ModuleType:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise DataError(
            f"{file}: reading HDF5 needs the package h5py, and it is not installed; run: pip install 'hgmm[hdf5]'"
        ) from error


def _mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the rows that are not all zero: short texts are padded with such rows."""
    rows = values.reshape(-1, values.shape[-1])
    filled = rows[(rows != 0).any(axis=1)]
    mean: NDArray[np.float32] = (filled if len(filled) else rows).mean(axis=0, dtype=np.float32)
    return mean
