"""A small graph with two node types, four relations, a hub, parallel edges and nodes without any edge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hgmm.dgl_compat import dgl

EDGES: dict[tuple[str, str, str], tuple[list[int], list[int]]] = {
    ("user", "buys", "item"): ([0, 1, 2, 3, 0, 2, 2, 1], [0, 0, 0, 0, 1, 2, 2, 4]),
    ("item", "bought_by", "user"): ([0, 0, 0, 0, 1, 2, 2, 4], [0, 1, 2, 3, 0, 2, 2, 1]),
    ("item", "v1.like", "item"): ([0, 3, 4, 4], [1, 1, 1, 0]),
    ("user", "never", "item"): ([], []),
}
SIZES = {"user": 4, "item": 6}
ETYPES = sorted(EDGES)
NTYPES = sorted(SIZES)


def graph() -> Any:
    return dgl.heterograph(
        {etype: tuple(torch.tensor(ids, dtype=torch.int64) for ids in ends) for etype, ends in EDGES.items()},
        num_nodes_dict=SIZES,
    )


def states(num_modalities: int, hidden_size: int, *, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        ntype: torch.randn(SIZES[ntype], num_modalities, hidden_size, generator=generator, dtype=dtype)
        for ntype in NTYPES
    }


def presence(num_modalities: int) -> dict[str, Tensor]:
    """Users lack the last modality, item 0 all, item 3 the first."""
    present = {ntype: torch.ones(SIZES[ntype], num_modalities, dtype=torch.bool) for ntype in NTYPES}
    present["user"][:, -1] = False
    present["item"][0] = False
    present["item"][3, 0] = False
    return present


def full_block(g: Any, seeds: dict[str, Tensor]) -> Any:
    """Return the block that computes one layer for `seeds` from all their in-neighbours."""
    return dgl.to_block(dgl.in_subgraph(g, seeds), seeds)
