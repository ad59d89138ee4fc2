"""A knowledge graph small enough that a whole run takes a fraction of a second, and whose triples follow a rule."""

from __future__ import annotations

import torch

from hgmm.graph import MultimodalGraph
from hgmm.kg import TripleSet

ENTITIES, RELATIONS = 20, 2


def make_knowledge_graph(*, holes: bool = False) -> MultimodalGraph:
    """``e -next-> e + 1`` and ``e -opposite-> e + 10`` on a circle, with an image that tells the place on it."""
    e = torch.arange(ENTITIES)
    rows = torch.cat(
        [torch.stack([e, torch.full_like(e, r), (e + step) % ENTITIES], 1) for r, step in enumerate((1, 10))]
    )
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    angle = 2 * torch.pi * e / ENTITIES
    names = tuple(f"e{i}" for i in range(ENTITIES))
    triples = TripleSet(rows[:30], rows[30:35], rows[35:], names, ("next", "opposite"))
    image = torch.stack([angle.sin(), angle.cos()], 1)
    present = {"image": e % 4 > 0} if holes else None
    return MultimodalGraph.from_triples(triples, features={"image": image}, present=present, name="circle")
