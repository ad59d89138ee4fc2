"""The definition in vectorised torch, for any device: a stream of random words for each negative.

The README has the rules; every step works on all negatives that still need one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hgmm.kernels._philox import philox
from hgmm.kernels.negative_sampling.inputs import (
    FIRST_ATTEMPT,
    MAX_ATTEMPTS,
    SHARED_WORD,
    WHOLE,
    DrawInputs,
    Drawn,
    empty_entities,
)

__all__ = ["run", "shared"]

_WORD = 0xFFFFFFFF
_WORDS = 4
# Candidates that are listed at a time where a complement is drawn from.
_LISTED = 1 << 22


def run(inputs: DrawInputs) -> Drawn:
    """Draw sides and, unless only these are asked for, entities."""
    (B, K), device = inputs.shape, inputs.positives.device
    row = torch.arange(B, device=device).repeat_interleave(K)
    k = torch.arange(K, device=device).repeat(B)
    words = _Words(inputs, row, k)
    side = (words.of(0) >= inputs.head_below[inputs.positives[row, 1]]).to(torch.int8)
    entity = empty_entities(inputs)
    if inputs.only_sides:
        return Drawn(entity, side.view(B, K), None)
    draw = _Draw(inputs, row, k, side.long())
    failed = draw.run(entity.view(-1), words)
    level = None if inputs.level is None else draw.level.to(torch.int8).view(B, K)
    return Drawn(entity, side.view(B, K), level, failed)


def shared(inputs: DrawInputs, chunk_size: int) -> Tensor:
    """Draw K entities for each `chunk_size` positives."""
    rows, K = math.ceil(inputs.shape[0] / chunk_size), inputs.num_negs_per_pos
    row = torch.arange(rows, device=inputs.positives.device).repeat_interleave(K)
    k = torch.arange(K, device=row.device).repeat(rows)
    sizes = torch.full_like(row, min(inputs.num_heads, inputs.num_tails))
    return _uniform(_Words(inputs, row, k), sizes, SHARED_WORD).view(rows, K)


class _Words:
    """The random words of some negatives, a block of four at a time."""

    def __init__(self, inputs: DrawInputs, row: Tensor, k: Tensor) -> None:
        self.inputs, self.row, self.k = inputs, row, k
        self.number, self.block = -1, (row, row, row, row)

    def of(self, index: int) -> Tensor:
        """Return ``(n,)`` int64 words in [0, 2^32)."""
        if self.number != index // _WORDS:
            self.number = index // _WORDS
            step, number = (torch.tensor(x, device=self.row.device) for x in (self.inputs.step, self.number))
            seed = self.inputs.seed
            self.block = philox(self.row, self.k, step, number, seed & _WORD, (seed >> 32) & _WORD)
        return self.block[index % _WORDS]

    def keep(self, mask: Tensor) -> None:
        """Go on with some of the negatives."""
        self.row, self.k = self.row[mask], self.k[mask]
        self.block = tuple(word[mask] for word in self.block)  # type: ignore[assignment]  # four stay four


def _below(word: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Map words to [0, size) without bias: Lemire, ACM TOMACS 2019, doi 10.1145/3230636; say which must be refused."""
    product = word * size
    return product >> 32, ((product & _WORD) < 2**32 % size.clamp(min=1)) | (size == 0)


def _uniform(words: _Words, size: Tensor, index: int) -> Tensor:
    """Draw from [0, size) with as many words, from number `index` on, as that takes."""
    result, open_ = torch.empty_like(size), torch.arange(size.numel(), device=size.device)
    while open_.numel():
        result[open_], refused = _below(words.of(index), size[open_])
        open_ = open_[refused]
        words.keep(refused)
        index += 1
    return result


class _Draw:
    """All negatives of a batch, flat: what each is drawn from and what it must not be."""

    def __init__(self, inputs: DrawInputs, row: Tensor, k: Tensor, side: Tensor) -> None:
        self.inputs, self.row, self.k, self.side = inputs, row, k, side
        self.relation = inputs.positives[row, 1]
        self.own = inputs.positives[row, 2 * side]
        self.all = torch.where(side == 0, inputs.num_heads, inputs.num_tails)
        self.level = torch.zeros_like(row) if inputs.level is None else inputs.level.flatten().long()
        self.pool = torch.full_like(row, WHOLE)
        if inputs.pools is not None:
            self.pool = inputs.pools.table[self.level, side, self.relation]
        self.group = None if inputs.known is None else inputs.known.group(inputs.positives)[row, side]

    def run(self, entity: Tensor, words: _Words) -> int:
        """Fill `entity`; return the first negative for which there is none, or -1."""
        at = torch.arange(self.row.numel(), device=self.row.device)
        first, failed = FIRST_ATTEMPT, [at[:0]]
        while at.numel():
            words = _Words(self.inputs, self.row[at], self.k[at]) if first > FIRST_ATTEMPT else words
            at = self._redraw(entity, at, words, first)
            at = self._from_complement(entity, at, first + MAX_ATTEMPTS)
            hopeless = self.pool[at] == WHOLE
            failed.append(at[hopeless])
            at = at[~hopeless]
            self._widen(at)
            first += MAX_ATTEMPTS
        none = torch.cat(failed)
        return int(none.min()) if none.numel() else -1

    def _redraw(self, entity: Tensor, at: Tensor, words: _Words, first: int) -> Tensor:
        """Make attempts; return those for which all failed."""
        for index in range(first, first + MAX_ATTEMPTS):
            begin, size = self._range(at)
            place, refused = _below(words.of(index), size)
            candidate = self._candidates(self.pool[at], begin, place)
            if index == FIRST_ATTEMPT and self.inputs.first is not None:
                given = self.inputs.first[self.row[at] // self.inputs.chunk_size, self.k[at]]
                among_all = self.pool[at] == WHOLE
                candidate, refused = torch.where(among_all, given, candidate), refused & ~among_all
            entity[at] = candidate
            again = refused | self._excluded(at, candidate)
            at = at[again]
            if not at.numel():
                break
            words.keep(again)
        return at

    def _from_complement(self, entity: Tensor, at: Tensor, first: int) -> Tensor:
        """Draw from what is left of the lists without the known entities; return those for which nothing is left."""
        if not at.numel():
            return at
        nothing = []
        for part in self._parts(at):
            # What is left is the same for all negatives of a positive that are drawn alike.
            key = (self.row[part] * 2 + self.side[part]) * (self.pool[part].max() + 2) + self.pool[part] + 1
            _, alike = torch.unique(key, return_inverse=True)
            one = torch.empty_like(part[: int(alike.max()) + 1]).scatter_(0, alike, part)
            left, indptr = self._complements(one)
            size = indptr.diff()[alike]
            nothing.append(part[size == 0])
            some = size > 0
            words = _Words(self.inputs, self.row[part[some]], self.k[part[some]])
            entity[part[some]] = left[indptr[alike[some]] + _uniform(words, size[some], first)]
        return torch.cat(nothing)

    def _parts(self, at: Tensor) -> Iterator[Tensor]:
        """Cut negatives, positive by positive, into parts whose lists fit into memory together."""
        _, of_row, counts = torch.unique_consecutive(self.row[at], return_inverse=True, return_counts=True)
        _, size = self._range(at)
        # Each positive needs its longest list once for each side and level.
        longest = torch.zeros_like(counts).scatter_reduce(0, of_row, size, "amax")
        part = longest.cumsum(0) // _LISTED
        _, lengths = torch.unique_consecutive(part[of_row], return_counts=True)
        yield from torch.tensor_split(at, lengths.cumsum(0)[:-1].tolist())

    def _complements(self, one: Tensor) -> tuple[Tensor, Tensor]:
        """Return candidates that are not excluded, and where those of each negative in `one` begin."""
        begin, size = self._range(one)
        owner = torch.arange(one.numel(), device=one.device).repeat_interleave(size)
        place = torch.arange(owner.numel(), device=one.device) - (size.cumsum(0) - size)[owner]
        candidate = self._candidates(self.pool[one][owner], begin[owner], place)
        keep = ~self._excluded(one[owner], candidate)
        counts = torch.bincount(owner[keep], minlength=one.numel())
        return candidate[keep], torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def _range(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the list of each negative begins and how long it is."""
        pool, pools = self.pool[at], self.inputs.pools
        if pools is None:
            return torch.zeros_like(pool), self.all[at]
        listed = pool.clamp(min=0)
        begin, end = pools.indptr[listed], pools.indptr[(listed + 1).clamp(max=pools.indptr.numel() - 1)]
        return begin, torch.where(pool == WHOLE, self.all[at], end - begin)

    def _candidates(self, pool: Tensor, begin: Tensor, place: Tensor) -> Tensor:
        pools = self.inputs.pools
        if pools is None or not pools.ids.numel():
            return place
        listed = pools.ids[(begin + place).clamp(max=pools.ids.numel() - 1)]
        return torch.where(pool == WHOLE, place, listed)

    def _excluded(self, at: Tensor, candidate: Tensor) -> Tensor:
        excluded = candidate == self.own[at]
        if self.inputs.known is None or self.group is None:
            return excluded
        return excluded | self.inputs.known.contains(self.group[at], candidate)

    def _widen(self, at: Tensor) -> None:
        """Let negatives whose list is used up draw as those of level 0 do, and these from all entities."""
        narrow = at[self.level[at] > 0]
        self.pool[at] = WHOLE
        self.level[at] = 0
        if narrow.numel():
            self.pool[narrow] = self._pools(narrow)

    def _pools(self, at: Tensor) -> Tensor:
        assert self.inputs.pools is not None
        return self.inputs.pools.table[self.level[at], self.side[at], self.relation[at]]
