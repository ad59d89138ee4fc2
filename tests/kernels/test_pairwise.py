from __future__ import annotations

from itertools import combinations, product

from tests.kernels.pairwise import pairwise


def test_every_pair_of_values_is_met_in_few_rows() -> None:
    axes = {"a": range(7), "b": "xyz", "c": [True, False], "d": [None, 1, 2, 3, 4]}
    rows = pairwise(axes)
    for a, b in combinations(axes, 2):
        assert {(row[a], row[b]) for row in rows} == set(product(axes[a], axes[b]))
    assert len(rows) < 2 * 7 * 5
    assert rows == pairwise(axes)
