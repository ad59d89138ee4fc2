"""Few combinations of options that hold every pair of values: most faults need no third option to show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

__all__ = ["pairwise"]

Row = dict[str, Any]


def pairwise(axes: dict[str, Sequence[Any]]) -> list[Row]:
    """Return combinations in which each two values of different axes meet at least once.

    Greedy: each row starts with a pair that has not been met and takes, axis by axis, the value that meets most new
    ones; the result depends on the arguments only.
    """
    names = list(axes)
    open_pairs = {
        ((a, i), (b, j)): None
        for a, b in combinations(names, 2)
        for i in range(len(axes[a]))
        for j in range(len(axes[b]))
    }
    uses = {(name, i): 0 for name in names for i in range(len(axes[name]))}
    rows = []
    while open_pairs:
        first, second = next(iter(open_pairs))
        row = dict([first, second])
        for name in names:
            if name not in row:
                row[name] = max(
                    range(len(axes[name])),
                    key=lambda i: (_new_pairs(names, row, name, i, open_pairs), -uses[name, i]),
                )
        for pair in combinations([(name, row[name]) for name in names], 2):
            open_pairs.pop(pair, None)
        for name, i in row.items():
            uses[name, i] += 1
        rows.append({name: axes[name][row[name]] for name in names})
    return rows


def _new_pairs(names: list[str], row: dict[str, int], name: str, i: int, open_pairs: dict[Any, None]) -> int:
    place = names.index(name)
    count = 0
    for other, j in row.items():
        ends = ((other, j), (name, i)) if names.index(other) < place else ((name, i), (other, j))
        count += ends in open_pairs
    return count
