"""Registration with `torch.library`: one node for torch.compile, and the backward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hgmm.kernels._dispatch import implementation
from hgmm.kernels._library import contiguous, define, differentiate, empty, refuse_second_derivatives
from hgmm.kernels.translational_score.inputs import TranslationalInputs, check_ids

__all__ = ["run"]

_OP = "translational_score"
_ARGUMENTS = "Tensor query, Tensor table, Tensor entity, Tensor side, Tensor pairs, str norm"


def run(inputs: TranslationalInputs, backend: str) -> Tensor:
    """Run the operator on a compiled backend."""
    out: Tensor = _forward(*inputs, backend)
    return out


def _run_forward(*arguments: Any) -> Tensor:
    *tensors, norm, backend = arguments
    # Compiled code would read what lies beside the table; here ids have values even under torch.compile.
    check_ids(*tensors)
    result: Tensor = implementation(_OP, backend).forward(TranslationalInputs._make((*contiguous(*tensors), norm)))
    return result


def _fake_forward(*arguments: Any) -> Tensor:
    query, _, entity, _, pairs, _, _ = arguments
    return empty(query, *entity.shape, pairs.shape[1])


def _run_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *tensors, norm, out, grad_out, need_query, need_table, backend = arguments
    result: tuple[Tensor, Tensor] = implementation(_OP, backend).backward(
        TranslationalInputs._make((*contiguous(*tensors), norm)), *contiguous(out, grad_out), need_query, need_table
    )
    return result


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    query, table, *_, need_query, need_table, _ = arguments
    return empty(query, *(query.shape if need_query else ())), empty(table, *(table.shape if need_table else ()))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.norm, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output)


def _derivative(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out = ctx.saved_tensors
    need_query, need_table, *_ = ctx.needs_input_grad
    grad_query, grad_table = _backward(*tensors, ctx.norm, out, grad_out, need_query, need_table, ctx.backend)
    return grad_query if need_query else None, grad_table if need_table else None, *[None] * 5


_forward = define(_OP, f"({_ARGUMENTS}, str backend) -> Tensor", run=_run_forward, fake=_fake_forward)
_backward = define(
    f"{_OP}_backward",
    f"({_ARGUMENTS}, Tensor out, Tensor grad_out, bool need_query, bool need_table, str backend) -> (Tensor, Tensor)",
    run=_run_backward,
    fake=_fake_backward,
)
differentiate(_forward, _derivative, _setup_context)
differentiate(_backward, refuse_second_derivatives(_OP))
