"""Lists of entities by key, such as what is known to answer each question."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["EntityLists", "KnownAnswers", "question_numbers"]


class EntityLists(NamedTuple):
    """Entities by key: those of ``keys[i]`` are ``entities[i]``, keys ascending and repeated."""

    keys: Tensor
    entities: Tensor

    @classmethod
    def of(cls, keys: Tensor, entities: Tensor) -> EntityLists:
        """Sort entities by their keys, ``(n,)`` int64 each; those of one key keep their order."""
        keys, order = keys.sort(stable=True)
        return cls(keys.contiguous(), entities[order])

    def entries(self, asked: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the places ``(row, entity)`` of a matrix with one row for each key in `asked`."""
        begin = torch.searchsorted(self.keys, asked.contiguous())
        length = torch.searchsorted(self.keys, asked.contiguous(), right=True) - begin
        rows = torch.arange(len(asked)).repeat_interleave(length)
        first = (length.cumsum(0) - length).repeat_interleave(length)
        places = begin.repeat_interleave(length) + torch.arange(len(rows)) - first
        return rows.to(device), self.entities[places].to(device)


class KnownAnswers:
    """What is known to complete a question, which is a relation and one end.

    Parameters
    ----------
    known : Tensor
        ``(n, 3)`` int64 true triples, in main memory.
    num_entities : int
        E.
    """

    def __init__(self, known: Tensor, num_entities: int) -> None:
        self._num_entities = num_entities
        self._lists = [
            EntityLists.of(question_numbers(known, side, num_entities), known[:, 2 * side]) for side in range(2)
        ]

    def mask(self, triples: Tensor, side: int) -> Tensor:
        """Return ``(n, E)`` bool: what completes triples ``(n, 3)`` without their head (side 0) or tail (1)."""
        mask = torch.zeros(len(triples), self._num_entities, dtype=torch.bool, device=triples.device)
        asked = question_numbers(triples, side, self._num_entities).cpu()
        mask[self._lists[side].entries(asked, triples.device)] = True
        return mask


def question_numbers(triples: Tensor, side: int, num_entities: int) -> Tensor:
    """Return ``(n,)`` numbers of triples without their head (side 0) or tail (1): by relation first, then the end."""
    return triples[:, 1] * num_entities + triples[:, 2 - 2 * side]
