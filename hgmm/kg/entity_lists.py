"""Lists of entities by key, such as what is known to answer each question."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["EntityLists"]


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
