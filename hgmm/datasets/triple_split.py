"""Split the triples of a knowledge graph so that training sees every entity and relation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hgmm.datasets.planted import IntArray
from hgmm.errors import ConfigError

__all__ = ["split_triples"]


def split_triples(
    rows: IntArray, sizes: Sequence[int], rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray]:
    """Draw validation and test triples whose entities and relations all occur in the training triples too.

    The rows are shuffled. The first row of each entity and of each relation goes to training whatever comes; of the
    others, the first ones are validation, the next ones test.

    Parameters
    ----------
    rows : ndarray
        ``(n, 3)`` int64 (head, relation, tail), each once.
    sizes : sequence of int
        How many validation and test triples there shall be.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    train, val, test : ndarray
        Parts of the rows, in their order.

    Raises
    ------
    ConfigError
        If so many triples cannot be spared.
    """
    order = rng.permutation(len(rows))
    shuffled = rows[order]
    needed = np.zeros(len(rows), dtype=np.bool_)
    # Head and tail of a row stand side by side.
    needed[_first_places(shuffled[:, [0, 2]].ravel()) // 2] = True
    needed[_first_places(shuffled[:, 1])] = True
    spare = order[~needed]
    if min(sizes) < 0 or sum(sizes) > len(spare):
        raise ConfigError(
            f"split_triples sizes: at most {len(spare)} of {len(rows)} triples can be spared, or an entity or relation "
            f"would be missing in training; got {' and '.join(map(str, sizes))}"
        )
    part = np.zeros(len(rows), dtype=np.int64)
    part[spare[: sizes[0]]] = 1
    part[spare[sizes[0] : sizes[0] + sizes[1]]] = 2
    return rows[part == 0], rows[part == 1], rows[part == 2]


def _first_places(ids: IntArray) -> IntArray:
    """Return where each id that occurs stands first; quicker than sorting, for ids are small numbers."""
    places = np.full(ids.max(initial=-1) + 1, -1, dtype=np.int64)
    # Of several places of an id the last that is written stays.
    places[ids[::-1]] = np.arange(len(ids))[::-1]
    return places[places >= 0]
