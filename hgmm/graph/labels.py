"""Labels, classes and splits of the target nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hgmm.errors import Problem, first_problems, unknown_name
from hgmm.graph.matrices import read_ids
from hgmm.graph.multimodal import SPLITS
from hgmm.graph.tables import Table, read_table

__all__ = ["Masks", "read_labels", "read_split", "stratified_split"]

Masks = dict[str, NDArray[np.bool_]]
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LABEL_KEYS = ("column", "id", "table")


def read_labels(
    given: Any, table: Table, ids: NDArray[np.object_], root: Path, *, classes: Sequence[str], problems: list[Problem]
) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """Return labels and class names.

    Parameters
    ----------
    given : str or mapping
        A column of the node table, or ``{table, id, column}`` of a table of its own.
    table : Table
        The node table.
    ids : ndarray
        ``(N,)`` str ids of its rows.
    root : Path
        Folder that relative paths start from.
    classes : sequence of str
        Class names of an earlier run, or empty: then the sorted distinct labels.
    problems : list of Problem
        Findings are appended to it.

    Returns
    -------
    (labels, classes) or None
        Labels are ``(N,)`` int64, -1 where the cell is empty or the node is not in the label table.
    """
    if isinstance(given, str):
        texts, at = table.texts(given, problems), table.at
        rows = np.arange(len(ids))
    else:
        found = _label_table(given, table, ids, root, problems)
        if found is None:
            return None
        texts, at, rows = found
    if texts is None:
        return None
    names = tuple(classes) or tuple(sorted(name for name in pd.unique(pd.Series(texts, dtype=object)) if name))
    code = pd.Index(names, dtype=object).get_indexer(pd.Index(texts, dtype=object))
    strange = np.flatnonzero((code < 0) & (texts != ""))
    problems += first_problems(
        "unknown class", strange.tolist(), lambda row: (at(row), unknown_name("class", texts[row], names))
    )
    if len(names) < 2:
        text = f"found {len(names)} class{'es' if not names else ''}: {', '.join(names) or 'none'}; it takes two"
        problems.append(Problem("too few classes", f"{table.name} label", text))
    labels = np.full(len(ids), -1, dtype=np.int64)
    labels[rows] = code
    return labels, names


def _label_table(
    given: Any, nodes: Table, ids: NDArray[np.object_], root: Path, problems: list[Problem]
) -> tuple[NDArray[np.object_], Any, NDArray[np.int64]] | None:
    where = f"label of {nodes.name}"
    if not isinstance(given, Mapping) or not set(LABEL_KEYS) <= set(given):
        text = f"expected a column or a mapping with {', '.join(LABEL_KEYS)}; got {given!r}"
        problems.append(Problem("wrong label", where, text))
        return None
    for key in given:
        if key not in LABEL_KEYS:
            problems.append(Problem("unknown key", where, unknown_name("key", key, LABEL_KEYS)))
    source = given["table"]
    if not isinstance(source, pd.DataFrame | str | os.PathLike):
        problems.append(Problem("wrong label", where, f"expected a file under `table`, got {source!r}"))
        return None
    table = Table(source, where) if isinstance(source, pd.DataFrame) else None
    if table is None:
        table = read_table(root / source, os.fspath(source), problems)
    if table is None:
        return None
    labelled, texts = table.texts(given["id"], problems), table.texts(given["column"], problems)
    if labelled is None or texts is None:
        return None
    known = pd.unique(pd.Series(ids, dtype=object))
    rows = pd.Index(known, dtype=object).get_indexer(pd.Index(labelled, dtype=object))
    problems += first_problems(
        "label without node",
        np.flatnonzero(rows < 0).tolist(),
        lambda row: (table.at(row), f"{labelled[row]!r} is no id of {nodes.name}"),
    )
    twice = np.flatnonzero(pd.Series(labelled, dtype=object).duplicated().to_numpy())
    problems += first_problems(
        "two labels", twice.tolist(), lambda row: (table.at(row), f"{labelled[row]!r} has a label in an earlier row")
    )
    good = rows >= 0
    kept = np.flatnonzero(good)
    return texts[good], lambda row: table.at(int(kept[row])), rows[good]


def read_split(
    given: Any,
    labels: NDArray[np.int64],
    table: Table,
    ids: NDArray[np.object_],
    root: Path,
    *,
    problems: list[Problem],
) -> Masks:
    """Return the masks of the splits.

    Parameters
    ----------
    given : str or mapping
        A column that holds ``train``, ``val`` (or ``valid``, ``validation``), ``test`` or nothing; or fractions with an
        optional ``seed``; or, for each split, a file with one id a line or a sequence of ids.
    labels : ndarray
        ``(N,)`` int64, -1 = none.
    table, ids, root, problems
        As in `read_labels`.

    Returns
    -------
    dict of str to ndarray
        ``(N,)`` bool for ``train``, ``val`` and ``test``; empty if something is wrong.
    """
    where = f"split of {table.name}"
    if isinstance(given, str):
        masks = _split_column(given, table, problems)
    elif isinstance(given, Mapping) and given and all(_is_number(given[name]) for name in given):
        masks = _split_fractions(given, labels, where, problems)
    elif isinstance(given, Mapping) and given:
        masks = _split_lists(given, table, ids, root, problems)
    else:
        text = f"expected a column, fractions, or lists of ids for {', '.join(SPLITS)}; got {given!r}"
        problems.append(Problem("wrong split", where, text))
        return {}
    for name, mask in masks.items():
        problems += _unlabelled(name, mask & (labels < 0), table, ids)
    return masks


def stratified_split(labels: NDArray[np.int64], fractions: Mapping[str, float], *, seed: int = 0) -> Masks:
    """Split the labelled nodes at random, in the same proportions within every class.

    Parameters
    ----------
    labels : ndarray
        ``(N,)`` int64; nodes with -1 stay out.
    fractions : mapping of str to float
        Shares of ``train``, ``val`` and ``test``, from 0 to 1, together at most 1.
    seed : int, optional
        Of the permutation.

    Returns
    -------
    dict of str to ndarray
        ``(N,)`` bool for each of the three. Borders are rounded within each class, and a class with any node has one
        for training if that share is above 0.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[order]
    first = np.searchsorted(sorted_labels, sorted_labels, side="left")
    size = np.searchsorted(sorted_labels, sorted_labels, side="right") - first
    rank = np.arange(len(labels)) - first
    masks: Masks = {}
    lower = np.zeros(len(labels))
    total = 0.0
    for name in SPLITS:
        share = float(fractions.get(name, 0.0))
        total += share
        upper = np.rint(total * size)
        if name == "train" and share > 0:
            upper = np.maximum(upper, 1)
        upper = np.maximum(upper, lower)
        masks[name] = np.zeros(len(labels), dtype=bool)
        masks[name][order] = (rank >= lower) & (rank < upper) & (sorted_labels >= 0)
        lower = upper
    return masks


def _unlabelled(name: str, wrong: NDArray[np.bool_], table: Table, ids: NDArray[np.object_]) -> list[Problem]:
    return first_problems(
        "split without label",
        np.flatnonzero(wrong).tolist(),
        lambda row: (table.at(row), f"id {ids[row]!r} is in {name} and has no label"),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _split_column(name: str, table: Table, problems: list[Problem]) -> Masks:
    texts = table.texts(name, problems)
    if texts is None:
        return {}
    codes, words = pd.factorize(pd.Series(texts, dtype=object))
    meaning = np.array([SPLIT_WORDS.get(word.strip().lower(), "?" if word.strip() else "") for word in words] + [""])
    chosen = meaning[codes]
    problems += first_problems(
        "unknown split",
        np.flatnonzero(chosen == "?").tolist(),
        lambda row: (table.at(row), unknown_name("split", texts[row], SPLIT_WORDS)),
    )
    return {split: chosen == split for split in SPLITS}


def _split_fractions(given: Mapping[str, Any], labels: NDArray[np.int64], where: str, problems: list[Problem]) -> Masks:
    before = len(problems)
    for key in given:
        if key not in (*SPLITS, "seed"):
            problems.append(Problem("wrong split", where, unknown_name("key", key, (*SPLITS, "seed"))))
    shares = {name: given.get(name, 0.0) for name in SPLITS}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            problems.append(Problem("wrong split", where, f"{name} is {share}; a fraction lies between 0 and 1"))
    seed = given.get("seed", 0)
    if not isinstance(seed, int) or seed < 0:
        problems.append(Problem("wrong split", where, f"seed is {seed!r}; it must be a whole number of at least 0"))
    if not any(shares.values()):
        problems.append(Problem("wrong split", where, f"every fraction is 0; give one for {' and '.join(SPLITS)}"))
    if sum(shares.values()) > 1 + 1e-9:
        text = f"the fractions add up to {sum(shares.values()):g}; together they are at most 1"
        problems.append(Problem("overlapping splits", where, text))
    return stratified_split(labels, shares, seed=seed) if len(problems) == before else {}


def _split_lists(
    given: Mapping[str, Any], table: Table, ids: NDArray[np.object_], root: Path, problems: list[Problem]
) -> Masks:
    masks: Masks = {name: np.zeros(len(ids), dtype=bool) for name in SPLITS}
    index = pd.Index(pd.unique(pd.Series(ids, dtype=object)), dtype=object)
    for name, source in given.items():
        if name not in SPLITS:
            where = f"split of {table.name}"
            problems.append(Problem("wrong split", where, unknown_name("split", name, SPLITS)))
            continue
        where = os.fspath(source) if isinstance(source, str | os.PathLike) else f"split {name!r} of {table.name}"
        listed = _listed_ids(source, where, root, problems)
        if listed is not None:
            position = index.get_indexer(pd.Index(listed, dtype=object))
            problems += _unknown_ids(where, listed, position, table)
            masks[name][position[position >= 0]] = True
    stacked = np.stack(list(masks.values()))
    problems += first_problems(
        "overlapping splits",
        np.flatnonzero(stacked.sum(axis=0) > 1).tolist(),
        lambda row: (table.at(row), f"id {ids[row]!r} is in {' and in '.join(np.array(SPLITS)[stacked[:, row]])}"),
    )
    return masks


def _listed_ids(source: Any, where: str, root: Path, problems: list[Problem]) -> NDArray[np.object_] | None:
    if isinstance(source, str | os.PathLike):
        return read_ids(root / source, where, problems)
    if isinstance(source, Sequence | np.ndarray):
        return np.array([*map(str, source), None], dtype=object)[:-1]
    text = f"expected a file or a list of ids, got {source!r}; fractions and lists do not mix"
    problems.append(Problem("wrong split", where, text))
    return None


def _unknown_ids(where: str, listed: NDArray[np.object_], position: NDArray[np.int64], table: Table) -> list[Problem]:
    return first_problems(
        "unknown id",
        np.flatnonzero(position < 0).tolist(),
        lambda row: (f"{where} row {row + 1}", f"{listed[row]!r} is no id of {table.name}"),
    )
