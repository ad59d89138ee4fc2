"""Knowledge graphs from files: OpenKE's layout and tab-separated names, with vectors of the entities beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hgmm.datasets.arrays import read_matrix
from hgmm.datasets.planted import IntArray
from hgmm.errors import DataError, Problem, first_problems, raise_problems
from hgmm.files import file_sha256
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.graph.schema import KINDS
from hgmm.triples import TripleSet

__all__ = ["read_openke", "read_tsv"]

VECTOR_SUFFIXES = (".npy", ".npz")


def read_openke(path: Path) -> MultimodalGraph:
    """Read OpenKE's layout.

    Parameters
    ----------
    path : Path
        A folder with ``entity2id.txt`` and ``relation2id.txt`` (a count, then ``name id``, separated by a space or a
        tab), ``train2id.txt``, ``valid2id.txt`` and ``test2id.txt`` (a count, then ``head tail relation``), and at will
        ``text.npy``, ``image.npy``, … with one row an entity, or fewer rows beside ``text_ids.txt`` with their names.

    Returns
    -------
    MultimodalGraph
        Its triples are (head, relation, tail), repetitions included; the source's note counts repetitions and leaks.

    Raises
    ------
    DataError
        Lists all problems found.
    """
    problems: list[Problem] = []
    entities = _vocabulary(path / "entity2id.txt", problems)
    relations = _vocabulary(path / "relation2id.txt", problems)
    splits = []
    for name in ("train2id.txt", "valid2id.txt", "test2id.txt"):
        rows = _numbered_triples(path / name, problems)
        for column, what, names in ((0, "head", entities), (1, "relation", relations), (2, "tail", entities)):
            if names is not None:
                problems += _outside(name, rows[:, column], what, len(names))
        splits.append(torch.from_numpy(rows))
    raise_problems(problems, where=f"knowledge graph {path}", hint="Nothing was read; correct the files.")
    return _graph(path, TripleSet(splits[0], splits[1], splits[2], tuple(entities or ()), tuple(relations or ())))


def read_tsv(path: Path, train_file: str = "train.tsv") -> MultimodalGraph:
    """Read triples of names, one ``head<TAB>relation<TAB>tail`` a line, without a heading.

    Parameters
    ----------
    path : Path
        A folder with ``train``, ``test`` and ``valid`` or ``val`` files of one suffix. Entities are numbered in the
        order of ``entities.txt`` where there is one, else by name. Vectors as for `read_openke`.
    train_file : str, optional
        ``train.tsv`` or ``train.txt``.

    Returns
    -------
    MultimodalGraph
        As `read_openke`.

    Raises
    ------
    DataError
        Lists all problems found.
    """
    suffix = Path(train_file).suffix
    valid = "val" if (path / f"val{suffix}").is_file() else "valid"
    problems: list[Problem] = []
    tables = [_named_triples(path / f"{name}{suffix}", problems) for name in ("train", valid, "test")]
    raise_problems(problems, where=f"knowledge graph {path}", hint="Nothing was read; correct the files.")
    listed = path / "entities.txt"
    every = pd.concat(tables, ignore_index=True)
    entities = _lines(listed) if listed.is_file() else sorted(set(every[0]) | set(every[2]))
    if listed.is_file():
        problems += _name_problems(listed.name, entities)
        raise_problems(problems, where=f"knowledge graph {path}", hint="Nothing was read; correct the files.")
    relations = sorted(set(every[1]))
    entity_index, relation_index = pd.Index(entities), pd.Index(relations)
    splits = []
    for table in tables:
        codes = [entity_index.get_indexer(table[0]), relation_index.get_indexer(table[1])]
        codes.append(entity_index.get_indexer(table[2]))
        splits.append(torch.from_numpy(np.stack(codes, axis=1).astype(np.int64)))
        unknown = np.flatnonzero((codes[0] < 0) | (codes[2] < 0)).tolist()
        problems += first_problems(
            "unknown entity",
            unknown,
            lambda row, table=table: ("entities.txt", f"lacks an end of {' '.join(table.iloc[row])!r}"),  # type: ignore[misc]
        )
    raise_problems(problems, where=f"knowledge graph {path}", hint="Nothing was read; correct the files.")
    return _graph(path, TripleSet(splits[0], splits[1], splits[2], tuple(entities), tuple(relations)))


def _graph(path: Path, triples: TripleSet) -> MultimodalGraph:
    features, present = _vectors(path, triples.entity_vocab)
    files = sorted(file for file in path.iterdir() if file.suffix in {".txt", ".tsv", *VECTOR_SUFFIXES})
    sums = {file.name: file_sha256(file) for file in files}
    source = DataSource("local", files=tuple(sums), sha256=sums, note="; ".join(triples.report().leaks()))
    return MultimodalGraph.from_triples(
        triples, features=features, present=present, source=source, name=path.resolve().name
    )


def _vectors(path: Path, entities: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    features: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.np[yz]")):
        modality = file.stem
        if modality not in KINDS:
            raise DataError(f"{file}: vectors must be named after a kind of modality ({', '.join(KINDS)}); rename it")
        values = read_matrix(file)
        names_file = path / f"{modality}_ids.txt"
        if not names_file.is_file():
            if len(values) != len(entities):
                raise DataError(
                    f"{file}: must have one row for each of the {len(entities)} entities, got {len(values)}; "
                    f"or name the entities of the rows in {names_file.name}"
                )
            features[modality] = torch.from_numpy(values)
            continue
        features[modality], present[modality] = _scatter(file, values, names_file, entities)
    return features, present


def _scatter(
    file: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], names_file: Path, entities: Sequence[str]
) -> tuple[Tensor, Tensor]:
    names = _lines(names_file)
    rows = pd.Index(list(entities)).get_indexer(pd.Index(names))
    problems = first_problems(
        "unknown entity",
        np.flatnonzero(rows < 0).tolist(),
        lambda row: (f"{names_file.name} row {row + 1}", names[row]),
    )
    if len(names) != len(values):
        problems.append(Problem("wrong length", names_file.name, f"{len(names)} names, {file.name} {len(values)} rows"))
    if len(set(names)) != len(names):
        problems.append(Problem("duplicate id", names_file.name, f"{len(names) - len(set(names))} names are repeated"))
    raise_problems(problems, where=f"vectors {file}")
    table = torch.zeros(len(entities), values.shape[1])
    index = torch.from_numpy(rows.astype(np.int64))
    table[index] = torch.from_numpy(values)
    mask = torch.zeros(len(entities), dtype=torch.bool)
    mask[index] = True
    return table, mask


def _lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file; only line feeds end a line, since names may hold other separators."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8 text ({error})") from error
    return [line.rstrip("\r") for line in text.rstrip("\n").split("\n")] if text else []


def _counted(path: Path, problems: list[Problem]) -> list[str]:
    """Return the lines after the first, which must be their number."""
    if not path.is_file():
        problems.append(Problem("missing file", path.name, "there is no such file"))
        return []
    lines = [line for line in _lines(path) if line.strip()]
    if not lines or not lines[0].strip().isdecimal():
        first = lines[0] if lines else ""
        problems.append(Problem("no count", f"{path.name} row 1", f"must be the number of rows, got {first[:80]!r}"))
        return []
    if int(lines[0]) != len(lines) - 1:
        problems.append(Problem("wrong count", path.name, f"row 1 says {lines[0]} rows, {len(lines) - 1} follow"))
    return lines[1:]


def _name_problems(file: str, names: Sequence[str]) -> list[Problem]:
    column = pd.Series(names, dtype=object)
    empty = np.flatnonzero(column == "").tolist()
    twice = np.flatnonzero(column.duplicated() & (column != "")).tolist()
    return [
        *first_problems("empty name", empty, lambda row: (f"{file} row {row + 1}", "an entity needs a name")),
        *first_problems(
            "duplicate id", twice, lambda row: (f"{file} row {row + 1}", f"{names[row]!r} stands in an earlier row")
        ),
    ]


def _vocabulary(path: Path, problems: list[Problem]) -> list[str] | None:
    """Return the names by id, or None after noting what is wrong."""
    before = len(problems)
    lines = pd.Series(_counted(path, problems), dtype=object)
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
    order = number.to_numpy().astype(np.int64)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        text = f"must be 0 to {len(order) - 1}, each once; they go from {order.min()} to {order.max()}"
        problems.append(Problem("wrong ids", path.name, text))
        return None
    return [str(name) for name in parts[0].to_numpy()[np.argsort(order)]]


def _numbered_triples(path: Path, problems: list[Problem]) -> IntArray:
    """Return ``(n, 3)`` (head, relation, tail); the file's order is head, tail, relation."""
    lines = pd.Series(_counted(path, problems), dtype=object)
    if lines.empty:
        return np.empty((0, 3), dtype=np.int64)
    table = _whole_numbers(lines)
    if table is not None:
        return table[:, [0, 2, 1]].copy()
    cells = lines.str.split(expand=True).reindex(columns=range(4))
    numbers = cells[[0, 2, 1]].apply(pd.to_numeric, errors="coerce")
    wrong = _not_whole(numbers).any(axis=1) | cells[3].notna()
    bad = np.flatnonzero(wrong).tolist()
    problems += first_problems(
        "wrong row",
        bad,
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


def _outside(file: str, numbers: IntArray, what: str, count: int) -> list[Problem]:
    bad = np.flatnonzero((numbers < 0) | (numbers >= count)).tolist()
    known = f"known are 0 to {count - 1}" if count else "none is known"
    return first_problems("unknown id", bad, lambda row: (f"{file} row {row + 2}", f"{what} {numbers[row]}; {known}"))


def _named_triples(path: Path, problems: list[Problem]) -> pd.DataFrame:
    empty = pd.DataFrame(columns=range(3), dtype=object)
    if not path.is_file():
        problems.append(Problem("missing file", path.name, "there is no such file"))
        return empty
    lines = pd.Series(_lines(path), dtype=object)
    if lines.empty:
        problems.append(Problem("empty file", path.name, "has no row"))
        return empty
    cells = lines.str.split("\t", expand=True).reindex(columns=range(4))
    bad = np.flatnonzero(cells[2].isna() | cells[3].notna() | (cells[[0, 1, 2]] == "").any(axis=1)).tolist()
    problems += first_problems(
        "wrong row",
        bad,
        lambda row: (f"{path.name} row {row + 1}", f"must be 'head<TAB>relation<TAB>tail', got {lines[row][:80]!r}"),
    )
    return cells[[0, 1, 2]]
