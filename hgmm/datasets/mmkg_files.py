"""The files of MMKG beside its triples: numbers of entities, and which pictures show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hgmm.datasets.text_lines import read_cells, read_lines
from hgmm.errors import DataError, Problem, first_problems, raise_problems

__all__ = ["IMAGE_INDEX", "NUMERIC_FILES", "numeric_vectors", "read_image_index"]

IMAGE_INDEX = "*ImageIndex.txt"
NUMERIC_FILES = ("*NumericalTriples.txt", "literals.txt")


def numeric_vectors(file: Path, entities: Sequence[str]) -> tuple[Tensor, Tensor, str]:
    """Read numbers of entities, one ``entity<TAB>attribute<TAB>number`` a line.

    Parameters
    ----------
    file : Path
        The file. Several numbers of one attribute are averaged; names that are no entities are left out.
    entities : sequence of str
        Names by id.

    Returns
    -------
    table : Tensor
        ``(num_entities, 2 A)`` float32 for ``A`` attributes in alphabetical order: ``sign(x) log(1 + |x|)``,
        standardised over the entities that have the attribute, 0 where it is unknown; then 1 where it is known, else 0.
    present : Tensor
        ``(num_entities,)`` bool: entities with a number.
    note : str
        How many rows are about something else; empty if none.

    Raises
    ------
    DataError
        If a row has another form, a number is none or not finite, or no row is about an entity.

    Notes
    -----
    The logarithm is ours: areas and populations span many powers of ten, and years hardly change their order.
    """
    problems: list[Problem] = []
    rows = read_cells(file, "entity<TAB>attribute<TAB>number", problems)
    number = pd.to_numeric(rows[2], errors="coerce").to_numpy(dtype=np.float64)
    if not problems:
        problems += first_problems(
            "wrong number",
            np.flatnonzero(~np.isfinite(number)).tolist(),
            lambda row: (f"{file.name} row {row + 1}", f"must be a finite number, got {rows[2].iloc[row][:80]!r}"),
        )
    raise_problems(problems, where=f"numbers {file}")
    entity = pd.Index(list(entities)).get_indexer(rows[0])
    known = entity >= 0
    if not known.any():
        raise DataError(
            f"{file}: no row is about one of the {len(entities)} entities, the first is about {rows[0][0]!r}"
        )
    attribute, names = pd.factorize(rows[1][known], sort=True)
    place = entity[known] * len(names) + attribute
    size = len(entities) * len(names)
    counts = np.bincount(place, minlength=size).reshape(len(entities), len(names))
    logs = np.sign(number[known]) * np.log1p(np.abs(number[known]))
    sums = np.bincount(place, weights=logs, minlength=size).reshape(counts.shape)
    table = np.concatenate([_standardised(sums, counts), counts > 0], axis=1).astype(np.float32)
    lost = int((~known).sum())
    note = f"{lost:,} of {len(rows):,} rows of {file.name} are about no entity of the graph" if lost else ""
    return torch.from_numpy(table), torch.from_numpy((counts > 0).any(axis=1)), note


def _standardised(sums: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return means of each cell, standardised by column over the cells that have any; 0 in the others."""
    has = counts > 0
    values = sums / np.maximum(counts, 1)
    number = has.sum(axis=0)
    centred = np.where(has, values - values.sum(axis=0) / number, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / number)
    result: NDArray[np.float64] = centred / np.where(spread > 0, spread, 1.0)
    return result


def read_image_index(file: Path) -> dict[str, str]:
    """Read which picture shows which entity, one ``entity<TAB>picture`` a line, as a mapping from picture to entity.

    Raises
    ------
    DataError
        If a row has another form, or a picture stands twice.
    """
    lines = read_lines(file)
    cells = [line.split("\t") for line in lines]
    wrong = [row for row, parts in enumerate(cells) if len(parts) != 2 or not all(parts)]
    problems = first_problems(
        "wrong row",
        wrong,
        lambda row: (f"{file.name} row {row + 1}", f"must be 'entity<TAB>picture', got {lines[row][:80]!r}"),
    )
    raise_problems(problems, where=f"image index {file}")
    table = {picture: entity for entity, picture in cells}
    if len(table) < len(cells):
        raise DataError(f"{file}: {len(cells) - len(table)} pictures stand twice; each belongs to one entity")
    return table
