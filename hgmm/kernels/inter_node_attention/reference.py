"""The operator in vectorised PyTorch: any float dtype, any device, the readable definition and the fallback."""

from __future__ import annotations

import torch

from hgmm.kernels._segment import EdgeIndex, gather_dot, gather_sum, segment_softmax
from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs, InterNodeResult

__all__ = ["run", "unsupported_reasons"]


def unsupported_reasons(inputs: InterNodeInputs) -> list[str]:
    """Refuse nothing."""
    return []


def run(inputs: InterNodeInputs) -> InterNodeResult:
    """Run the operator; `hgmm.kernels.inter_node_attention` states the contract."""
    edges = EdgeIndex.from_csc(inputs.csc)
    dtype = torch.promote_types(inputs.k.dtype, torch.float32)
    logits = gather_dot(edges, inputs.q.to(dtype), inputs.k.to(dtype))
    if inputs.edge_bias is not None:
        logits = logits + inputs.edge_bias.to(dtype)
    if inputs.present is not None:
        logits = logits.masked_fill(~inputs.present[edges.src].unsqueeze(-1), -torch.inf)
    attn = segment_softmax(edges, logits)
    out = gather_sum(edges, attn, inputs.v.to(dtype)).to(inputs.v.dtype)
    return InterNodeResult(out, attn.to(inputs.v.dtype) if inputs.return_attention else None)
