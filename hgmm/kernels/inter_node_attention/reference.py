"""The operator in vectorised PyTorch: any float dtype, any device, the readable definition and the fallback."""

from __future__ import annotations

import torch

from hgmm.kernels._philox import keep_scale
from hgmm.kernels._segment import EdgeIndex, gather_dot, gather_sum, segment_softmax
from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs, InterNodeResult

__all__ = ["run", "unsupported_reasons"]


def unsupported_reasons(inputs: InterNodeInputs) -> list[str]:
    """Refuse nothing."""
    return []


def run(inputs: InterNodeInputs) -> InterNodeResult:
    """Run the operator; `hgmm.kernels.inter_node_attention` states the contract."""
    edges = EdgeIndex.from_csc(inputs.csc)
    dtype = torch.promote_types(inputs.q.dtype, torch.float32)
    logits = gather_dot(edges, inputs.q.to(dtype), inputs.k.to(dtype))
    if inputs.edge_bias is not None:
        logits = logits + inputs.edge_bias.to(dtype)
    if inputs.present is not None:
        logits = logits.masked_fill(~inputs.present[edges.src].unsqueeze(-1), -torch.inf)
    attn = segment_softmax(edges, logits)
    if inputs.seed is not None:
        _, M, H = attn.shape
        position = torch.arange(inputs.csc.num_edges, device=attn.device)
        attn = attn * keep_scale(position, M, H, dropout=inputs.dropout, seed=int(inputs.seed), dtype=dtype)
    out = gather_sum(edges, attn, inputs.v.to(dtype)).to(inputs.q.dtype)
    return InterNodeResult(out, attn.to(inputs.q.dtype) if inputs.return_attention else None)
