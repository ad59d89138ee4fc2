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
from hgmm.kernels.cross_modal_attention.inputs import CrossModalInputs, CrossModalResult, Options
from hgmm.typing import RelationCSC

__all__ = ["run"]

_OP = "cross_modal_attention"
_NUM_TENSORS = 6
_ARGUMENTS = (
    f"{CSC_SCHEMA}, Tensor k, Tensor q_node, Tensor q_modal, Tensor v, Tensor? present, Tensor? lambda_weight, "
    "str combine, bool align, float gamma, bool uniform_nodes, bool uniform_modalities"
)


def run(inputs: CrossModalInputs, backend: str) -> CrossModalResult:
    """Run the operator on a compiled backend."""
    weight = inputs.lambda_weight
    if weight is not None:
        weight = weight.to(torch.promote_types(inputs.q_node.dtype, torch.float32))
    out, lambda_sum, attn, _ = _forward(
        *inputs.csc,
        inputs.k,
        inputs.q_node,
        inputs.q_modal,
        inputs.v,
        inputs.present,
        weight,
        inputs.combine,
        inputs.align,
        inputs.gamma,
        inputs.uniform_nodes,
        inputs.uniform_modalities,
        inputs.return_attention,
        backend,
    )
    return CrossModalResult(
        out, None if weight is None else lambda_sum, attn.to(out.dtype) if inputs.return_attention else None
    )


def _run_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    csc, tensors, options, (return_attention, backend) = _split(arguments)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = implementation(_OP, backend).forward(
        RelationCSC(*contiguous(*csc)), *contiguous(*tensors), options, return_attention
    )
    return result


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    csc, (k, q_node, _, _, _, lambda_weight), _, (return_attention, _) = _split(arguments)
    _, M, H, _ = k.shape
    acc = torch.promote_types(q_node.dtype, torch.float32)
    return (
        empty(q_node, *q_node.shape),
        empty(q_node, *(() if lambda_weight is None else (csc.num_dst, M, H)), dtype=acc),
        empty(q_node, *((csc.num_edges, H) if return_attention else ()), dtype=acc),
        empty(q_node, csc.num_dst, 2 * M + 2, H, dtype=acc),
    )


def _run_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    csc, tensors, options, (*saved, need_dst, need_src, backend) = _split(arguments)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = implementation(_OP, backend).backward(
        RelationCSC(*contiguous(*csc)), *contiguous(*tensors), options, *contiguous(*saved), need_dst, need_src
    )
    return result


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, (k, q_node, *_), _, (*_, need_dst, need_src, _) = _split(arguments)
    src, dst = (k.shape if need_src else ()), (q_node.shape if need_dst else ())
    return empty(k, *src), empty(q_node, *dst), empty(q_node, *dst), empty(k, *src)


def _split(arguments: tuple[Any, ...]) -> tuple[RelationCSC, tuple[Any, ...], Options, tuple[Any, ...]]:
    tensors = NUM_CSC + _NUM_TENSORS
    options = tensors + len(Options._fields)
    return (
        RelationCSC(*arguments[:NUM_CSC]),
        arguments[NUM_CSC:tensors],
        Options(*arguments[tensors:options]),
        arguments[options:],
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    csc, tensors, ctx.options, (_, ctx.backend) = _split(inputs)
    out, lambda_sum, _, stats = output
    if ctx.options.uniform_modalities:
        ctx.mark_non_differentiable(lambda_sum)
    ctx.save_for_backward(*csc, *tensors, out, stats)


def _read(options: Options, *, through_out: bool, through_sums: bool) -> tuple[bool, bool, bool, bool]:
    """Say which of k, q_node, q_modal and v the results depend on, those whose gradient came in.

    The others get no gradient, None and not zeros, as on the reference, so that an optimiser with momentum or weight
    decay leaves alone what a variant does not use, on every backend.
    """
    aligned = options.align and options.combine != "b1"
    node = through_out and (aligned or not options.uniform_nodes)
    modal = (through_out or through_sums) and not options.uniform_modalities
    return node or modal, node, modal, through_out


def _derivative(
    ctx: Any, grad_out: Tensor | None, grad_lambda_sum: Tensor | None, *_: Any
) -> tuple[Tensor | None, ...]:
    *tensors, out, stats = ctx.saved_tensors
    # Without weights the second result is empty, and its gradient means nothing.
    has_sums = tensors[-1] is not None and grad_lambda_sum is not None
    read = _read(ctx.options, through_out=grad_out is not None, through_sums=has_sums)
    needed = ctx.needs_input_grad[NUM_CSC : NUM_CSC + 4]
    needs = tuple(need and is_read for need, is_read in zip(needed, read, strict=True))
    need_k, need_node, need_modal, need_v = needs
    grads = _backward(
        *tensors,
        *ctx.options,
        out,
        stats,
        zeros_if_none(grad_out, out).contiguous(),
        grad_lambda_sum if has_sums else None,
        need_node or need_modal,
        need_k or need_v,
        ctx.backend,
    )
    wanted = (grad if need else None for grad, need in zip(grads, needs, strict=True))
    return (*[None] * NUM_CSC, *wanted, *[None] * (2 + len(Options._fields) + 2))


_forward = define(
    _OP,
    f"({_ARGUMENTS}, bool return_attention, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    run=_run_forward,
    fake=_fake_forward,
)
_backward = define(
    f"{_OP}_backward",
    f"({_ARGUMENTS}, Tensor out, Tensor stats, Tensor grad_out, Tensor? grad_lambda_sum, bool need_dst, "
    "bool need_src, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    run=_run_backward,
    fake=_fake_backward,
)
differentiate(_forward, _derivative, _setup_context)
differentiate(_backward, refuse_second_derivatives(_OP))
