"""The definition of drawn negatives: Python's integers and sets, one negative after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from tests.oracles import philox_oracle

Triple = tuple[int, int, int]


def words(seed: int, step: int, positive: int, k: int) -> Iterator[int]:
    """Yield the stream of random words of one negative."""
    key = (seed % 2**32, (seed % 2**64) >> 32)
    for block in count():
        yield from philox_oracle((positive, k, step, block), key)


def _below(stream: Iterator[int], size: int) -> int | None:
    """Lemire's multiply-shift: a number in [0, size), or None if the word would make some numbers likelier."""
    high, low = divmod(next(stream) * size, 2**32)
    return None if size == 0 or low < 2**32 % size else high


def negative_oracle(
    positive: Triple,
    stream: Iterator[int],
    *,
    head_share: float,
    num_heads: int,
    num_tails: int,
    known: set[Triple] | None = None,
    pools: Sequence[dict[tuple[int, int], Sequence[int]]] = (),
    level: int = 0,
    first: int | None = None,
) -> tuple[int | None, int, int]:
    """Return (entity or None, side, level); ``pools[level][side, relation]`` lists candidates, missing means all.

    `first` takes the place of the first attempt if that is among all.
    """
    head, relation, tail = positive
    side = 0 if next(stream) < round(head_share * 2**32) else 1
    everything = range(num_tails if side else num_heads)

    def excluded(entity: int) -> bool:
        triple = (head, relation, entity) if side else (entity, relation, tail)
        return triple == positive or (known is not None and triple in known)

    lists = [pools[level].get((side, relation), everything)] if pools else [everything]
    if level > 0:
        lists.append(pools[0].get((side, relation), everything))
    if lists[-1] is not everything:
        lists.append(everything)
    for number, candidates in enumerate(lists):
        for attempt in range(31):
            place = _below(stream, len(candidates))
            if first is not None and (number, attempt) == (0, 0) and candidates is everything:
                place = first
            if place is not None and not excluded(candidates[place]):
                return candidates[place], side, level if number == 0 else 0
        left = [entity for entity in candidates if not excluded(entity)]
        # Where something is left, no later list needs the words that this takes.
        while left:
            place = _below(stream, len(left))
            if place is not None:
                return left[place], side, level if number == 0 else 0
    return None, side, 0
