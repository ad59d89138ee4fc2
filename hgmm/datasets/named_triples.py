"""Triples of names: tab-separated splits, and the single file of MMKG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hgmm.datasets.planted import IntArray
from hgmm.datasets.text_lines import name_problems, read_cells, read_lines
from hgmm.datasets.triple_split import split_triples
from hgmm.errors import DataError, Problem, first_problems, raise_problems
from hgmm.triples import TripleSet

__all__ = ["ENTITY_LIST", "MMKG_TRIPLES", "mmkg_triples", "tsv_files", "tsv_triples"]

ENTITY_LIST = "entities.txt"
MMKG_TRIPLES = "*EntityTriples.txt"
TSV_FORM = "head<TAB>relation<TAB>tail"
MMKG_FORM = "head relation tail ."
HEADINGS = {("head", "relation", "tail"), ("h", "r", "t"), ("subject", "predicate", "object"), ("s", "p", "o")}
MMKG_SHARE = 0.1
"""Of MMKG's triples that are validation, and that are test: it publishes no split of a single graph."""

HINT = "Nothing was read; correct the files."


def tsv_files(path: Path, train_file: str) -> dict[str, Path]:
    """Return the file of each split, by the name of the training file; ``val`` may be called ``valid``."""
    suffix = Path(train_file).suffix
    valid = "val" if (path / f"val{suffix}").is_file() else "valid"
    return {"train": path / train_file, "val": path / f"{valid}{suffix}", "test": path / f"test{suffix}"}


def tsv_triples(path: Path, train_file: str = "train.tsv") -> TripleSet:
    """Read triples of names, one ``head<TAB>relation<TAB>tail`` a line, without a heading.

    Parameters
    ----------
    path : Path
        A folder with ``train``, ``test`` and ``valid`` or ``val`` files of one suffix. Entities are numbered in the
        order of ``entities.txt`` where there is one, else by name; relations by name.
    train_file : str, optional
        ``train.tsv`` or ``train.txt``.

    Returns
    -------
    TripleSet
        Repetitions included.

    Raises
    ------
    DataError
        Lists all problems found: missing files, both a ``valid`` and a ``val`` file, rows of another form or column
        order, a heading, entities that ``entities.txt`` lacks or repeats.
    """
    problems = _twice_validated(path, train_file)
    files = tsv_files(path, train_file)
    tables = {split: read_cells(file, TSV_FORM, problems) for split, file in files.items()}
    raise_problems(problems, where=f"knowledge graph {path}", hint=HINT)
    listed = path / ENTITY_LIST
    every = pd.concat(tables.values(), ignore_index=True)
    if listed.is_file():
        entities = read_lines(listed)
        problems += name_problems(listed.name, entities)
        problems += [] if problems else _unknown_ends(every, entities)
    else:
        entities = sorted(set(every[0]) | set(every[2]))
        names = {split: file.name for split, file in files.items()}
        problems += _heading_problems(names, tables) or _order_problems(names, tables)
    raise_problems(problems, where=f"knowledge graph {path}", hint=HINT)
    relations = sorted(set(every[1]))
    splits = {split: torch.from_numpy(_numbered(table, entities, relations)) for split, table in tables.items()}
    return TripleSet(**splits, entity_vocab=tuple(entities), relation_vocab=tuple(relations))


def mmkg_triples(path: Path) -> tuple[TripleSet, str]:
    """Read the one file of triples of MMKG, lines ``head relation tail .``, and split them.

    Parameters
    ----------
    path : Path
        A folder with a file ``*EntityTriples.txt``; a name holds no blanks.

    Returns
    -------
    triples : TripleSet
        80 % training, 10 % validation, 10 % test, drawn with seed 0 by `split_triples`: distinct triples, and every
        entity and relation occurs in training. Entities and relations are numbered by name.
    note : str
        Says so.

    Raises
    ------
    DataError
        If there are several such files, or it has rows of another form.
    """
    files = sorted(path.glob(MMKG_TRIPLES))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DataError(
            f"knowledge graph {path}: must hold one file {MMKG_TRIPLES}, found {names}; move the others away"
        )
    problems: list[Problem] = []
    table = read_cells(files[0], MMKG_FORM, problems, separator=None, closing=".")
    raise_problems(problems, where=f"knowledge graph {path}", hint=HINT)
    distinct = table.drop_duplicates(ignore_index=True)
    entities, relations = sorted(set(distinct[0]) | set(distinct[2])), sorted(set(distinct[1]))
    rows = _numbered(distinct, entities, relations)
    size = int(MMKG_SHARE * len(rows))
    train, val, test = map(torch.from_numpy, split_triples(rows, (size, size), np.random.default_rng(0)))
    note = f"split 80/10/10 at random (seed 0), {len(table) - len(distinct):,} repeated triples left out"
    return TripleSet(train, val, test, tuple(entities), tuple(relations)), note


def _twice_validated(path: Path, train_file: str) -> list[Problem]:
    names = [f"{name}{Path(train_file).suffix}" for name in ("val", "valid")]
    if not all((path / name).is_file() for name in names):
        return []
    return [Problem("two files of one split", names[0], f"must not stand beside {names[1]}; keep one of them")]


def _numbered(table: pd.DataFrame, entities: list[str], relations: list[str]) -> IntArray:
    entity, relation = pd.Index(entities), pd.Index(relations)
    columns = [entity.get_indexer(table[0]), relation.get_indexer(table[1]), entity.get_indexer(table[2])]
    rows: IntArray = np.stack(columns, axis=1).astype(np.int64)
    return rows


def _unknown_ends(rows: pd.DataFrame, entities: list[str]) -> list[Problem]:
    unknown = np.flatnonzero(~rows[[0, 2]].isin(set(entities)).all(axis=1)).tolist()
    return first_problems(
        "unknown entity", unknown, lambda row: (ENTITY_LIST, f"lacks an end of {' '.join(rows.iloc[row])!r}")
    )


def _heading_problems(files: Mapping[str, str], tables: Mapping[str, pd.DataFrame]) -> list[Problem]:
    found = []
    for split, table in tables.items():
        first = tuple(cell.strip().lower() for cell in table.iloc[0]) if len(table) else ()
        if first in HEADINGS:
            text = f"{' '.join(first)!r} is no triple; remove the row"
            found.append(Problem("heading", f"{files[split]} row 1", text))
    return found


def _order_problems(files: Mapping[str, str], tables: Mapping[str, pd.DataFrame]) -> list[Problem]:
    """Find rows whose relation is not in the middle: there entities stand that are ends of others."""
    return _order_of_training(files["train"], tables["train"]) or [
        problem
        for split, table in tables.items()
        if split != "train"
        for problem in _order_beside_training(files[split], table, tables["train"])
    ]


def _order_of_training(file: str, train: pd.DataFrame) -> list[Problem]:
    columns = [set(train[column]) for column in range(3)]
    middle = columns[1]
    for relation, end, kind, role in ((2, 0, "head", "tail"), (0, 2, "tail", "head")):
        both = middle & columns[end]
        if both and not columns[relation] & columns[end] and len(columns[relation]) < len(middle):
            example = min(both)
            place = int(np.flatnonzero(train[1] == example)[0])
            order = "head tail relation" if relation == 2 else "relation head tail"
            text = (
                f"{example!r} is both a relation and a {kind}, and no {role} is a {kind}: the order must be 'head "
                f"relation tail', and these rows look like '{order}'; if they are right, list all entities in "
                f"{ENTITY_LIST}"
            )
            return [Problem("wrong column order", f"{file} row {place + 1}", text)]
    return []


def _order_beside_training(file: str, table: pd.DataFrame, train: pd.DataFrame) -> list[Problem]:
    relations = set(train[1])
    if not len(table) or set(table[1]) & relations:
        return []
    for column, order in ((2, "head tail relation"), (0, "relation head tail")):
        if set(table[column]) <= relations:
            text = (
                f"{table[column][0]!r} is a relation in training, and no relation of this file is: the order must be "
                f"'head relation tail', and these rows look like '{order}'"
            )
            return [Problem("wrong column order", f"{file} row 1", text)]
    return []
