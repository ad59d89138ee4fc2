"""Reading a user's tables and matrices so that every complaint can name the file and the row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from hgmm.errors import Problem, first_problems, unknown_name
from hgmm.files import missing_file

__all__ = ["ROWS_HINT", "Table", "as_texts", "read_table"]

ROWS_HINT = (
    "Rows: in a CSV or text file the first line is row 1, as in a spreadsheet; in Parquet files, arrays and DataFrames "
    "the first row is row 0."
)
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
EMPTY_WORDS = frozenset({"", "nan"})
LARGEST = float(np.finfo(np.float32).max)
EXACT = 2.0**53


class Table:
    """A DataFrame that knows its name and the row number under which its user knows each row.

    Parameters
    ----------
    frame : pandas.DataFrame
        The cells; never written to.
    name : str
        File name or other name for messages.
    rows : ndarray, optional
        ``(N,)`` row numbers for messages. Default: counted from 0.
    """

    def __init__(self, frame: pd.DataFrame, name: str, *, rows: NDArray[np.int64] | None = None) -> None:
        self.frame = frame
        self.name = name
        self.rows = np.arange(len(frame)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.frame)

    def at(self, position: int) -> str:
        """Return ``"buys.csv row 7"`` for a position in the frame."""
        return f"{self.name} row {self.rows[position]}"

    def column(self, name: str, problems: list[Problem]) -> pd.Series | None:
        """Return a column, or None after noting that it is missing, and which there are, or that there are several."""
        names = [str(column) for column in self.frame.columns]
        if names.count(name) == 1:
            return self.frame.iloc[:, names.index(name)]
        if name in names:
            problems.append(Problem("duplicate column", self.name, f"{names.count(name)} columns are called {name!r}"))
        else:
            problems.append(Problem("missing column", self.name, unknown_name("column", name, names)))
        return None

    def texts(self, name: str, problems: list[Problem]) -> NDArray[np.object_] | None:
        """Return ``(N,)`` str of a column, ``""`` for an empty cell, or None if the column is missing."""
        column = self.column(name, problems)
        return None if column is None else as_texts(column)

    def numbers(self, name: str, problems: list[Problem]) -> NDArray[np.float64] | None:
        """Return ``(N,)`` float64 of a column, NaN for an empty cell.

        Cells that hold no number, or one that is not finite in float32, are noted and become 0.
        """
        column = self.column(name, problems)
        if column is None:
            return None
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
            values: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
            shown: Any = values
            empty = np.isnan(values)
        else:
            shown = as_texts(column)
            values = pd.to_numeric(pd.Series(shown, dtype=object), errors="coerce").to_numpy(np.float64)
            empty = np.isnan(values)
            empty[empty] = [text.strip().lower() in EMPTY_WORDS for text in shown[empty]]
        wrong = ~empty & ~(np.abs(values) <= LARGEST)
        problems += first_problems(
            "not a finite number",
            np.flatnonzero(wrong).tolist(),
            lambda row: (self.at(row), f"column {name!r} holds {str(shown[row])!r}"),
        )
        # Reported once is enough: NaN would be taken for an empty cell.
        return np.where(wrong, 0.0, values)


def as_texts(values: pd.Series) -> NDArray[np.object_]:
    """Return a column as ``(N,)`` str; whole numbers lose their ``.0`` and missing cells become ``""``."""
    missing = values.isna().to_numpy(dtype=bool)
    if pd.api.types.is_float_dtype(values):
        # A column of whole numbers with one empty cell reaches us as floats, and its ids must still be "7".
        filled = values[~missing]
        if bool(((filled % 1 == 0) & (filled.abs() < EXACT)).all()):
            values = values.astype("Int64")
    texts: NDArray[np.object_] = values.astype(object).to_numpy(dtype=object, copy=True)
    texts[missing] = ""
    if not pd.api.types.is_string_dtype(values):
        texts = np.array([*map(str, texts), None], dtype=object)[:-1]
    return texts


def read_table(path: Path, name: str, problems: list[Problem]) -> Table | None:
    """Read a CSV (commas), TSV (tabs) or Parquet file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What messages call it.
    problems : list of Problem
        Findings are appended to it.

    Returns
    -------
    Table or None
        All cells of a CSV file are text, so that the id ``007`` stays what it is; blank lines are left out. None if the
        file cannot be read.
    """
    suffix = path.suffix.lower()
    known = (*SEPARATORS, *PARQUET)
    missing = missing_file(path, name)
    if missing:
        problems += missing
    elif suffix not in known:
        text = f"its name ends in {suffix!r}; tables are read from {', '.join(known)}"
        problems.append(Problem("unknown format", name, text))
    elif path.stat().st_size == 0:
        problems.append(Problem("empty file", name, "it holds nothing, not even a header; export it again"))
    elif suffix in PARQUET:
        try:
            # Whole numbers beside empty cells stay exact as objects; as floats, long ids would collide.
            frame = pa.parquet.read_table(path).to_pandas(integer_object_nulls=True)
            # What was an index when pandas wrote the file is a column like the others.
            return Table(frame.reset_index(level=[key for key in frame.index.names if key is not None]), name)
        except (pa.ArrowException, OSError) as error:
            problems.append(Problem("unreadable file", name, f"it is not a Parquet file ({_first_line(error)})"))
    else:
        return _read_csv(path, name, SEPARATORS[suffix], problems)
    return None


def _read_csv(path: Path, name: str, separator: str, problems: list[Problem]) -> Table | None:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream, delimiter=separator), [])
            only_header = not stream.read(1)
    except UnicodeDecodeError as error:
        problems.append(Problem("unreadable file", name, f"it is not UTF-8 text ({error}); save it as UTF-8"))
        return None
    except (csv.Error, OSError) as error:
        problems.append(Problem("unreadable file", name, f"its header cannot be read ({error})"))
        return None
    found = _header_problems(header, name, separator)
    if found:
        problems += found
        return None
    if only_header:
        return Table(pd.DataFrame(columns=header, dtype=object), name)
    ragged: list[Any] = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = pa.csv.read_csv(
            path,
            # Only one thread knows the row numbers; a block must hold the longest row.
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=1 << 24),
            parse_options=pa.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        )
    except (pa.ArrowException, OSError) as error:
        problems.append(Problem("unreadable file", name, _first_line(error)))
        return None
    problems += first_problems(
        "ragged row",
        ragged,
        lambda row: (
            f"{name} row {row.number}",
            f"{row.actual_columns} cells under a header of {row.expected_columns}: {row.text[:60]!r}"
            + ("; put double quotes around a text with a separator" * (row.actual_columns > row.expected_columns)),
        ),
    )
    frame = table.to_pandas()
    problems += _open_quote(path, name, frame)
    skipped = np.array([row.number for row in ragged], dtype=np.int64)
    rows = np.delete(np.arange(2, 2 + len(frame) + len(ragged)), skipped - 2)
    blank = (frame == "").all(axis=1).to_numpy(dtype=bool)
    return Table(frame[~blank].reset_index(drop=True), name, rows=rows[~blank])


def _open_quote(path: Path, name: str, frame: pd.DataFrame) -> list[Problem]:
    """Find a double quote that is never closed: it makes one cell of all the lines that follow."""
    if not len(frame) or not any("\n" in str(cell) for cell in frame.iloc[-1]):
        return []
    if path.read_bytes().count(b'"') % 2 == 0:
        return []
    text = f"the last row runs over several lines, {str(frame.iloc[-1].tolist())[:60]}; close its double quote"
    return [Problem("open quote", name, text)]


def _header_problems(header: list[str], name: str, separator: str) -> list[Problem]:
    if not any(header):
        return [Problem("no header", name, "its first line is empty; it must name the columns")]
    others = [other for other in ("\t", ";", "|", ",") if other != separator and other in "".join(header)]
    if len(header) == 1 and others:
        text = (
            f"its only column is {header[0]!r}; expected {separator!r} between columns, found {others[0]!r}; "
            "separate with commas (.csv) or tabs (.tsv)"
        )
        return [Problem("wrong separator", name, text)]
    repeated = sorted({column for column in header if header.count(column) > 1})
    return [Problem("duplicate column", name, f"{column!r} stands twice in the header") for column in repeated]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
