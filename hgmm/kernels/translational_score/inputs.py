"""What the implementations of `translational_score` receive."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.kernels._checks import describe_tensor

__all__ = ["NORMS", "TranslationalInputs", "check_ids"]

NORMS = ("1", "2", "complex")


class TranslationalInputs(NamedTuple):
    """The arguments of `translational_score`, checked but for the values of `entity`, `side` and `pairs`."""

    query: Tensor
    table: Tensor
    entity: Tensor
    side: Tensor
    pairs: Tensor
    norm: str

    def __str__(self) -> str:
        return (
            f"query {describe_tensor(self.query)}, table {describe_tensor(self.table)}, "
            f"entity {describe_tensor(self.entity)}, pairs {describe_tensor(self.pairs)}, norm {self.norm}"
        )


def check_ids(query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor) -> None:
    """Check that everything that is looked up exists.

    On the CPU only, as reading ids on another device would wait for it, and not while torch.compile traces, when they
    have no value yet.

    Raises
    ------
    ConfigError
        Naming the argument and the first entry out of range.
    """
    if entity.device.type != "cpu" or torch.compiler.is_compiling():
        return
    _, S, A, _ = query.shape
    N, M, _ = table.shape
    _check_below("entity", entity, N, "table.shape[0]; draw ids of rows of table")
    _check_below("side", side, S, "query.shape[1]; 0 stands for a corrupted head, 1 for a corrupted tail")
    _check_below("pairs[..., 0]", pairs[..., 0], A, "query.shape[2]; a pair is (place in query, place in table)")
    _check_below("pairs[..., 1]", pairs[..., 1], M, "table.shape[1]; a pair is (place in query, place in table)")


def _check_below(name: str, ids: Tensor, end: int, hint: str) -> None:
    if not ids.numel():
        return
    low, high = map(int, ids.aminmax())
    if low >= 0 and high < end:
        return
    place = tuple(((ids < 0) | (ids >= end)).nonzero()[0].tolist())
    raise ConfigError(
        f"translational_score, argument {name}: ids lie in [0, {end}), got {int(ids[place])} at {place}; "
        f"the end is {hint}"
    )
