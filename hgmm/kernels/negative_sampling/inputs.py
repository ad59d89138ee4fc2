"""What the implementations of the draws receive and return."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.kernels._checks import describe_tensor
from hgmm.kernels.negative_sampling.known import KnownTriples

__all__ = [
    "FIRST_ATTEMPT",
    "MAX_ATTEMPTS",
    "MAX_ENTITIES",
    "MAX_STEP",
    "SHARED_WORD",
    "WHOLE",
    "DrawInputs",
    "Drawn",
    "Pools",
    "empty_entities",
]

# Words of a negative's stream: word 0 decides the side, the next ones are attempts; csrc/negative_sampling.cpp has the
# same numbers.
FIRST_ATTEMPT = 1
MAX_ATTEMPTS = 31
WHOLE = -1
# Of the streams of candidates that positives share; no negative comes to it by itself.
SHARED_WORD = 2**33
MAX_ENTITIES = 2**31
"""Numbers of entities are below this: an attempt has 32 bits."""
MAX_STEP = 2**32
"""Steps are below this: the counter has one word for them."""


class Pools(NamedTuple):
    """Lists of candidates, and which negative draws from which.

    Attributes
    ----------
    table : Tensor
        ``(levels, 2, R)`` int64: the list for a level, a side (0 head, 1 tail) and a relation; -1 for all entities.
    indptr : Tensor
        ``(lists + 1,)`` int64.
    ids : Tensor
        int64 candidates of each list, ascending and distinct.
    """

    table: Tensor
    indptr: Tensor
    ids: Tensor


class DrawInputs(NamedTuple):
    """The checked arguments of a draw.

    Attributes
    ----------
    positives : Tensor
        ``(B, 3)`` int64 rows (head, relation, tail).
    num_negs_per_pos : int
        K.
    head_below : Tensor
        ``(R,)`` int64 in [0, 2^32]: the head is corrupted if a negative's first word is below.
    num_heads, num_tails : int
        Entities that can be heads, and tails.
    pools : Pools or None
        None draws from all entities.
    known : KnownTriples or None
        None filters nothing but the positive's own entity.
    seed, step : int
        Key and part of the counter.
    level : Tensor or None
        ``(B, K)`` int8 row of ``pools.table`` that a negative asks for; None is 0 everywhere.
    only_sides : bool
        Whether no entity is asked for.
    relation_names : sequence of str or None
        For messages.
    first : Tensor or None
        ``(C, K)`` int64 entities that take the place of the first attempt among all: row c is that of the positives
        from ``c ceil(B / C)`` on.
    """

    positives: Tensor
    num_negs_per_pos: int
    head_below: Tensor
    num_heads: int
    num_tails: int
    pools: Pools | None
    known: KnownTriples | None
    seed: int
    step: int
    level: Tensor | None = None
    only_sides: bool = False
    relation_names: Sequence[str] | None = None
    first: Tensor | None = None

    @property
    def chunk_size(self) -> int:
        """Positives that share a row of `first`; the last row may have fewer."""
        return 1 if self.first is None else max(1, math.ceil(len(self.positives) / max(1, len(self.first))))

    @property
    def shape(self) -> tuple[int, int]:
        """B and K."""
        return self.positives.shape[0], self.num_negs_per_pos

    def __str__(self) -> str:
        return f"positives {describe_tensor(self.positives)}, {self.num_negs_per_pos} negatives each"


class Drawn(NamedTuple):
    """The result of a draw.

    Attributes
    ----------
    entity : Tensor
        ``(B, K)`` int64; without elements if only sides were asked for.
    side : Tensor
        ``(B, K)`` int8: 0 head corrupted, 1 tail.
    level : Tensor or None
        ``(B, K)`` int8, lower than asked for where that level's list held nothing but known triples; None if none was
        given.
    failed : int
        The first negative, row by row, for which there is no entity at all; -1 if all were found.
    """

    entity: Tensor
    side: Tensor
    level: Tensor | None
    failed: int = -1


def empty_entities(inputs: DrawInputs) -> Tensor:
    """Return room for the entities, or for none of them."""
    shape = (0,) if inputs.only_sides else inputs.shape
    return torch.empty(shape, dtype=torch.int64, device=inputs.positives.device)
