"""What is fitted to turn a user's columns into features; JSON data that travels with graphs and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hgmm.errors import DataError, unknown_name

__all__ = [
    "CategoricalTransform",
    "EncoderTransform",
    "Features",
    "MatrixTransform",
    "NumericTransform",
    "Transform",
    "transform_from_dict",
]


class Features(NamedTuple):
    """Features of one modality: values ``(N, width)`` float32, zeros where absent; present ``(N,)`` bool."""

    values: NDArray[np.float32]
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class NumericTransform:
    """Columns of numbers, shifted and scaled to mean 0 and standard deviation 1 over the nodes they were fitted on.

    Parameters
    ----------
    columns : sequence of str
        Names of the ``width`` columns.
    mean, std : sequence of float
        Statistics by column; a constant column has ``std`` 1.
    impute : bool, optional
        Whether an empty cell beside filled ones becomes the mean, that is 0.
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    impute: bool = False

    @classmethod
    def fit(
        cls, values: NDArray[np.float64], rows: NDArray[np.bool_], *, columns: Sequence[str], impute: bool
    ) -> NumericTransform:
        """Take the statistics of ``(N, width)`` values, NaN where empty, over the chosen rows.

        A column that is empty in all chosen rows takes them over all rows.
        """
        mean, std = [], []
        for column in values.T:
            filled = ~np.isnan(column)
            chosen = column[filled & rows] if (filled & rows).any() else column[filled]
            mean.append(float(chosen.mean()))
            spread = float(chosen.std())
            # Rounding leaves a constant column of large numbers with a spread just above zero.
            std.append(spread if spread > 1e-9 * max(1.0, abs(mean[-1])) else 1.0)
        return cls(tuple(columns), tuple(mean), tuple(std), impute)

    def apply(self, values: NDArray[np.float64]) -> Features:
        """Scale ``(N, width)`` values; a row that is empty in every column is absent."""
        scaled = (values - np.array(self.mean)) / np.array(self.std)
        return Features(np.nan_to_num(scaled).astype(np.float32), np.asarray((~np.isnan(values)).any(axis=1)))

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.columns)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "type": "numeric",
            "columns": list(self.columns),
            "mean": list(self.mean),
            "std": list(self.std),
            "impute": self.impute,
        }


@dataclass(frozen=True)
class CategoricalTransform:
    """Columns of categories, one-hot; a category that was not there when it was fitted gives zeros.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns.
    categories : sequence of sequence of str
        Sorted categories by column; the width is their number over all columns.
    """

    columns: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]

    @classmethod
    def fit(cls, cells: NDArray[np.object_], *, columns: Sequence[str]) -> CategoricalTransform:
        """Collect the categories of ``(N, columns)`` str, ``""`` where empty."""
        tables = (pd.unique(pd.Series(column, dtype=object)) for column in cells.T)
        return cls(tuple(columns), tuple(tuple(sorted(name for name in table if name)) for table in tables))

    def apply(self, cells: NDArray[np.object_]) -> Features:
        """Encode ``(N, columns)`` str; a row that is empty in every column is absent."""
        values = np.zeros((len(cells), self.width), dtype=np.float32)
        offset = 0
        for column, table in zip(cells.T, self.categories, strict=True):
            code = pd.Index(table, dtype=object).get_indexer(pd.Index(column, dtype=object))
            known = np.flatnonzero(code >= 0)
            values[known, offset + code[known]] = 1.0
            offset += len(table)
        return Features(values, (cells != "").any(axis=1))

    @property
    def width(self) -> int:
        """Number of categories over all columns."""
        return sum(map(len, self.categories))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        tables = [list(table) for table in self.categories]
        return {"type": "categorical", "columns": list(self.columns), "categories": tables}


@dataclass(frozen=True)
class EncoderTransform:
    """A column of texts, or of image paths, and the encoder that makes vectors of it.

    Parameters
    ----------
    content : str
        ``text`` or ``image``.
    columns : sequence of str
        Names of the columns; several texts are joined with spaces.
    encoder, revision : str
        Which encoder, and which state of it.
    width : int
        Numbers a vector; for the built-in text encoder its hash size.
    """

    content: str
    columns: tuple[str, ...]
    encoder: str
    revision: str
    width: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "type": self.content,
            "columns": list(self.columns),
            "encoder": self.encoder,
            "revision": self.revision,
            "width": self.width,
        }


@dataclass(frozen=True)
class MatrixTransform:
    """A matrix that is used as it is.

    Parameters
    ----------
    width : int
        Columns.
    mean : sequence of float, optional
        What NaN becomes, by column, if it may be there at all.
    """

    width: int
    mean: tuple[float, ...] = ()

    columns: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def fit(cls, given: Features, rows: NDArray[np.bool_], *, impute: bool) -> MatrixTransform:
        """Take column means over the chosen rows where the modality is present, if NaN shall become these."""
        if not impute:
            return cls(int(given.values.shape[1]))
        chosen = given.values[given.present & rows] if (given.present & rows).any() else given.values[given.present]
        filled = ~np.isnan(chosen)
        total = np.where(filled, chosen, 0.0).sum(axis=0, dtype=np.float64)
        return cls(int(given.values.shape[1]), tuple((total / np.maximum(filled.sum(axis=0), 1)).tolist()))

    def apply(self, given: Features) -> Features:
        """Fill NaN in ``(N, width)`` values."""
        if not self.mean:
            return given
        mean = np.array(self.mean, dtype=np.float32)
        return given._replace(values=np.where(np.isnan(given.values), mean, given.values))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"type": "matrix", "width": self.width, "mean": list(self.mean)}


Transform = NumericTransform | CategoricalTransform | EncoderTransform | MatrixTransform


def transform_from_dict(data: Mapping[str, Any]) -> Transform:
    """Build a transform from what its `to_dict` returned.

    Raises
    ------
    DataError
        If the type is unknown or a key is missing.
    """
    kind = data.get("type")
    try:
        if kind == "numeric":
            mean, std = tuple(map(float, data["mean"])), tuple(map(float, data["std"]))
            return NumericTransform(tuple(data["columns"]), mean, std, bool(data["impute"]))
        if kind == "categorical":
            tables = tuple(tuple(map(str, table)) for table in data["categories"])
            return CategoricalTransform(tuple(data["columns"]), tables)
        if kind in ("text", "image"):
            columns = tuple(data["columns"])
            return EncoderTransform(kind, columns, data["encoder"], data["revision"], int(data["width"]))
        if kind == "matrix":
            return MatrixTransform(int(data["width"]), tuple(map(float, data["mean"])))
    except KeyError as error:
        raise DataError(f"transform {kind!r}: key {error} is missing; found: {', '.join(sorted(data))}") from error
    known = ("numeric", "categorical", "text", "image", "matrix")
    raise DataError(f"transform: {unknown_name('type', kind, known)}")
