"""Text files of names and numbers, line by line, with what is wrong in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hgmm.errors import DataError, Problem, first_problems

__all__ = ["counted_lines", "name_problems", "read_cells", "read_lines"]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file; only line feeds end a line, since names may hold other separators.

    Raises
    ------
    DataError
        If it cannot be read or is no UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8 text ({error})") from error
    return [line.rstrip("\r") for line in text.rstrip("\n").split("\n")] if text else []


def counted_lines(path: Path, problems: list[Problem]) -> list[str]:
    """Return the lines after the first, which must be their number; add to `problems` what is wrong."""
    if not path.is_file():
        problems.append(Problem("missing file", path.name, "there is no such file"))
        return []
    lines = [line for line in read_lines(path) if line.strip()]
    if not lines or not lines[0].strip().isdecimal():
        first = lines[0] if lines else ""
        problems.append(Problem("no count", f"{path.name} row 1", f"must be the number of rows, got {first[:80]!r}"))
        return []
    if int(lines[0]) != len(lines) - 1:
        problems.append(Problem("wrong count", path.name, f"row 1 says {lines[0]} rows, {len(lines) - 1} follow"))
    return lines[1:]


def read_cells(
    path: Path, form: str, problems: list[Problem], *, separator: str | None = "\t", closing: str | None = None
) -> pd.DataFrame:
    """Read a table of three columns without a heading, and add to `problems` what is wrong.

    Parameters
    ----------
    path : Path
        The file.
    form : str
        How a row must look, for messages.
    problems : list of Problem
        Receives missing files, empty ones, and rows of another form.
    separator : str, optional
        What stands between the cells; None for any blanks.
    closing : str, optional
        A fourth cell that ends every row.

    Returns
    -------
    DataFrame
        Columns 0, 1 and 2 of text, one row a line.
    """
    empty = pd.DataFrame(columns=range(3), dtype=object)
    if not path.is_file():
        problems.append(Problem("missing file", path.name, "there is no such file"))
        return empty
    lines = pd.Series(read_lines(path), dtype=object)
    if lines.empty:
        problems.append(Problem("empty file", path.name, "has no row"))
        return empty
    cells = lines.str.split(separator, expand=True).reindex(columns=range(5))
    closed = cells[3].isna() if closing is None else cells[3] == closing
    wrong = cells[2].isna() | (cells[[0, 1, 2]] == "").any(axis=1) | ~closed | cells[4].notna()
    problems += first_problems(
        "wrong row",
        np.flatnonzero(wrong).tolist(),
        lambda row: (f"{path.name} row {row + 1}", f"must be {form!r}, got {lines[row][:80]!r}"),
    )
    return cells[[0, 1, 2]]


def name_problems(file: str, names: Sequence[str], *, first_row: int = 1) -> list[Problem]:
    """Find names that are empty or stand in an earlier row; `first_row` is the row of the first name in the file."""
    column = pd.Series(names, dtype=object)
    empty = np.flatnonzero(column == "").tolist()
    twice = np.flatnonzero(column.duplicated() & (column != "")).tolist()

    def where(row: int) -> str:
        return f"{file} row {row + first_row}"

    return [
        *first_problems("empty name", empty, lambda row: (where(row), "every row needs a name")),
        *first_problems("duplicate name", twice, lambda row: (where(row), f"{names[row]!r} stands in an earlier row")),
    ]
