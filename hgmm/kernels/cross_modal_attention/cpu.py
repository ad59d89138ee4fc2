"""The operator on the CPU, compiled: the border to ``csrc/cross_modal_attention.cpp``."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from hgmm.kernels import _native
from hgmm.kernels._segment import uniform_index
from hgmm.kernels.cross_modal_attention.inputs import (
    COMPILED_COMBINES,
    CrossModalInputs,
    Options,
    compiled_refusals,
)
from hgmm.typing import RelationCSC

__all__ = ["backward", "forward", "unsupported_reasons"]

# Mirrors ``struct Args`` of the source.
_Args = _native.structure(
    sizes=("num_dst", "num_src"),
    flags=(
        *("M", "H", "D", "wide_index", "storage", "combine", "align", "uniform_nodes", "uniform_modalities", "threads"),
        *("need_dst", "need_src"),
    ),
    numbers={"gamma": ctypes.c_double},
    pointers=(
        *("indptr", "indices", "indptr_t", "indices_t", "k", "q_node", "q_modal", "v", "present", "lambda_weight"),
        *("out", "lambda_sum", "attn", "stats", "grad_out", "grad_lambda_sum", "records"),
        *("grad_k", "grad_q_node", "grad_q_modal", "grad_v"),
    ),
)


@cache
def _record_size(M: int, H: int, lambda_sum: bool) -> int:
    """Return the numbers of a destination that the passes of the backward hand on."""
    function = _native.library().hgmm_cross_modal_record_size
    function.restype = ctypes.c_int64
    return int(function(M, H, int(lambda_sum)))


def unsupported_reasons(inputs: CrossModalInputs) -> list[str]:
    """Say what of these inputs the compiled kernels cannot do."""
    return _native.device_reasons(inputs.k) + compiled_refusals(inputs)


def _args(
    csc: RelationCSC,
    k: Tensor,
    q_node: Tensor,
    q_modal: Tensor,
    v: Tensor,
    present: Tensor | None,
    lambda_weight: Tensor | None,
    options: Options,
) -> ctypes.Structure:
    _, M, H, D = k.shape
    p = _native.pointer
    return _Args(
        num_dst=csc.num_dst,
        num_src=csc.num_src,
        M=M,
        H=H,
        D=D,
        wide_index=_native.wide_index(csc),
        storage=_native.storage(k),
        combine=COMPILED_COMBINES[options.combine],
        align=options.align,
        uniform_nodes=options.uniform_nodes,
        uniform_modalities=options.uniform_modalities,
        threads=torch.get_num_threads(),
        gamma=options.gamma,
        indptr=p(csc.indptr),
        indices=p(csc.indices),
        indptr_t=p(csc.indptr_t),
        indices_t=p(csc.indices_t),
        k=p(k),
        q_node=p(q_node),
        q_modal=p(q_modal),
        v=p(v),
        present=p(present),
        lambda_weight=p(lambda_weight),
    )


def forward(
    csc: RelationCSC,
    k: Tensor,
    q_node: Tensor,
    q_modal: Tensor,
    v: Tensor,
    present: Tensor | None,
    lambda_weight: Tensor | None,
    options: Options,
    return_attention: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the forward pass.

    Returns
    -------
    out, lambda_sum, attn, stats : Tensor
        ``(N_dst, M, H, D)`` in the queries' dtype; ``(N_dst, M, H)``, ``(E, H)``, empty if not asked for; and
        ``(N_dst, 2 M + 2, H)``: by head the logarithms of the sums of the softmaxes of g and w for each modality, of u
        and of b1.
    """
    csc = uniform_index(csc)
    _, M, H, _ = k.shape
    acc = _native.accumulation_dtype(q_node)
    k, v = _native.stored(k, acc), _native.stored(v, acc)
    node, modal = q_node.to(acc), q_modal.to(acc)
    out = torch.empty_like(node)
    stats = node.new_empty(csc.num_dst, 2 * M + 2, H)
    lambda_sum = node.new_empty((0,) if lambda_weight is None else (csc.num_dst, M, H))
    attn = node.new_empty((csc.num_edges, H) if return_attention else (0,))
    args = _args(csc, k, node, modal, v, present, lambda_weight, options)
    args.out, args.stats = out.data_ptr(), stats.data_ptr()
    args.lambda_sum = None if lambda_weight is None else lambda_sum.data_ptr()
    args.attn = attn.data_ptr() if return_attention else None
    _native.call(_native.library().hgmm_cross_modal_forward, ctypes.byref(args))
    return out.to(q_node.dtype), lambda_sum, attn, stats


def backward(
    csc: RelationCSC,
    k: Tensor,
    q_node: Tensor,
    q_modal: Tensor,
    v: Tensor,
    present: Tensor | None,
    lambda_weight: Tensor | None,
    options: Options,
    out: Tensor,
    stats: Tensor,
    grad_out: Tensor,
    grad_lambda_sum: Tensor | None,
    need_dst: bool,
    need_src: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the backward pass.

    Returns
    -------
    grad_k, grad_q_node, grad_q_modal, grad_v : Tensor
        Shapes and dtypes of the inputs; empty for the side that is not needed.
    """
    csc = uniform_index(csc)
    _, M, H, _ = k.shape
    acc = _native.accumulation_dtype(q_node)
    stored_k, stored_v = _native.stored(k, acc), _native.stored(v, acc)
    node, modal, out, grad_out = (x.to(acc) for x in (q_node, q_modal, out, grad_out))
    src, dst = (k.shape if need_src else (0,)), (q_node.shape if need_dst else (0,))
    grad_k, grad_v = node.new_empty(src), node.new_empty(src)
    grad_node, grad_modal = node.new_empty(dst), node.new_empty(dst)
    size = _record_size(M, H, grad_lambda_sum is not None)
    records = node.new_empty((csc.num_dst, size) if need_src else (0,))
    args = _args(csc, stored_k, node, modal, stored_v, present, lambda_weight, options)
    args.out, args.stats, args.grad_out = out.data_ptr(), stats.data_ptr(), grad_out.data_ptr()
    args.grad_lambda_sum = _native.pointer(grad_lambda_sum)
    args.records, args.need_dst, args.need_src = records.data_ptr(), need_dst, need_src
    args.grad_k, args.grad_v = grad_k.data_ptr(), grad_v.data_ptr()
    args.grad_q_node, args.grad_q_modal = grad_node.data_ptr(), grad_modal.data_ptr()
    _native.call(_native.library().hgmm_cross_modal_backward, ctypes.byref(args))
    return grad_k.to(k.dtype), grad_node.to(q_node.dtype), grad_modal.to(q_modal.dtype), grad_v.to(v.dtype)
