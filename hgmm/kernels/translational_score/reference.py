"""The operator in vectorised PyTorch: any float dtype, any device, the readable definition and the fallback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from hgmm.kernels._segment import block_rows
from hgmm.kernels.translational_score.inputs import TranslationalInputs, check_ids

__all__ = ["run", "unsupported_reasons"]


def unsupported_reasons(inputs: TranslationalInputs) -> list[str]:
    """Refuse nothing."""
    return []


def run(inputs: TranslationalInputs) -> Tensor:
    """Run the operator; `hgmm.kernels.translational_score` states the contract."""
    query, table, *ids, norm = inputs
    check_ids(query, table, *ids)
    acc = torch.promote_types(query.dtype, torch.float32)
    # torch leaves apply untyped.
    out: Tensor = _Distances.apply(query.to(acc), table.to(acc), *ids, norm)  # type: ignore[no-untyped-call]
    return out.to(query.dtype)


def _distance(x: Tensor, norm: str) -> Tensor:
    """Return the norms of the vectors along the last axis."""
    if norm == "1":
        return x.abs().sum(-1)
    if norm == "2":
        return x.square().sum(-1).sqrt()
    return _parts(x).square().sum(-2).sqrt().sum(-1)


def _slope(x: Tensor, norm: str) -> Tensor:
    """Return the derivative of `_distance` by `x`, 0 where there is none."""
    if norm == "1":
        return x.sign()
    if norm == "2":
        return x * _inverse_root(x.square().sum(-1, keepdim=True))
    parts = _parts(x)
    return (parts * _inverse_root(parts.square().sum(-2, keepdim=True))).flatten(-2)


def _parts(x: Tensor) -> Tensor:
    """Put real and imaginary parts on an axis of their own."""
    return x.view(*x.shape[:-1], 2, x.shape[-1] // 2)


def _inverse_root(square: Tensor) -> Tensor:
    zero = square == 0
    return square.masked_fill(zero, 1).sqrt().reciprocal().masked_fill(zero, 0)


def _blocks(
    query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield a run of the B x K x P distances, and for each the row of ``(B S A, D)`` and the row of ``(N M, D)``."""
    _, S, A, D = query.shape
    _, K = entity.shape
    _, P, _ = pairs.shape
    entity, side = entity.reshape(-1), side.reshape(-1).long()
    rows = block_rows(query.new_empty(0, P, D))
    for first in range(0, entity.numel(), rows):
        last = min(first + rows, entity.numel())
        b = torch.arange(first, last, device=entity.device) // K
        s = side[first:last]
        a, m = pairs[s].unbind(-1)
        of_query = (b * S + s).unsqueeze(1) * A + a
        of_table = entity[first:last].long().unsqueeze(1) * table.shape[1] + m
        yield slice(first * P, last * P), of_query.view(-1), of_table.view(-1)


class _Distances(torch.autograd.Function):
    """Keeps its inputs only, and forms the differences again, block by block, in the backward pass."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, norm: str
    ) -> Tensor:
        ctx.save_for_backward(query, table, entity, side, pairs)
        ctx.norm = norm  # type: ignore[attr-defined]  # torch's context takes any attribute
        q, t = (x.reshape(-1, x.shape[-1]) for x in (query, table))
        out = query.new_empty(*entity.shape, pairs.shape[1])
        for run_of, i, j in _blocks(query, table, entity, side, pairs):
            out.view(-1)[run_of] = _distance(q.index_select(0, i).sub_(t.index_select(0, j)), norm)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, table, *ids = ctx.saved_tensors
        need_query, need_table, *_ = ctx.needs_input_grad
        q, t, grad = query.reshape(-1, query.shape[-1]), table.reshape(-1, table.shape[-1]), grad.reshape(-1)
        grad_q, grad_t = torch.zeros_like(q), torch.zeros_like(t)
        for run_of, i, j in _blocks(query, table, *ids):
            change = _slope(q.index_select(0, i) - t.index_select(0, j), ctx.norm) * grad[run_of].unsqueeze(1)
            if need_query:
                grad_q.index_add_(0, i, change)
            if need_table:
                grad_t.index_add_(0, j, change, alpha=-1)
        return (
            grad_q.view_as(query) if need_query else None,
            grad_t.view_as(table) if need_table else None,
            *[None] * 4,
        )
