"""What a user declares about a modality, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hgmm.errors import Problem, unknown_name
from hgmm.graph.schema import KINDS

__all__ = ["MODALITY_KEYS", "ModalitySource", "parse_modality"]

MODALITY_KEYS = ("array", "column", "columns", "encoder", "file", "ids", "key", "kind", "missing", "width")
WORD_KEYS = ("column", "encoder", "file", "ids", "key", "kind")
COLUMN_KINDS = ("numeric", "categorical", "text", "image")
MISSING = ("absent", "mean")


@dataclass(frozen=True)
class ModalitySource:
    """One modality as its user declared it.

    Parameters
    ----------
    name, where : str
        The modality, and the words that open messages about it.
    kind : str
        One of the schema's kinds.
    columns : tuple of str
        Columns of the table; empty for a matrix.
    file, ids, key : str, optional
        Matrix file, id file, and name of the array in the file.
    array : ndarray, optional
        A matrix in memory, one row a node.
    present : ndarray, optional
        Which rows of `array` count; the others may hold anything.
    encoder : str
        For text and image columns.
    width : int, optional
        Hash size of the built-in text encoder.
    impute : bool
        Whether single missing numbers become the mean.
    """

    name: str
    where: str
    kind: str
    columns: tuple[str, ...] = ()
    file: str | None = None
    ids: str | None = None
    key: str | None = None
    array: NDArray[Any] | None = None
    present: NDArray[Any] | None = None
    encoder: str = "builtin"
    width: int | None = None
    impute: bool = False

    @property
    def described(self) -> str:
        """Where the features come from, for the schema."""
        if self.columns:
            return f"{'columns' if len(self.columns) > 1 else 'column'} {', '.join(self.columns)}"
        return self.file or "array"


def parse_modality(
    name: str, given: Any, where: str, *, present: Any = None, encoder: str, problems: list[Problem]
) -> ModalitySource | None:
    """Turn a column name, a list of them, an array, or a mapping into a `ModalitySource`.

    Parameters
    ----------
    name : str
        The modality; if it is the name of a kind, it need not say its kind.
    given : str, sequence of str, ndarray, Tensor or mapping
        A mapping has the keys in `MODALITY_KEYS`.
    where : str
        Opens messages.
    present : ndarray or Tensor, optional
        ``(N,)`` bool for a matrix in memory: which rows count.
    encoder : str
        Used where the mapping names none.
    problems : list of Problem
        Findings are appended to it.

    Returns
    -------
    ModalitySource or None
        None if something is wrong.
    """
    before = len(problems)
    options = _as_options(given)
    if options is None:
        text = f"expected a column, a list of columns, a matrix or a mapping, got {given!r}"
        problems.append(Problem("wrong modality", where, text))
        return None
    for key in options:
        if key not in MODALITY_KEYS:
            problems.append(Problem("unknown key", where, unknown_name("key", key, MODALITY_KEYS)))
    problems += _type_problems(options, where)
    if len(problems) > before:
        return None
    origins = [key for key in ("column", "columns", "file", "array") if _is_given(options.get(key))]
    if len(origins) != 1:
        found = " and ".join(origins) or "none"
        problems.append(Problem("wrong modality", where, f"give one of column, columns, file, array; found {found}"))
        return None
    columns = options.get("columns") or options.get("column") or ()
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    kind = options.get("kind", name if name in KINDS else "other")
    problems += _option_problems(options, kind, bool(columns), where)
    if present is not None and options.get("array") is None:
        text = "`present` goes with a matrix in memory; empty cells and missing rows say it elsewhere"
        problems.append(Problem("wrong modality", where, text))
    if len(problems) > before:
        return None
    return ModalitySource(
        name=name,
        where=where,
        kind=kind,
        columns=columns,
        file=_as_path(options.get("file")),
        ids=_as_path(options.get("ids")),
        key=options.get("key"),
        array=_as_array(options.get("array")),
        present=_as_array(present),
        encoder=options.get("encoder", encoder),
        width=options.get("width"),
        impute=options.get("missing", MISSING[0]) == "mean",
    )


def _is_given(option: Any) -> bool:
    return option is not None and not (isinstance(option, str | Sequence) and not len(option))


def _as_options(given: Any) -> Mapping[str, Any] | None:
    if isinstance(given, Mapping):
        return given
    if isinstance(given, str):
        return {"column": given}
    if isinstance(given, np.ndarray | torch.Tensor):
        return {"array": given}
    if isinstance(given, Sequence) and given and all(isinstance(column, str) for column in given):
        return {"columns": given}
    return None


def _as_path(given: Any) -> str | None:
    return None if given is None else os.fspath(given)


def _as_array(given: Any) -> NDArray[Any] | None:
    if isinstance(given, torch.Tensor):
        return given.detach().cpu().numpy()
    return None if given is None else np.asarray(given)


def _type_problems(options: Mapping[str, Any], where: str) -> list[Problem]:
    problems = [
        Problem("wrong modality", where, f"expected a word under `{key}`, got {options[key]!r}")
        for key in WORD_KEYS
        if not isinstance(options.get(key, ""), str | os.PathLike)
    ]
    columns = options.get("columns", "")
    if not isinstance(columns, str | list | tuple) or not all(isinstance(column, str) for column in columns):
        problems.append(Problem("wrong modality", where, f"expected a list of columns, got {columns!r}"))
    return problems


def _option_problems(options: Mapping[str, Any], kind: str, from_columns: bool, where: str) -> list[Problem]:
    problems = []
    if kind not in KINDS:
        problems.append(Problem("wrong modality", where, unknown_name("kind", kind, KINDS)))
    elif from_columns and kind not in COLUMN_KINDS:
        text = f"say what its columns hold with `kind:` {', '.join(COLUMN_KINDS)}; found {kind!r}"
        problems.append(Problem("wrong modality", where, text))
    missing = options.get("missing", MISSING[0])
    if missing not in MISSING:
        problems.append(Problem("wrong modality", where, unknown_name("value of `missing`", missing, MISSING)))
    fitting = {
        "encoder": from_columns and kind in ("text", "image"),
        "width": from_columns and kind in ("text", "image"),
        "missing": not from_columns or kind == "numeric",
        "ids": options.get("file") is not None,
        "key": options.get("file") is not None,
    }
    for key, fits in fitting.items():
        if options.get(key) is not None and not fits:
            origin = f"{kind} columns" if from_columns else "a matrix"
            problems.append(Problem("wrong modality", where, f"`{key}` has no meaning for {origin}; leave it out"))
    return problems
