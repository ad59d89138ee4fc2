"""Registration with `torch.library`: one node for torch.compile, and the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hgmm.kernels._dispatch import implementation
from hgmm.kernels._library import (
    CSC_SCHEMA,
    NUM_CSC,
    contiguous,
    define,
    differentiate,
    empty,
    refuse_second_derivatives,
    zeros_if_none,
)
from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs, InterNodeResult
from hgmm.typing import RelationCSC

__all__ = ["run"]

_OP = "inter_node_attention"
_ARGUMENTS = "Tensor? present, Tensor? edge_bias, float dropout, Tensor? seed"


def run(inputs: InterNodeInputs, backend: str) -> InterNodeResult:
    """Run the operator on a compiled backend."""
    out, attn, _ = _forward(
        *inputs.csc,
        inputs.k,
        inputs.q,
        inputs.v,
        inputs.present,
        inputs.edge_bias,
        inputs.dropout,
        inputs.seed,
        inputs.return_attention,
        backend,
    )
    return InterNodeResult(out, attn.to(out.dtype) if inputs.return_attention else None)


def _run_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    csc, (k, q, v, present, edge_bias, dropout, seed, return_attention, backend) = _split(arguments)
    tensors = contiguous(k, q, v, present, edge_bias)
    result: tuple[Tensor, Tensor, Tensor] = implementation(_OP, backend).forward(
        RelationCSC(*contiguous(*csc)), *tensors, dropout, _as_int(seed), return_attention
    )
    return result


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    csc, (k, q, _, _, _, _, _, return_attention, _) = _split(arguments)
    _, M, H, _ = k.shape
    acc = torch.promote_types(q.dtype, torch.float32)
    attn = empty(q, csc.num_edges, M, H, dtype=acc) if return_attention else empty(q, dtype=acc)
    return empty(q, *q.shape), attn, empty(q, csc.num_dst, M, H, dtype=acc)


def _run_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    csc, (k, q, v, present, edge_bias, dropout, seed, out, lse, grad_out, *needs, backend) = _split(arguments)
    k, q, v, present, edge_bias, out, lse, grad_out = contiguous(k, q, v, present, edge_bias, out, lse, grad_out)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = implementation(_OP, backend).backward(
        RelationCSC(*contiguous(*csc)), k, q, v, present, edge_bias, dropout, _as_int(seed), out, lse, grad_out, *needs
    )
    return result


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    csc, (k, q, _, _, _, _, _, _, _, _, need_dst, need_src, need_bias, _) = _split(arguments)
    src = tuple(k.shape) if need_src else ()
    bias = (csc.num_edges, *k.shape[1:3]) if need_bias else ()
    return empty(k, *src), empty(q, *(q.shape if need_dst else ())), empty(k, *src), empty(q, *bias)


def _split(arguments: tuple[Any, ...]) -> tuple[RelationCSC, tuple[Any, ...]]:
    return RelationCSC(*arguments[:NUM_CSC]), arguments[NUM_CSC:]


def _as_int(seed: Tensor | None) -> int:
    return 0 if seed is None else int(seed)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    csc, (k, q, v, present, edge_bias, dropout, seed, _, backend) = _split(inputs)
    out, _, lse = output
    ctx.save_for_backward(*csc, k, q, v, present, edge_bias, seed, out, lse)
    ctx.dropout, ctx.backend = dropout, backend


def _derivative(ctx: Any, grad_out: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    csc, (k, q, v, present, edge_bias, seed, out, lse) = _split(ctx.saved_tensors)
    needs = ctx.needs_input_grad[NUM_CSC : NUM_CSC + 5]
    need_k, need_q, need_v, _, need_bias = needs
    grad_k, grad_q, grad_v, grad_bias = _backward(
        *csc, k, q, v, present, edge_bias, ctx.dropout, seed, out, lse,
        zeros_if_none(grad_out, out).contiguous(), need_q, need_k or need_v, need_bias, ctx.backend,
    )  # fmt: skip
    grads = (grad_k, grad_q, grad_v, None, grad_bias)
    wanted = (grad if need else None for grad, need in zip(grads, needs, strict=True))
    return (*[None] * NUM_CSC, *wanted, None, None, None, None)


_forward = define(
    _OP,
    f"({CSC_SCHEMA}, Tensor k, Tensor q, Tensor v, {_ARGUMENTS}, bool return_attention, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    run=_run_forward,
    fake=_fake_forward,
)
_backward = define(
    f"{_OP}_backward",
    f"({CSC_SCHEMA}, Tensor k, Tensor q, Tensor v, {_ARGUMENTS}, Tensor out, Tensor lse, Tensor grad_out, "
    "bool need_dst, bool need_src, bool need_bias, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    run=_run_backward,
    fake=_fake_backward,
)
differentiate(_forward, _derivative, _setup_context)
differentiate(_backward, refuse_second_derivatives(_OP))
