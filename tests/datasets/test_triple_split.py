from __future__ import annotations

import numpy as np
import pytest

from hgmm.datasets.triple_split import split_triples
from hgmm.errors import ConfigError


def rows(number: int = 200) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.unique(np.stack([rng.integers(size, size=number) for size in (30, 5, 40)], axis=1), axis=0)


def test_each_triple_is_in_one_part_and_training_sees_all_names() -> None:
    every = rows()
    train, val, test = split_triples(every, (30, 20), np.random.default_rng(0))
    assert (len(val), len(test)) == (30, 20)
    parts = [tuple(row) for part in (train, val, test) for row in part.tolist()]
    assert sorted(parts) == sorted(map(tuple, every.tolist()))
    assert set(every[:, [0, 2]].ravel()) == set(train[:, [0, 2]].ravel())
    assert set(every[:, 1]) == set(train[:, 1])
    again = split_triples(every, (30, 20), np.random.default_rng(0))
    assert all(np.array_equal(one, other) for one, other in zip((train, val, test), again, strict=True))
    other = split_triples(every, (30, 20), np.random.default_rng(1))
    assert not np.array_equal(val, other[1])


def test_loops_count_as_one_row() -> None:
    train, val, _ = split_triples(np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0]]), (1, 0), np.random.default_rng(0))
    assert (len(train), len(val)) == (2, 1)


def test_what_training_needs_cannot_be_spared() -> None:
    with pytest.raises(ConfigError, match=r"at most 1 of 3 triples can be spared.* got 1 and 1"):
        split_triples(np.array([[0, 0, 1], [0, 0, 2], [1, 0, 2]]), (1, 1), np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"at most 0 of 0 triples can be spared.* got 0 and 1"):
        split_triples(np.empty((0, 3), dtype=np.int64), (0, 1), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="got -1 and 0"):
        split_triples(rows(), (-1, 0), np.random.default_rng(0))
