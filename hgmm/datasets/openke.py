"""Triples in OpenKE's layout: vocabularies and splits as numbered rows, each file with its length in the first row."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hgmm.datasets.planted import IntArray
from hgmm.datasets.text_lines import counted_lines, name_problems
from hgmm.errors import Problem, first_problems, raise_problems
from hgmm.triples import TripleSet

__all__ = ["OPENKE_FILES", "openke_triples"]

ENTITY_FILE, RELATION_FILE = "entity2id.txt", "relation2id.txt"
SPLIT_FILES = {"train": "train2id.txt", "val": "valid2id.txt", "test": "test2id.txt"}
OPENKE_FILES = (ENTITY_FILE, RELATION_FILE, *SPLIT_FILES.values())


def openke_triples(path: Path) -> TripleSet:
    """Read the five files of a folder.

    Parameters
    ----------
    path : Path
        A folder with ``entity2id.txt`` and ``relation2id.txt`` (a count, then ``name id`` with a space or a tab before
        the id; a name may hold blanks), ``train2id.txt``, ``valid2id.txt`` and ``test2id.txt`` (a count, then
        ``head tail relation``).

    Returns
    -------
    TripleSet
        Its rows are (head, relation, tail), repetitions included.

    Raises
    ------
    DataError
        Lists all problems found: a missing file, a count that does not hold, rows of another form or column order, ids
        that are unknown, stand twice or leave gaps, names that stand twice.
    """
    problems: list[Problem] = []
    entities = _vocabulary(path / ENTITY_FILE, problems)
    relations = _vocabulary(path / RELATION_FILE, problems)
    rows = {split: _rows(path / name, problems) for split, name in SPLIT_FILES.items()}
    for split, name in SPLIT_FILES.items():
        problems += _id_problems(name, rows[split], entities, relations)
    raise_problems(problems, where=f"knowledge graph {path}", hint="Nothing was read; correct the files.")
    splits = {split: torch.from_numpy(part[:, [0, 2, 1]]) for split, part in rows.items()}
    return TripleSet(**splits, entity_vocab=tuple(entities or ()), relation_vocab=tuple(relations or ()))


def _vocabulary(path: Path, problems: list[Problem]) -> list[str] | None:
    """Return the names by id, or None after noting what is wrong."""
    before = len(problems)
    lines = pd.Series(counted_lines(path, problems), dtype=object)
    if lines.empty:
        return [] if len(problems) == before else None
    parts = lines.str.rsplit(n=1, expand=True).reindex(columns=[0, 1])
    number = pd.to_numeric(parts[1], errors="coerce")
    bad = np.flatnonzero(_not_whole(number)).tolist()
    problems += first_problems(
        "wrong row", bad, lambda row: (f"{path.name} row {row + 2}", f"must be 'name id', got {lines[row][:80]!r}")
    )
    if bad:
        return None
    problems += name_problems(path.name, parts[0].tolist(), first_row=2)
    order = number.to_numpy().astype(np.int64)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        text = f"must be 0 to {len(order) - 1}, each once; they go from {order.min()} to {order.max()}"
        problems.append(Problem("wrong ids", path.name, text))
        return None
    return [str(name) for name in parts[0].to_numpy()[np.argsort(order)]]


def _rows(path: Path, problems: list[Problem]) -> IntArray:
    """Return ``(n, 3)`` numbers in the file's order: head, tail, relation."""
    lines = pd.Series(counted_lines(path, problems), dtype=object)
    if lines.empty:
        return np.empty((0, 3), dtype=np.int64)
    table = _whole_numbers(lines)
    if table is not None:
        return table
    cells = lines.str.split(expand=True).reindex(columns=range(4))
    numbers = cells[[0, 1, 2]].apply(pd.to_numeric, errors="coerce")
    wrong = _not_whole(numbers).any(axis=1) | cells[3].notna()
    problems += first_problems(
        "wrong row",
        np.flatnonzero(wrong).tolist(),
        lambda row: (f"{path.name} row {row + 2}", f"must be 'head tail relation', got {lines[row][:80]!r}"),
    )
    return np.ascontiguousarray(numbers[~wrong].to_numpy().astype(np.int64))


def _not_whole(numbers: Any) -> Any:
    """Return where a Series or DataFrame holds no whole number that fits int64."""
    return numbers.isna() | (numbers % 1 != 0) | (numbers.abs() >= 2.0**63)


def _whole_numbers(lines: pd.Series[str]) -> IntArray | None:
    """Return the rows if each holds three whole numbers, else None; quicker than finding out which row is wrong."""
    try:
        table = pd.read_csv(
            io.StringIO("\n".join(lines)), sep=r"\s+", header=None, names=range(4), quoting=csv.QUOTE_NONE
        )
    except (pd.errors.ParserError, OverflowError):
        return None
    if not table[3].isna().all() or any(table[column].dtype != np.int64 for column in range(3)):
        return None
    rows: IntArray = table[[0, 1, 2]].to_numpy()
    return rows


def _id_problems(file: str, rows: IntArray, entities: list[str] | None, relations: list[str] | None) -> list[Problem]:
    """Find ids beyond the vocabularies; None stands for one that could not be read."""
    if entities is not None and relations is not None and _swapped(rows, len(entities), len(relations)):
        first = int(np.flatnonzero((rows[:, 1] >= len(entities)) | (rows[:, 2] >= len(relations)))[0])
        text = (
            f"ids in the middle go to {rows[:, 1].max()}, in the last column to {rows[:, 2].max()}, and there are "
            f"{len(entities)} entities and {len(relations)} relations: these rows are 'head relation tail', and the "
            "order must be 'head tail relation'; swap the two columns"
        )
        return [Problem("wrong column order", f"{file} row {first + 2}", text)]
    problems = []
    for column, what, names in ((0, "head", entities), (2, "relation", relations), (1, "tail", entities)):
        if names is not None:
            problems += _outside(file, rows[:, column], what, len(names))
    return problems


def _swapped(rows: IntArray, num_entities: int, num_relations: int) -> bool:
    if not len(rows):
        return False
    middle, last = rows[:, 1].max(), rows[:, 2].max()
    as_it_is = middle < num_entities and last < num_relations
    return not as_it_is and bool(middle < num_relations and last < num_entities)


def _outside(file: str, numbers: IntArray, what: str, count: int) -> list[Problem]:
    bad = np.flatnonzero((numbers < 0) | (numbers >= count)).tolist()
    known = f"known are 0 to {count - 1}" if count else "none is known"
    return first_problems("unknown id", bad, lambda row: (f"{file} row {row + 2}", f"{what} {numbers[row]}; {known}"))
