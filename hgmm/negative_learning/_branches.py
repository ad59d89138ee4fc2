"""What the parts of negative learning ask of the branches' logits, and how they walk them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from hgmm.errors import ShapeError
from hgmm.kernels._segment import block_rows

__all__ = ["check_branches", "row_blocks"]


def check_branches(where: str, logits: Tensor) -> tuple[int, int, int]:
    """Check the branches' logits and return n, P and C.

    Raises
    ------
    ShapeError
        If `logits` is not ``(n, P, C)`` with at least one branch and two classes.
    """
    if logits.dim() != 3 or logits.shape[1] < 1 or logits.shape[2] < 2:
        raise ShapeError(
            f"{where}, logits: expected shape (n, P, C) with at least one branch and two classes, "
            f"got {tuple(logits.shape)}; pass NodeOutput.branch_logits"
        )
    n, num_branches, num_classes = logits.shape
    return n, num_branches, num_classes


def row_blocks(x: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Cut `x` and what has as many rows into blocks whose intermediate results fit a cache; None stays None.

    There is at least one block, so that results of no rows have their shape too.
    """
    size = block_rows(x)
    for start in range(0, max(1, len(x)), size):
        yield tuple(None if y is None else y[start : start + size] for y in (x, *others))
