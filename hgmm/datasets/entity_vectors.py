"""Vectors of entities beside the triples of a knowledge graph: one file a modality, in any of five formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hgmm.datasets.arrays import read_array, read_matrix
from hgmm.datasets.hdf5_vectors import read_hdf5
from hgmm.datasets.mmkg_files import IMAGE_INDEX, NUMERIC_FILES, numeric_vectors
from hgmm.datasets.text_lines import name_problems, read_lines
from hgmm.datasets.torch_files import load_torch
from hgmm.errors import DataError, Problem, first_problems, raise_problems

__all__ = ["EntityVectors", "modality_of", "read_entity_vectors", "vector_files"]

WORDS = {
    "text": ("text", "textual", "description", "sentences"),
    "image": ("image", "visual", "img", "imagedata"),
    "numeric": ("numeric", "numerical"),
    "audio": ("audio",),
    "video": ("video",),
    "categorical": ("categorical",),
    "structure": ("structure",),
    "other": ("other",),
}
"""Modalities, and the words in a file's name that mean them."""

HDF5 = (".h5", ".hdf5")
TORCH = (".pt", ".pth")
SUFFIXES = (".npy", ".npz", ".safetensors", *TORCH, *HDF5)
PRESENT = "_present"


class EntityVectors(NamedTuple):
    """What is known about entities besides their triples.

    Attributes
    ----------
    features : dict of str to Tensor
        ``(num_entities, width)`` float32 by modality, zero where an entity has none.
    present : dict of str to Tensor
        ``(num_entities,)`` bool by modality, where not every entity has it.
    files : list of Path
        What was read.
    sources : dict of str to str
        By modality: where its vectors come from, in words.
    notes : list of str
        What a reader of a result should know.
    by_position : list of str
        Names of files whose row ``i`` was taken for entity ``i``, because nothing names the rows.
    """

    features: dict[str, Tensor]
    present: dict[str, Tensor]
    files: list[Path]
    sources: dict[str, str]
    notes: list[str]
    by_position: list[str]


def modality_of(file: Path) -> str | None:
    """Return the modality that a file's name states, as ``image`` for ``DB15K-visual.pth``; None if it states none."""
    words = set(re.split(r"[^a-z0-9]+", file.stem.lower()))
    found = [modality for modality, known in WORDS.items() if words & set(known)]
    return found[0] if len(found) == 1 else None


def vector_files(folder: Path) -> dict[str, Path]:
    """Return the file of each modality.

    Raises
    ------
    DataError
        If a file of vectors names no modality, or two name the same.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix not in SUFFIXES or file.stem.endswith(PRESENT):
            continue
        modality = modality_of(file)
        if modality is None:
            raise DataError(
                f"{file}: the name of a file of vectors must have one of the words {', '.join(WORDS)}; rename it or "
                "move it away"
            )
        if modality in found:
            raise DataError(f"{folder}: {found[modality].name} and {file.name} both hold {modality}; keep one of them")
        found[modality] = file
    return found


def read_entity_vectors(folder: Path, entities: Sequence[str]) -> EntityVectors:
    """Read all vectors in a folder.

    Parameters
    ----------
    folder : Path
        Each file ``.npy``, ``.npz``, ``.safetensors``, ``.pt``, ``.pth``, ``.h5`` or ``.hdf5`` in it holds one
        modality, which its name states: ``image.npy``, ``DB15K-visual.pth``. Row ``i`` belongs to entity ``i``, unless
        ``<stem>_ids.txt`` names the entity of each row, or the file is HDF5 with a data set for each entity.
        ``<stem>_present.npy`` may mark the entities that have a vector. ``*NumericalTriples.txt`` and ``literals.txt``
        become the modality ``numeric``.
    entities : sequence of str
        Their names by id.

    Raises
    ------
    DataError
        If a file is damaged, holds code, has a wrong number of rows, unknown names, or numbers that are not finite.
    """
    result = EntityVectors({}, {}, [], {}, [], [])
    for modality, file in vector_files(folder).items():
        if file.suffix in HDF5:
            table, mask = _from_hdf5(folder, file, entities, result)
        else:
            table, mask = _from_matrix(file, entities, result)
        _put(result, modality, file, table, mask, entities)
    _add_numbers(folder, entities, result)
    return result


def _put(
    result: EntityVectors, modality: str, file: Path, table: Tensor, mask: Tensor | None, entities: Sequence[str]
) -> None:
    bad = ~torch.isfinite(table).all(1)
    problems = first_problems(
        "not finite",
        (bad if mask is None else bad & mask).nonzero()[:, 0].tolist(),
        lambda row: (f"{file.name} entity {entities[row]!r}", f"has {_first_bad(table[row])}"),
    )
    hint = f"Mark entities without a vector as False in {file.stem}{PRESENT}.npy."
    raise_problems(problems, where=f"vectors {file}", hint=hint)
    if mask is not None and not bool(mask.all()):
        table = torch.where(mask[:, None], table, 0.0)
        result.present[modality] = mask
    result.features[modality] = table
    result.sources[modality] = file.name
    result.files.append(file)


def _first_bad(row: Tensor) -> str:
    column = int((~torch.isfinite(row)).nonzero()[0])
    return f"{row[column].item()} in column {column}"


def _from_matrix(file: Path, entities: Sequence[str], result: EntityVectors) -> tuple[Tensor, Tensor | None]:
    values = torch.from_numpy(_matrix(file))
    names, marks = file.with_name(f"{file.stem}_ids.txt"), file.with_name(f"{file.stem}{PRESENT}.npy")
    if names.is_file():
        result.files.append(names)
        return _scatter(file, values, names, entities)
    if len(values) != len(entities):
        raise DataError(
            f"{file}: must have one row for each of the {len(entities)} entities, got {len(values)}; "
            f"or name the entities of the rows in {names.name}"
        )
    result.by_position.append(file.name)
    if not marks.is_file():
        return values, None
    result.files.append(marks)
    mask = read_array(marks)
    if mask.shape != (len(entities),) or mask.dtype != np.bool_:
        raise DataError(f"{marks}: must be ({len(entities)},) bool, got {mask.shape} {mask.dtype}")
    return values, torch.from_numpy(mask)


def _matrix(file: Path) -> NDArray[np.float32]:
    if file.suffix in (".npy", ".npz"):
        return read_matrix(file)
    content = _from_torch(file) if file.suffix in TORCH else _from_safetensors(file)
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    if not isinstance(content, Tensor | np.ndarray) or content.ndim != 2:
        raise DataError(f"{file}: must hold one matrix (entities, width), got {_describe(content)}")
    try:
        tensor = torch.as_tensor(content)
    except TypeError as error:
        raise DataError(f"{file}: must be a matrix of numbers, got {_describe(content)}") from error
    if tensor.layout != torch.strided or tensor.is_complex():
        kind = "complex numbers" if tensor.is_complex() else f"the layout {tensor.layout}"
        raise DataError(
            f"{file}: must be a dense matrix of real numbers, got {kind}; save tensor.to_dense() or its parts"
        )
    values: NDArray[np.float32] = tensor.detach().to(torch.float32, copy=True).numpy()
    return values


def _from_torch(file: Path) -> Any:
    try:
        return load_torch(file)
    except DataError as error:
        hint = "if it is a pickled module, save its tensor alone: torch.save(module.weight.detach(), path)"
        raise DataError(f"{error}; {hint}") from error


def _from_safetensors(file: Path) -> Any:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: cannot be read as safetensors ({error}); fetch the file again") from error


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dictionary of {', '.join(sorted(map(str, content)))}"
    return f"the shape {tuple(content.shape)}" if hasattr(content, "shape") else f"a {type(content).__name__}"


def _scatter(file: Path, values: Tensor, names_file: Path, entities: Sequence[str]) -> tuple[Tensor, Tensor]:
    names = read_lines(names_file)
    rows = pd.Index(list(entities)).get_indexer(pd.Index(names, dtype=object))
    problems = first_problems(
        "unknown entity",
        np.flatnonzero(rows < 0).tolist(),
        lambda row: (f"{names_file.name} row {row + 1}", f"{names[row]!r} is no entity of the triples"),
    )
    problems += name_problems(names_file.name, names)
    if len(names) != len(values):
        problems.append(Problem("wrong length", names_file.name, f"{len(names)} names, {file.name} {len(values)} rows"))
    hint = f"Name in each row of {names_file.name} the entity of that row of {file.name}, as the triples name it."
    raise_problems(problems, where=f"vectors {file}", hint=hint)
    index = torch.from_numpy(rows.astype(np.int64))
    table = torch.zeros(len(entities), values.shape[1]).index_copy(0, index, values)
    return table, torch.zeros(len(entities), dtype=torch.bool).index_fill(0, index, True)


def _from_hdf5(
    folder: Path, file: Path, entities: Sequence[str], result: EntityVectors
) -> tuple[Tensor, Tensor | None]:
    index_files = sorted(folder.glob(IMAGE_INDEX))
    table, mask, note = read_hdf5(file, entities, index_files)
    result.files.extend(index_files)
    if note:
        result.notes.append(note)
    return table, mask


def _add_numbers(folder: Path, entities: Sequence[str], result: EntityVectors) -> None:
    files = [file for pattern in NUMERIC_FILES for file in sorted(folder.glob(pattern))]
    if not files:
        return
    if len(files) > 1 or "numeric" in result.features:
        names = ", ".join(file.name for file in [*files, *(f for f in result.files if modality_of(f) == "numeric")])
        raise DataError(f"{folder}: {names} all hold numeric; keep one of them")
    table, mask, note = numeric_vectors(files[0], entities)
    _put(result, "numeric", files[0], table, mask, entities)
    if note:
        result.notes.append(note)
