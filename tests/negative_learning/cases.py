from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hgmm.negative_learning import NeighborReference

N, P, C = 40, 4, 5


@dataclass
class Nodes:
    """Branch logits of some nodes, their labels, which branches they have, and a neighbourhood reference."""

    logits: Tensor
    fused: Tensor
    target: Tensor
    available: Tensor
    reference: NeighborReference

    def rows(self, index: Tensor | slice) -> Nodes:
        reference = NeighborReference(*(x[index] for x in self.reference))
        return Nodes(self.logits[index], self.fused[index], self.target[index], self.available[index], reference)


def nodes(dtype: torch.dtype = torch.float64, *, num_branches: int = P, seed: int = 0) -> Nodes:
    """Return random nodes; the first has no branch, the second has one, and every fourth has no neighbour."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(2).to(dtype)

    logits = draw(N, num_branches, C)
    available = torch.rand(N, num_branches, generator=generator) < 0.8
    available[:2] = False
    available[1, -1] = True
    has_neighbors = torch.arange(N) % 4 > 0
    expected = draw(N, C).softmax(1) * has_neighbors.unsqueeze(1)
    fused = (logits * available.unsqueeze(2)).sum(1) / available.sum(1, keepdim=True).clamp(min=1)
    target = torch.randint(C, (N,), generator=generator)
    return Nodes(logits, fused, target, available, NeighborReference(expected, has_neighbors))
