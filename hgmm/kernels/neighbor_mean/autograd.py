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
)
from hgmm.kernels.neighbor_mean.inputs import NeighborInputs
from hgmm.typing import RelationCSC

__all__ = ["run"]

_OP = "neighbor_mean"
_ARGUMENTS = f"{CSC_SCHEMA}, Tensor x, Tensor? present, Tensor? edge_weight, bool mean"


def run(inputs: NeighborInputs, backend: str) -> Tensor:
    """Run the operator on a compiled backend."""
    out: Tensor = _forward(*inputs.csc, inputs.x, inputs.present, inputs.edge_weight, inputs.mean, backend)[0]
    return out


def _run_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    csc, (x, present, edge_weight, mean, backend) = _split(arguments)
    tensors = contiguous(x, present, edge_weight)
    result: tuple[Tensor, Tensor] = implementation(_OP, backend).forward(RelationCSC(*contiguous(*csc)), *tensors, mean)
    return result


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    csc, (x, _, _, mean, _) = _split(arguments)
    _, M, D = x.shape
    acc = torch.promote_types(x.dtype, torch.float32)
    return empty(x, csc.num_dst, M, D), empty(x, *((csc.num_dst, M) if mean else ()), dtype=acc)


def _run_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    csc, (x, present, edge_weight, mean, out, total, grad_out, need_x, need_weight, backend) = _split(arguments)
    x, present, edge_weight, out, total, grad_out = contiguous(x, present, edge_weight, out, total, grad_out)
    result: tuple[Tensor, Tensor] = implementation(_OP, backend).backward(
        RelationCSC(*contiguous(*csc)), x, present, edge_weight, mean, out, total, grad_out, need_x, need_weight
    )
    return result


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    _, (x, _, edge_weight, _, _, _, _, need_x, need_weight, _) = _split(arguments)
    return empty(x, *(x.shape if need_x else ())), empty(x, *(edge_weight.shape if need_weight else ()))


def _split(arguments: tuple[Any, ...]) -> tuple[RelationCSC, tuple[Any, ...]]:
    return RelationCSC(*arguments[:NUM_CSC]), arguments[NUM_CSC:]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    csc, (x, present, edge_weight, ctx.mean, ctx.backend) = _split(inputs)
    ctx.save_for_backward(*csc, x, present, edge_weight, *output)


def _derivative(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    csc, (x, present, edge_weight, out, total) = _split(ctx.saved_tensors)
    need_x, _, need_weight = ctx.needs_input_grad[NUM_CSC : NUM_CSC + 3]
    grad_x, grad_weight = _backward(
        *csc, x, present, edge_weight, ctx.mean, out, total, grad_out, need_x, need_weight, ctx.backend
    )
    return (
        *[None] * NUM_CSC,
        grad_x if need_x else None,
        None,
        grad_weight if need_weight else None,
        None,
        None,
    )


_forward = define(
    _OP,
    f"({_ARGUMENTS}, str backend) -> (Tensor, Tensor)",
    run=_run_forward,
    fake=_fake_forward,
)
_backward = define(
    f"{_OP}_backward",
    f"({_ARGUMENTS}, Tensor out, Tensor total, Tensor grad_out, bool need_x, bool need_weight, str backend)"
    " -> (Tensor, Tensor)",
    run=_run_backward,
    fake=_fake_backward,
)
differentiate(_forward, _derivative, _setup_context)
differentiate(_backward, refuse_second_derivatives(_OP))
