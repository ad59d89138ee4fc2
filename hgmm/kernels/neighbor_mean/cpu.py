"""The operators on the CPU, compiled: the border to ``csrc/neighbor_mean.cpp``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from hgmm.kernels import _native
from hgmm.kernels._segment import uniform_index
from hgmm.kernels.neighbor_mean.inputs import NeighborInputs
from hgmm.typing import RelationCSC

__all__ = ["backward", "forward", "unsupported_reasons"]

# Mirrors ``struct Args`` of the source.
_Args = _native.structure(
    sizes=("num_dst", "num_src"),
    flags=(
        *("M", "D", "wide_index", "storage", "threads", "weight_columns", "mean", "need_x", "need_weight", "padding"),
    ),
    pointers=(
        *("indptr", "indices", "indptr_t", "indices_t", "edge_pos_t", "x", "present", "weight", "out", "total"),
        *("grad_out", "grad_x", "grad_weight"),
    ),
)


def unsupported_reasons(inputs: NeighborInputs) -> list[str]:
    """Say what of these inputs the compiled kernels cannot do."""
    return _native.device_reasons(inputs.x)


def _args(csc: RelationCSC, x: Tensor, present: Tensor | None, weight: Tensor | None, mean: bool) -> ctypes.Structure:
    p = _native.pointer
    return _Args(
        num_dst=csc.num_dst,
        num_src=csc.num_src,
        M=x.shape[1],
        D=x.shape[2],
        wide_index=_native.wide_index(csc),
        storage=_native.storage(x),
        threads=torch.get_num_threads(),
        weight_columns=0 if weight is None else weight.shape[1],
        mean=mean,
        indptr=p(csc.indptr),
        indices=p(csc.indices),
        indptr_t=p(csc.indptr_t),
        indices_t=p(csc.indices_t),
        edge_pos_t=p(csc.edge_pos_t),
        x=p(x),
        present=p(present),
        weight=p(weight),
    )


def forward(
    csc: RelationCSC, x: Tensor, present: Tensor | None, edge_weight: Tensor | None, mean: bool
) -> tuple[Tensor, Tensor]:
    """Run the forward pass.

    Returns
    -------
    out, total : Tensor
        ``(N_dst, M, D)`` in the dtype of `x`; ``(N_dst, M)`` sums of the weights, empty for the sum.
    """
    csc = uniform_index(csc)
    _, M, D = x.shape
    acc = _native.accumulation_dtype(x)
    out = x.new_empty(csc.num_dst, M, D, dtype=acc)
    total = x.new_empty((csc.num_dst, M) if mean else (0,), dtype=acc)
    weight = None if edge_weight is None else edge_weight.to(acc)
    # The structure holds addresses only: what they point to must outlive the call.
    stored = _native.stored(x, acc)
    args = _args(csc, stored, present, weight, mean)
    args.out, args.total = out.data_ptr(), total.data_ptr() if mean else None
    _native.call(_native.library().hgmm_neighbor_mean_forward, ctypes.byref(args))
    return out.to(x.dtype), total


def backward(
    csc: RelationCSC,
    x: Tensor,
    present: Tensor | None,
    edge_weight: Tensor | None,
    mean: bool,
    out: Tensor,
    total: Tensor,
    grad_out: Tensor,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor]:
    """Run the backward pass.

    Returns
    -------
    grad_x, grad_weight : Tensor
        Shapes and dtypes of the inputs; empty for what is not needed.
    """
    csc = uniform_index(csc)
    acc = _native.accumulation_dtype(x)
    out, grad_out, stored = out.to(acc), grad_out.to(acc), _native.stored(x, acc)
    weight = None if edge_weight is None else edge_weight.to(acc)
    grad_x = grad_out.new_empty(x.shape if need_x else (0,))
    grad_weight = grad_out.new_empty(weight.shape if need_weight and weight is not None else (0,))
    args = _args(csc, stored, present, weight, mean)
    args.need_x, args.need_weight = need_x, need_weight
    args.out, args.total, args.grad_out = out.data_ptr(), total.data_ptr(), grad_out.data_ptr()
    args.grad_x, args.grad_weight = grad_x.data_ptr(), grad_weight.data_ptr()
    _native.call(_native.library().hgmm_neighbor_mean_backward, ctypes.byref(args))
    return grad_x.to(x.dtype), grad_weight if edge_weight is None else grad_weight.to(edge_weight.dtype)
