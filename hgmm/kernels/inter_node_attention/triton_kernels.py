"""The operator on CUDA: the border to the kernels of `triton_passes`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hgmm.kernels._checks import attention_refusals
from hgmm.kernels._triton import device_reasons
from hgmm.kernels._triton_rows import (
    Rows,
    absent,
    accumulator,
    block,
    launch,
    log_sum_exp_parts,
    rows_of,
    sum_parts,
    two_floats,
)
from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs
from hgmm.kernels.inter_node_attention.triton_passes import (
    attention_pass,
    destination_pass,
    forward_pass,
    source_pass,
)
from hgmm.typing import RelationCSC

__all__ = ["backward", "forward", "unsupported_reasons"]

_LANES = 128


def unsupported_reasons(inputs: InterNodeInputs) -> list[str]:
    """Say what of these inputs the kernels cannot do."""
    refusals = attention_refusals(inputs.return_attention, inputs.k, inputs.q, inputs.v, inputs.edge_bias)
    return device_reasons(inputs.k) + refusals


class _Call:
    """The arguments that all kernels of one call share."""

    def __init__(
        self,
        csc: RelationCSC,
        k: Tensor,
        q: Tensor,
        present: Tensor | None,
        edge_bias: Tensor | None,
        dropout: float,
        seed: int,
    ) -> None:
        _, self.M, self.H, self.D = k.shape
        self.csc, self.query = csc, q
        self.dtype, acc = accumulator(q)
        lanes = block(self.D)
        heads = max(1, min(block(self.H), _LANES // lanes))
        self.constants: dict[str, Any] = {
            "M": self.M,
            "H": self.H,
            "D": self.D,
            "BH": heads,
            "BD": lanes,
            "ACC": acc,
            "MASKED": present is not None,
            "BIASED": edge_bias is not None,
            "DROPOUT": dropout > 0,
        }
        nothing = absent(k)
        mask = nothing if present is None else present.view(torch.uint8)
        self.options = (mask, nothing if edge_bias is None else edge_bias, *_dropout(dropout, seed))
        self.programs, self.numbers = self.M * -(-self.H // heads), heads * lanes

    def empty(self, *shape: int) -> Tensor:
        """Return a tensor for sums."""
        return self.query.new_empty(shape, dtype=self.dtype)

    def run(
        self,
        kernel: Any,
        rows: Rows,
        inputs: tuple[Tensor, ...],
        results: tuple[Tensor, ...],
        *,
        parts: bool,
        transposed: bool = False,
        **constants: Any,
    ) -> None:
        """Launch a kernel for the short rows, or for the parts of the long ones."""
        indices = (self.csc.indices_t, self.csc.edge_pos_t) if transposed else (self.csc.indices,)
        table = (rows.runs, rows.part_row, rows.part_begin, rows.part_end, rows.longest)
        launch(
            kernel,
            (rows.num_parts if parts else rows.num_runs) * self.programs,
            (*inputs, rows.indptr, *indices, *table, *self.options, *results),
            {**self.constants, **constants, "SPLIT": parts},
            numbers=self.numbers,
            small=transposed,
        )


def _dropout(dropout: float, seed: int) -> tuple[int, int, float, float]:
    signed = (seed + 2**63) % 2**64 - 2**63
    return signed, math.floor(dropout * 2**32), *two_floats(1 / (1 - dropout))


def forward(
    csc: RelationCSC,
    k: Tensor,
    q: Tensor,
    v: Tensor,
    present: Tensor | None,
    edge_bias: Tensor | None,
    dropout: float,
    seed: int,
    return_attention: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the forward pass; results as those of ``cpu.forward``."""
    call, rows = _Call(csc, k, q, present, edge_bias, dropout, seed), rows_of(csc.indptr)
    out, lse = torch.empty_like(q), call.empty(csc.num_dst, call.M, call.H)
    call.run(forward_pass, rows, (k, q, v), (out, lse), parts=False)
    if rows.num_parts:
        part_out, part_lse = call.empty(rows.num_parts, *q.shape[1:]), call.empty(rows.num_parts, call.M, call.H)
        call.run(forward_pass, rows, (k, q, v), (part_out, part_lse), parts=True)
        joined = log_sum_exp_parts(rows, part_lse)
        joined.masked_fill_(joined == -torch.inf, 0)
        lse.index_copy_(0, rows.split_row, joined)
        part_out *= (part_lse - lse[rows.part_row]).exp_().unsqueeze(3)
        out.index_copy_(0, rows.split_row, sum_parts(rows, part_out).to(out.dtype))
    attn = call.empty(csc.num_edges, call.M, call.H) if return_attention else call.empty(0)
    for parts in (False, True) if return_attention else ():
        call.run(attention_pass, rows, (k, q), (lse, attn), parts=parts)
    return out, attn, lse


def backward(
    csc: RelationCSC,
    k: Tensor,
    q: Tensor,
    v: Tensor,
    present: Tensor | None,
    edge_bias: Tensor | None,
    dropout: float,
    seed: int,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    need_dst: bool,
    need_src: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the backward pass; results as those of ``cpu.backward``."""
    call = _Call(csc, k, q, present, edge_bias, dropout, seed)
    grad_q = torch.empty_like(q) if need_dst else q.new_empty(0)
    delta = call.empty(csc.num_dst, call.M, call.H)
    grad_bias = q.new_empty((csc.num_edges, call.M, call.H) if need_bias else (0,))
    _destinations(call, (k, q, v, grad_out, out), lse, delta, grad_q, grad_bias, need_dst)
    if not need_src:
        return k.new_empty(0), grad_q, k.new_empty(0), grad_bias
    grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
    rows = rows_of(csc.indptr_t)
    inputs = (k, q, v, grad_out)
    call.run(source_pass, rows, inputs, (lse, delta, grad_k, grad_v), parts=False, transposed=True)
    if rows.num_parts:
        sums = call.empty(rows.num_parts, *k.shape[1:]), call.empty(rows.num_parts, *k.shape[1:])
        call.run(source_pass, rows, inputs, (lse, delta, *sums), parts=True, transposed=True)
        for grad, parts in zip((grad_k, grad_v), sums, strict=True):
            grad.index_copy_(0, rows.split_row, sum_parts(rows, parts).to(grad.dtype))
    return grad_k, grad_q, grad_v, grad_bias


def _destinations(
    call: _Call,
    inputs: tuple[Tensor, ...],
    lse: Tensor,
    delta: Tensor,
    grad_q: Tensor,
    grad_bias: Tensor,
    need_dst: bool,
) -> None:
    rows = rows_of(call.csc.indptr)
    need = {"NEED_QUERIES": need_dst, "NEED_BIAS": grad_bias.numel() > 0}
    call.run(destination_pass, rows, inputs, (lse, delta, grad_q, grad_bias), parts=False, **need)
    if rows.num_parts:
        sums = call.empty(*((rows.num_parts, *grad_q.shape[1:]) if need_dst else (0,)))
        call.run(destination_pass, rows, inputs, (lse, delta, sums, grad_bias), parts=True, **need)
        if need_dst:
            grad_q.index_copy_(0, rows.split_row, sum_parts(rows, sums).to(grad_q.dtype))
