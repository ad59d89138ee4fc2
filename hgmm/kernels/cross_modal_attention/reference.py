"""The operator in vectorised PyTorch: any float dtype, any device, the readable definition and the fallback."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from hgmm.kernels._segment import (
    EdgeIndex,
    gather_dot,
    gather_sum,
    segment_log_softmax,
    segment_softmax,
    segment_sum,
)
from hgmm.kernels.cross_modal_attention.inputs import CrossModalInputs, CrossModalResult

__all__ = ["run", "unsupported_reasons"]


def unsupported_reasons(inputs: CrossModalInputs) -> list[str]:
    """Refuse nothing."""
    return []


def run(inputs: CrossModalInputs) -> CrossModalResult:
    """Run the operator; `hgmm.kernels.cross_modal_attention` states the contract.

    ``cross``, which never joins the modalities, is not among its rows: `hgmm.kernels.inter_node_attention` runs it.
    """
    edges, kept = EdgeIndex.from_csc(inputs.csc), None
    if inputs.present is not None:
        has_any = inputs.present.any(1)[edges.src]
        if not bool(has_any.all()):
            edges, kept = edges.keep(has_any)
    present = None if inputs.present is None else inputs.present[edges.src]  # (E, M)

    dtype = torch.promote_types(inputs.q_node.dtype, torch.float32)
    k, q_node, q_modal, v = (x.to(dtype) for x in (inputs.k, inputs.q_node, inputs.q_modal, inputs.v))
    logits = gather_dot(edges, q_node, k)  # (E, M, H)
    log_alpha = _log_alpha(edges, logits, present, uniform=inputs.uniform_nodes)
    log_lambda = _log_lambda(gather_dot(edges, q_modal, k), present, uniform=inputs.uniform_modalities)
    lambda_sum = None
    if inputs.lambda_weight is not None:
        lambda_weight = inputs.lambda_weight.to(dtype)[edges.src].unsqueeze(-1)
        lambda_sum = segment_sum(edges, lambda_weight * log_lambda.exp())
    beta, weight = _attention(inputs, edges, logits, log_lambda + log_alpha, present)
    out = gather_sum(edges, weight.expand_as(logits), v).to(inputs.q_node.dtype)
    attn = _in_csc_order(beta, kept, inputs.csc.num_edges).to(out.dtype) if inputs.return_attention else None
    return CrossModalResult(out, lambda_sum, attn)


def _attention(
    inputs: CrossModalInputs, edges: EdgeIndex, logits: Tensor, log_product: Tensor, present: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return beta and the weights ``beta p / sum_j beta p`` of the values, ``(E, 1 or M, H)``."""
    if inputs.combine == "inf":
        beta = segment_softmax(edges, _mask(log_product.exp(), present))
        return beta, beta
    log_b1 = log_product.logsumexp(1)  # (E, H)
    if inputs.combine == "b1":
        w, beta = log_b1, log_b1.exp()
    else:
        w = _edge_logits(inputs, edges, logits, log_b1, present)
        beta = segment_softmax(edges, w)
    if present is None:
        return beta, beta.unsqueeze(1)
    # beta is proportional to exp(w) in each row, so its restriction to the sources that have m is a softmax again; the
    # quotient itself would be 0 / 0 where beta underflows.
    return beta, segment_softmax(edges, _mask(w.unsqueeze(1).expand_as(logits), present))


def _edge_logits(
    inputs: CrossModalInputs, edges: EdgeIndex, logits: Tensor, log_b1: Tensor, present: Tensor | None
) -> Tensor:
    """Return w of the table, ``(E, H)``."""
    u = -_disagreement(logits, present) if inputs.align else None
    if inputs.combine == "sharp":
        return log_b1 if u is None else log_b1 + inputs.gamma * u
    b1 = log_b1.exp()
    if inputs.combine == "poster":
        b1 = segment_softmax(edges, b1)
    if u is None:
        return b1
    b2 = segment_softmax(edges, u)
    return b1 + b2 if inputs.combine == "sum" else b1 * b2


def _log_alpha(edges: EdgeIndex, logits: Tensor, present: Tensor | None, *, uniform: bool) -> Tensor:
    if not uniform:
        return segment_log_softmax(edges, _mask(logits, present))
    has = logits.new_ones(edges.src.numel(), 1) if present is None else present.to(logits.dtype)
    count = segment_sum(edges, has).index_select(0, edges.dst)
    return _mask(-count.log().unsqueeze(-1).expand_as(logits), present)


def _log_lambda(logits: Tensor, present: Tensor | None, *, uniform: bool) -> Tensor:
    return _mask(torch.zeros_like(logits) if uniform else logits, present).log_softmax(1)


def _disagreement(logits: Tensor, present: Tensor | None) -> Tensor:
    """Average ``|g_m - g_m'|`` over the pairs of modalities that the source has, ``(E, H)``; 0 without a pair."""
    columns = logits.unbind(1)
    total = torch.zeros_like(columns[0])
    for a, b in combinations(range(len(columns)), 2):
        gap = (columns[a] - columns[b]).abs()
        # Not a product: an infinite gap that does not count must not turn into NaN.
        total = total + (gap if present is None else gap.masked_fill(~(present[:, a] & present[:, b]).unsqueeze(1), 0))
    num_present = torch.tensor(len(columns)) if present is None else present.sum(1, keepdim=True)
    return total / (num_present * (num_present - 1) / 2).clamp(min=1).to(total.dtype)


def _mask(x: Tensor, present: Tensor | None) -> Tensor:
    return x if present is None else x.masked_fill(~present.unsqueeze(-1), -torch.inf)


def _in_csc_order(beta: Tensor, kept: Tensor | None, num_edges: int) -> Tensor:
    return beta if kept is None else beta.new_zeros(num_edges, *beta.shape[1:]).index_copy(0, kept, beta)
