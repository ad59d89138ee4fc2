"""Triples that no negative may equal, indexed by what a corruption leaves of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["KnownTriples"]


@dataclass(frozen=True, eq=False)
class KnownTriples:
    """Sets of known entities by side, kept entity and relation.

    Corrupting the tail keeps (head, relation), and the known tails of that pair are a group; likewise the known heads
    of (relation, tail). A group has the key ``(side N + kept entity) R + relation``. For the triples (0, 0, 1),
    (0, 0, 2) and (1, 0, 2) with N = 3, R = 1, the groups 0, 1 hold heads and the groups 2, 3 tails::

        keys   = [1, 2, 3, 4]        of tails 1, 2 and of heads 0, 1
        indptr = [0, 1, 3, 5, 6]
        flat   = [0,  3, 4,  7, 8,  11]        group N + entity: {0}, {0, 1}, {1, 2}, {2}

    Attributes
    ----------
    keys : Tensor
        ``(G,)`` int64, ascending.
    indptr : Tensor
        ``(G + 1,)`` int64 rows of `flat`.
    flat : Tensor
        ``(2 n,)`` int64, ascending and distinct.
    num_entities, num_relations : int
        N and R.
    """

    keys: Tensor
    indptr: Tensor
    flat: Tensor
    num_entities: int
    num_relations: int

    @classmethod
    def build(cls, triples: Tensor, *, num_entities: int, num_relations: int) -> KnownTriples:
        """Index triples.

        Parameters
        ----------
        triples : Tensor
            ``(n, 3)`` int64 rows (head, relation, tail) within range, in any order, repetitions allowed.
        num_entities, num_relations : int
            N and R; the larger number where heads and tails are numbered apart.
        """
        N, R = num_entities, num_relations
        head, relation, tail = triples.unbind(1)
        key = torch.cat([tail * R + relation, (N + head) * R + relation])
        entity = torch.cat([head, tail])
        by_entity = torch.argsort(entity, stable=True)
        order = by_entity[torch.argsort(key[by_entity], stable=True)]
        keys, group = torch.unique_consecutive(key[order], return_inverse=True)
        flat = torch.unique_consecutive(group * N + entity[order])
        counts = torch.bincount(flat.div(max(N, 1), rounding_mode="floor"), minlength=keys.numel())
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(keys, indptr, flat, N, R)

    def to(self, device: torch.device) -> KnownTriples:
        """Return the index on another device."""
        return replace(self, keys=self.keys.to(device), indptr=self.indptr.to(device), flat=self.flat.to(device))

    def entities(self) -> Tensor:
        """Return ``(2 n,)`` int64, ascending within each group."""
        return self.flat % max(self.num_entities, 1)

    def group(self, positives: Tensor) -> Tensor:
        """Return ``(B, 2)`` int64 groups of the positives, by side; -1 where nothing is known."""
        head, relation, tail = positives.unbind(1)
        key = torch.stack([tail, self.num_entities + head], 1) * self.num_relations + relation.unsqueeze(1)
        if not self.keys.numel():
            return torch.full_like(key, -1)
        place = torch.searchsorted(self.keys, key).clamp_(max=self.keys.numel() - 1)
        return torch.where(self.keys[place] == key, place, -1)

    def contains(self, group: Tensor, entity: Tensor) -> Tensor:
        """Return a bool tensor of the shape of both that is True where the group holds the entity."""
        if not self.flat.numel():
            return torch.zeros_like(group, dtype=torch.bool)
        value = group * self.num_entities + entity
        place = torch.searchsorted(self.flat, value).clamp_(max=self.flat.numel() - 1)
        return (self.flat[place] == value) & (group >= 0)
