"""Registration with `torch.library`: one node for torch.compile, and the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hgmm.kernels._dispatch import implementation
from hgmm.kernels._library import contiguous, define, differentiate, empty, refuse_second_derivatives
from hgmm.kernels.translational_score.inputs import TranslationalInputs, check_ids, sign_words

__all__ = ["run"]

_OP = "translational_score"
_ARGUMENTS = "Tensor query, Tensor table, Tensor entity, Tensor side, Tensor pairs, str norm"


def run(inputs: TranslationalInputs, backend: str) -> Tensor:
    """Run the operator on a compiled backend."""
    used = torch.is_grad_enabled() and (inputs.query.requires_grad or inputs.table.requires_grad)
    words = sign_words(inputs) if used and backend == "cpu" else 0
    out: Tensor = _forward(*inputs, words, backend)[0]
    return out


def _run_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *tensors, norm, words, backend = arguments
    # Compiled code would read what lies beside the table; here ids have values even under torch.compile.
    check_ids(*tensors)
    inputs = TranslationalInputs._make((*contiguous(*tensors), norm))
    signs = empty(inputs.entity, words, dtype=torch.int32)
    return implementation(_OP, backend).forward(inputs, signs), signs


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    query, _, entity, _, pairs, _, words, _ = arguments
    return empty(query, *entity.shape, pairs.shape[1]), empty(entity, words, dtype=torch.int32)


def _run_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *tensors, norm, signs, out, grad_out, need_query, need_table, backend = arguments
    result: tuple[Tensor, Tensor] = implementation(_OP, backend).backward(
        TranslationalInputs._make((*contiguous(*tensors), norm)),
        *contiguous(signs, out, grad_out),
        need_query,
        need_table,
    )
    return result


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    query, table, *_, need_query, need_table, _ = arguments
    return empty(query, *(query.shape if need_query else ())), empty(table, *(table.shape if need_table else ()))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.norm, _, ctx.backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, *output)


def _derivative(ctx: Any, grad_out: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, out, signs = ctx.saved_tensors
    need_query, need_table, *_ = ctx.needs_input_grad
    grad_query, grad_table = _backward(*tensors, ctx.norm, signs, out, grad_out, need_query, need_table, ctx.backend)
    return grad_query if need_query else None, grad_table if need_table else None, *[None] * 6


_forward = define(
    _OP, f"({_ARGUMENTS}, int sign_words, str backend) -> (Tensor, Tensor)", run=_run_forward, fake=_fake_forward
)
_backward = define(
    f"{_OP}_backward",
    f"({_ARGUMENTS}, Tensor signs, Tensor out, Tensor grad_out, bool need_query, bool need_table, str backend)"
    " -> (Tensor, Tensor)",
    run=_run_backward,
    fake=_fake_backward,
)
differentiate(_forward, _derivative, _setup_context)
differentiate(_backward, refuse_second_derivatives(_OP))
