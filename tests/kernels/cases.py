"""Small relations and inputs for the operators' tests."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.typing import RelationCSC


class Case(NamedTuple):
    """Edges of one relation in any order, and the numbers of nodes."""

    src: tuple[int, ...]
    dst: tuple[int, ...]
    num_src: int
    num_dst: int


HUB = 40
CASES = {
    # Source 0 gets no modality from `presence`; destination 3 has no in-edge, source 5 no out-edge.
    "plain": Case((1, 2, 0, 3, 4, 2, 3, 1, 0, 4), (0, 0, 0, 1, 1, 1, 1, 2, 2, 4), 6, 5),
    "no-edges": Case((), (), 3, 2),
    "no-destinations": Case((), (), 3, 0),
    "no-sources": Case((), (), 0, 2),
    "no-nodes": Case((), (), 0, 0),
    "one-edge": Case((1,), (0,), 2, 1),
    "parallel-edges": Case((1, 1, 1, 2), (0, 0, 0, 0), 3, 1),
    "hub": Case((*range(HUB), 3, 4), (*[1] * HUB, 0, 2), HUB, 3),
}


def relation(case: Case, dtype: torch.dtype = torch.int64) -> RelationCSC:
    """Sort the edges both ways; edges of one destination keep the order of the case."""
    src, dst = torch.tensor(case.src, dtype=torch.int64), torch.tensor(case.dst, dtype=torch.int64)
    by_dst = torch.argsort(dst, stable=True)
    src, dst = src[by_dst], dst[by_dst]
    by_src = torch.argsort(src, stable=True)
    parts = (_indptr(dst, case.num_dst), src, _indptr(src, case.num_src), dst[by_src], by_src)
    return RelationCSC(*(x.to(dtype) for x in parts))


def _indptr(ids: Tensor, num_nodes: int) -> Tensor:
    counts = torch.bincount(ids, minlength=num_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def node_tensors(
    case: Case, sides: str, *, M: int = 3, H: int = 2, D: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[Tensor]:
    """One random ``(N, M, H, D)`` leaf for each letter of `sides`: ``s`` source, ``d`` destination."""
    rng = generator(seed)
    sizes = {"s": case.num_src, "d": case.num_dst}
    tensors = [torch.randn(sizes[side], M, H, D, generator=rng, dtype=torch.float64) for side in sides]
    return [x.to(dtype).requires_grad_() for x in tensors]


def presence(case: Case, kind: str, *, M: int = 3, seed: int = 1) -> Tensor | None:
    """No mask, a full one, or one with holes in which source 0 has nothing and source 1 everything."""
    if kind == "none":
        return None
    present = torch.ones(case.num_src, M, dtype=torch.bool)
    if kind == "some":
        present = torch.rand(case.num_src, M, generator=generator(seed)) < 0.6
        present[:1] = False
        present[1:2] = True
    return present


def gradients(results: tuple[Tensor | None, ...], leaves: list[Tensor], seed: int = 2) -> list[Tensor]:
    """Gradients of a random linear form of all results; zero for a leaf that none depends on."""
    rng = generator(seed)
    form = torch.zeros((), dtype=torch.float64)
    for x in results:
        if x is not None:
            form = form + (x * torch.randn(x.shape, generator=rng, dtype=torch.float64)).sum()
    if not form.requires_grad:
        return [torch.zeros_like(x) for x in leaves]
    return list(torch.autograd.grad(form, leaves, allow_unused=True, materialize_grads=True))
