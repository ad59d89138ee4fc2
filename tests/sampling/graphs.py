"""Knowledge graphs for the samplers' tests."""

from __future__ import annotations

import torch
from torch import Tensor

N, R = 40, 5


def knowledge_graph(count: int = 300, num_entities: int = N, num_relations: int = R, seed: int = 3) -> Tensor:
    """Return ``(n, 3)`` distinct triples; the last relation has none, relation 0 has many heads and few tails."""
    rng = torch.Generator().manual_seed(seed)
    head, tail = (torch.randint(num_entities, (count,), generator=rng) for _ in range(2))
    relation = torch.randint(num_relations - 1, (count,), generator=rng)
    tail = torch.where(relation == 0, tail % 4, tail)
    return torch.unique(torch.stack([head, relation, tail], 1), dim=0)
