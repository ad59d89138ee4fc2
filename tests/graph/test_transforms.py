from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hgmm.errors import DataError
from hgmm.graph.transforms import (
    CategoricalTransform,
    EncoderTransform,
    Features,
    MatrixTransform,
    NumericTransform,
    Transform,
    transform_from_dict,
)

VALUES = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, np.nan], [100.0, np.nan]])
TRAIN = np.array([True, True, True, False])


def test_numbers_are_scaled_by_the_chosen_rows() -> None:
    transform = NumericTransform.fit(VALUES, TRAIN, columns=["a", "b"], impute=True)
    assert transform == NumericTransform(("a", "b"), (2.0, 5.0), (1.0, 1.0), impute=True)
    features = transform.apply(VALUES)
    assert features.values.tolist() == [[-1, 0], [1, 0], [0, 0], [98, 0]]
    assert features.present.tolist() == [True, True, False, True]


def test_a_column_that_is_empty_in_the_chosen_rows_takes_all() -> None:
    transform = NumericTransform.fit(
        np.array([[np.nan], [4.0], [6.0]]), np.array([True, False, False]), columns=["a"], impute=False
    )
    assert transform.mean == (5.0,)


def test_a_constant_column_of_large_numbers_keeps_its_scale() -> None:
    transform = NumericTransform.fit(np.full((7, 1), 1e9 + 0.1), np.ones(7, dtype=bool), columns=["a"], impute=False)
    assert transform.std == (1.0,)


def test_categories_are_sorted_and_unknown_ones_give_zeros() -> None:
    cells = np.array([["b", "u"], ["a", ""], ["", ""]], dtype=object)
    transform = CategoricalTransform.fit(cells, columns=["x", "y"])
    assert transform.categories == (("a", "b"), ("u",))
    features = transform.apply(np.array([["b", "u"], ["c", ""], ["", ""]], dtype=object))
    assert features.values.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert features.present.tolist() == [True, True, False]


def test_holes_of_a_matrix_become_means_of_the_chosen_present_rows() -> None:
    values = np.array([[1, np.nan], [3, 8], [50, np.nan], [9, 9]], dtype=np.float32)
    given = Features(values, np.array([True, True, True, False]))
    transform = MatrixTransform.fit(given, np.array([True, True, False, True]), impute=True)
    assert transform.mean == (2.0, 8.0)
    assert transform.apply(given).values.tolist() == [[1, 8], [3, 8], [50, 8], [9, 9]]
    assert MatrixTransform.fit(given, TRAIN, impute=False).apply(given) is given


@pytest.mark.parametrize(
    "transform",
    [
        NumericTransform(("a",), (0.1,), (3.0,), impute=True),
        CategoricalTransform(("a", "b"), (("x",), ("y", "z"))),
        EncoderTransform("image", ("path",), "builtin", "1", 256),
        MatrixTransform(4, (0.5, 1.0, 2.0, 3.0)),
    ],
)
def test_transforms_survive_json(transform: Transform) -> None:
    assert transform_from_dict(json.loads(json.dumps(transform.to_dict()))) == transform


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"type": "fourier"}, "unknown type 'fourier'; known: categorical, image, matrix, numeric, text"),
        ({}, "unknown type None"),
        ({"type": "numeric", "columns": ["a"]}, "transform 'numeric': key 'mean' is missing; found: columns, type"),
    ],
)
def test_unknown_transforms(data: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        transform_from_dict(data)
