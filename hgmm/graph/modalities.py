"""From a modality's declaration to features: what is read, what is fitted, what is noted as a problem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hgmm.errors import ConfigError, Problem, first_problems
from hgmm.graph.encoders import VectorCache, encode_images, encode_texts, image_encoder, text_encoder
from hgmm.graph.matrices import read_ids, read_matrix
from hgmm.graph.modality_source import ModalitySource
from hgmm.graph.tables import Table
from hgmm.graph.transforms import (
    CategoricalTransform,
    EncoderTransform,
    Features,
    MatrixTransform,
    NumericTransform,
    Transform,
)

__all__ = ["MAX_CATEGORIES", "NodeRows", "make_features"]

MAX_CATEGORIES = 1000
Made = tuple[Features, Transform] | None


@dataclass(frozen=True)
class NodeRows:
    """What the modalities of one node type are read against.

    Parameters
    ----------
    table : Table
        The node table.
    ids : ndarray
        ``(N,)`` str ids of its rows.
    fitted : ndarray
        ``(N,)`` bool, the rows that statistics are taken from.
    root : Path
        Folder that relative paths start from.
    cache : VectorCache
        For the encoders.
    """

    table: Table
    ids: NDArray[np.object_]
    fitted: NDArray[np.bool_]
    root: Path
    cache: VectorCache


def make_features(
    source: ModalitySource, nodes: NodeRows, fitted: Transform | None, *, problems: list[Problem]
) -> tuple[Features, Transform] | None:
    """Read a modality and turn it into features.

    Parameters
    ----------
    source : ModalitySource
        What was declared.
    nodes : NodeRows
        The node type's table and ids.
    fitted : Transform or None
        What was fitted in an earlier run; None fits now.
    problems : list of Problem
        Findings are appended to it.

    Returns
    -------
    (Features, Transform) or None
        None if something is wrong.
    """
    before = len(problems)
    if fitted is not None and tuple(fitted.columns) != source.columns:
        text = f"fitted on the columns {list(fitted.columns)}, declared are {list(source.columns)}"
        problems.append(Problem("other columns", source.where, text))
        return None
    makers = {"numeric": _numeric, "categorical": _categorical, "text": _text, "image": _image}
    made = (makers[source.kind] if source.columns else _matrix)(source, nodes, fitted, problems)
    if made is None or len(problems) > before:
        return None
    features, transform = made
    if fitted is None and not features.present.any():
        problems.append(Problem("empty modality", source.where, "no node has it; fill it or leave it out"))
        return None
    return features, transform


def _other_transform(source: ModalitySource, fitted: Transform | None, problems: list[Problem]) -> Made:
    kind = type(fitted).__name__
    text = f"the trained model has a {kind} here, which does not fit {source.described} of kind {source.kind!r}"
    problems.append(Problem("other transform", source.where, text))
    return None


def _numeric(source: ModalitySource, nodes: NodeRows, fitted: Transform | None, problems: list[Problem]) -> Made:
    columns = [nodes.table.numbers(name, problems) for name in source.columns]
    found = [column for column in columns if column is not None]
    if len(found) < len(columns):
        return None
    values = np.stack(found, axis=1)
    empty = np.isnan(values)
    partly = np.flatnonzero(empty.any(axis=1) & ~empty.all(axis=1))
    impute = fitted.impute if isinstance(fitted, NumericTransform) else source.impute
    if not impute:

        def word(row: int) -> tuple[str, str]:
            names = ", ".join(repr(name) for name, hole in zip(source.columns, empty[row], strict=True) if hole)
            return nodes.table.at(row), f"{names} of modality {source.name!r} is empty; fill it or set `missing: mean`"

        problems += first_problems("NaN", partly.tolist(), word)
    if fitted is None:
        hollow = [name for name, column in zip(source.columns, empty.T, strict=True) if column.all()]
        if hollow:
            text = f"columns without a single number: {', '.join(hollow)}; leave them out"
            problems.append(Problem("empty modality", source.where, text))
            return None
        transform = NumericTransform.fit(values, nodes.fitted, columns=source.columns, impute=source.impute)
        return transform.apply(values), transform
    if not isinstance(fitted, NumericTransform):
        return _other_transform(source, fitted, problems)
    return fitted.apply(values), fitted


def _cells(source: ModalitySource, nodes: NodeRows, problems: list[Problem]) -> NDArray[np.object_] | None:
    columns = [nodes.table.texts(name, problems) for name in source.columns]
    found = [column for column in columns if column is not None]
    return np.stack(found, axis=1) if len(found) == len(columns) else None


def _categorical(source: ModalitySource, nodes: NodeRows, fitted: Transform | None, problems: list[Problem]) -> Made:
    cells = _cells(source, nodes, problems)
    if cells is None:
        return None
    if fitted is not None and not isinstance(fitted, CategoricalTransform):
        return _other_transform(source, fitted, problems)
    transform = fitted or CategoricalTransform.fit(cells, columns=source.columns)
    if fitted is None:
        for name, table in zip(source.columns, transform.categories, strict=True):
            if len(table) > MAX_CATEGORIES:
                text = f"column {name!r} has {len(table)} categories, at most {MAX_CATEGORIES} do; use `kind: text`"
                problems.append(Problem("too many categories", source.where, text))
                return None
        if transform.width == 0:
            problems.append(Problem("empty modality", source.where, "no node has it; fill it or leave it out"))
            return None
    return transform.apply(cells), transform


def _encoder(make: Any, source: ModalitySource, fitted: Transform | None, problems: list[Problem]) -> Any | None:
    """Return the encoder that was fitted, or the declared one; note it if they differ or there is none."""
    earlier = fitted if isinstance(fitted, EncoderTransform) else None
    if fitted is not None and (earlier is None or earlier.content != source.kind):
        return _other_transform(source, fitted, problems)
    try:
        encoder = make(earlier.encoder, width=earlier.width) if earlier else make(source.encoder, width=source.width)
    except ConfigError as error:
        problems.append(Problem("no encoder", source.where, str(error)))
        return None
    if earlier and encoder.revision != earlier.revision:
        text = f"the model was trained on {earlier.encoder!r} revision {earlier.revision}, here is {encoder.revision}"
        problems.append(Problem("other encoder", source.where, text))
        return None
    return encoder


def _text(source: ModalitySource, nodes: NodeRows, fitted: Transform | None, problems: list[Problem]) -> Made:
    cells = _cells(source, nodes, problems)
    encoder = _encoder(text_encoder, source, fitted, problems)
    if cells is None or encoder is None:
        return None
    texts = cells[:, 0] if cells.shape[1] == 1 else np.array([*map(" ".join, cells), None], dtype=object)[:-1]
    present = np.array([bool(text.strip()) for text in texts], dtype=bool)
    values = np.zeros((len(texts), encoder.width), dtype=np.float32)
    values[present] = encode_texts(texts[present], encoder, cache=nodes.cache)
    transform = EncoderTransform("text", source.columns, encoder.name, encoder.revision, encoder.width)
    return Features(values, present), transform


def _image(source: ModalitySource, nodes: NodeRows, fitted: Transform | None, problems: list[Problem]) -> Made:
    if len(source.columns) > 1:
        text = f"an image modality has one column of paths, got {len(source.columns)}: {', '.join(source.columns)}"
        problems.append(Problem("wrong modality", source.where, text))
        return None
    paths = nodes.table.texts(source.columns[0], problems)
    encoder = _encoder(image_encoder, source, fitted, problems)
    if paths is None or encoder is None:
        return None
    rows = np.flatnonzero(paths != "")
    vectors, failed = encode_images([nodes.root / paths[row] for row in rows], encoder, cache=nodes.cache)
    problems += first_problems(
        "unreadable image",
        list(failed.items()),
        lambda found: (nodes.table.at(rows[found[0]]), f"{paths[rows[found[0]]]!r}: {found[1]}"),
    )
    values = np.zeros((len(paths), encoder.width), dtype=np.float32)
    values[rows] = vectors
    transform = EncoderTransform("image", source.columns, encoder.name, encoder.revision, encoder.width)
    return Features(values, paths != ""), transform


def _matrix(source: ModalitySource, nodes: NodeRows, fitted: Transform | None, problems: list[Problem]) -> Made:
    if fitted is not None and not isinstance(fitted, MatrixTransform):
        return _other_transform(source, fitted, problems)
    impute = bool(fitted.mean) if fitted is not None else source.impute
    read = _array_rows if source.file is None else _file_rows
    given = read(source, nodes, impute, problems)
    if given is None:
        return None
    if fitted is not None and given.values.shape[1] != fitted.width:
        text = f"{given.values.shape[1]} columns; the trained model expects {fitted.width}"
        problems.append(Problem("wrong width", source.file or source.where, text))
        return None
    transform = fitted or MatrixTransform.fit(given, nodes.fitted, impute=source.impute)
    return transform.apply(given), transform


def _finite(name: str, values: NDArray[np.float32], impute: bool) -> list[Problem]:
    wrong = np.isinf(values) if impute else ~np.isfinite(values)

    def word(row: int) -> tuple[str, str]:
        column = int(np.flatnonzero(wrong[row])[0])
        value = values[row, column]
        advice = ", or set `missing: mean`" if np.isnan(value) else "; float32 ends at 3.4e38"
        return f"{name} row {row}", f"column {column} is {value}; leave the row and its id out{advice}"

    return first_problems("NaN", np.flatnonzero(wrong.any(axis=1)).tolist(), word)


def _array_rows(source: ModalitySource, nodes: NodeRows, impute: bool, problems: list[Problem]) -> Features | None:
    array = source.array
    if array is None or array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiub":
        got = None if array is None else f"{array.shape} {array.dtype}"
        problems.append(Problem("wrong width", source.where, f"a feature matrix is (N, width) of numbers, got {got}"))
        return None
    if len(array) != len(nodes.ids):
        problems.append(Problem("wrong length", source.where, f"{len(array)} rows for {len(nodes.ids)} nodes"))
        return None
    present = np.ones(len(array), dtype=bool)
    if source.present is not None:
        present = np.asarray(source.present)
        if present.shape != (len(array),) or present.dtype != np.bool_:
            text = f"`present` must be ({len(array)},) bool, got {present.shape} {present.dtype}"
            problems.append(Problem("wrong mask", source.where, text))
            return None
    values = np.where(present[:, None], array, 0).astype(np.float32)
    problems += _finite(source.where, values, impute)
    return Features(values, present)


def _file_rows(source: ModalitySource, nodes: NodeRows, impute: bool, problems: list[Problem]) -> Features | None:
    name = str(source.file)
    matrix = read_matrix(nodes.root / name, name, source.key, problems)
    if matrix is not None:
        problems += _finite(name, matrix, impute)
    if source.ids is None:
        if matrix is not None and len(matrix) != len(nodes.ids):
            text = f"{len(matrix)} rows for {len(nodes.ids)} nodes; name the file of their ids with `ids:`"
            problems.append(Problem("wrong length", name, text))
            return None
        return None if matrix is None else Features(matrix, np.ones(len(matrix), dtype=bool))
    ids = read_ids(nodes.root / source.ids, source.ids, problems)
    if matrix is None or ids is None:
        return None
    if len(ids) != len(matrix):
        text = f"{len(ids)} ids for the {len(matrix)} rows of {name}"
        problems.append(Problem("wrong length", source.ids, text))
        return None
    position = pd.Index(pd.unique(pd.Series(nodes.ids, dtype=object))).get_indexer(pd.Index(ids, dtype=object))
    problems += first_problems(
        "unknown id",
        np.flatnonzero(position < 0).tolist(),
        lambda row: (f"{source.ids} row {row + 1}", f"{ids[row]!r} is no id of {nodes.table.name}"),
    )
    if (position < 0).any() or len(np.unique(position)) < len(position) or position.max() >= len(nodes.ids):
        return None
    values = np.zeros((len(nodes.ids), matrix.shape[1]), dtype=np.float32)
    present = np.zeros(len(nodes.ids), dtype=bool)
    values[position], present[position] = matrix, True
    return Features(values, present)
