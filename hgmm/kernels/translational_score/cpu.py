"""The operator on the CPU, compiled: the border to ``csrc/translational_score.cpp``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from hgmm.kernels import _native
from hgmm.kernels.translational_score.inputs import NORMS, TranslationalInputs

__all__ = ["backward", "forward", "unsupported_reasons"]

# Mirrors ``struct Args`` of the source.
_Args = _native.structure(
    sizes=("B", "K", "N"),
    flags=("S", "A", "M", "D", "P", "norm", "wide_index", "storage", "threads", "need_query", "need_table", "padding"),
    pointers=("query", "table", "entity", "side", "pairs", "out", "grad_out", "grad_query", "grad_table", "signs"),
)


def unsupported_reasons(inputs: TranslationalInputs) -> list[str]:
    """Say what of these inputs the compiled kernels cannot do."""
    return _native.device_reasons(inputs.query)


def _args(inputs: TranslationalInputs, query: Tensor, table: Tensor, signs: Tensor) -> ctypes.Structure:
    B, S, A, D = query.shape
    N, M, _ = table.shape
    p = _native.pointer
    return _Args(
        B=B,
        K=inputs.entity.shape[1],
        N=N,
        S=S,
        A=A,
        M=M,
        D=D,
        P=inputs.pairs.shape[1],
        norm=NORMS.index(inputs.norm),
        wide_index=inputs.entity.dtype == torch.int64,
        storage=_native.storage(table),
        threads=torch.get_num_threads(),
        query=p(query),
        table=p(table),
        entity=p(inputs.entity),
        side=p(inputs.side),
        pairs=p(inputs.pairs),
        signs=p(signs) if signs.numel() else None,
    )


def _vectors(inputs: TranslationalInputs) -> tuple[Tensor, Tensor]:
    """Return queries and table as the library reads them."""
    acc = _native.accumulation_dtype(inputs.query)
    return inputs.query.to(acc), _native.stored(inputs.table, acc)


def forward(inputs: TranslationalInputs, signs: Tensor) -> Tensor:
    """Run the forward pass, and write the `sign_words` of the problem to `signs`, unless it is empty.

    Returns
    -------
    Tensor
        ``(B, K, P)`` in the dtype of `query`.
    """
    # The structure holds addresses only: what they point to must outlive the call.
    query, table = _vectors(inputs)
    out = query.new_empty(*inputs.entity.shape, inputs.pairs.shape[1])
    args = _args(inputs, query, table, signs)
    args.out = out.data_ptr()
    _native.call(_native.library().hgmm_translational_score_forward, ctypes.byref(args))
    return out.to(inputs.query.dtype)


def backward(
    inputs: TranslationalInputs, signs: Tensor, out: Tensor, grad_out: Tensor, need_query: bool, need_table: bool
) -> tuple[Tensor, Tensor]:
    """Run the backward pass, from what the forward pass kept in `signs` if it is not empty.

    Returns
    -------
    grad_query, grad_table : Tensor
        Shapes and dtypes of the inputs; empty for what is not needed.
    """
    query, table = _vectors(inputs)
    out, grad_out = out.to(query.dtype), grad_out.to(query.dtype)
    grad_query = query.new_empty(query.shape if need_query else (0,))
    grad_table = query.new_empty(table.shape if need_table else (0,))
    args = _args(inputs, query, table, signs)
    args.need_query, args.need_table = need_query, need_table
    args.out, args.grad_out = out.data_ptr(), grad_out.data_ptr()
    args.grad_query, args.grad_table = grad_query.data_ptr(), grad_table.data_ptr()
    _native.call(_native.library().hgmm_translational_score_backward, ctypes.byref(args))
    return grad_query.to(inputs.query.dtype), grad_table.to(inputs.table.dtype)
