"""The operators in vectorised PyTorch: any float dtype, any device, the readable definition and the fallback."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.kernels._segment import EdgeIndex, gather_sum, segment_sum
from hgmm.kernels.neighbor_mean.inputs import NeighborInputs

__all__ = ["run", "unsupported_reasons"]


def unsupported_reasons(inputs: NeighborInputs) -> list[str]:
    """Refuse nothing."""
    return []


def run(inputs: NeighborInputs) -> Tensor:
    """Run the operator; `hgmm.kernels.neighbor_mean` states the contract."""
    edges = EdgeIndex.from_csc(inputs.csc)
    x = inputs.x.to(torch.promote_types(inputs.x.dtype, torch.float32))
    weight = _weight(inputs, edges, x)
    total = gather_sum(edges, weight.unsqueeze(2), x.unsqueeze(2)).squeeze(2)
    if inputs.mean:
        weights = segment_sum(edges, weight).unsqueeze(2)
        nothing = weights == 0
        total = (total / weights.masked_fill(nothing, 1)).masked_fill(nothing, 0)
    return total.to(inputs.x.dtype)


def _weight(inputs: NeighborInputs, edges: EdgeIndex, x: Tensor) -> Tensor:
    """Return what each neighbour counts, ``(E, M)``."""
    shape = (edges.src.numel(), x.shape[1])
    weight = x.new_ones(()) if inputs.edge_weight is None else inputs.edge_weight.to(x.dtype)
    weight = weight.expand(shape)
    return weight if inputs.present is None else weight.masked_fill(~inputs.present[edges.src], 0)
