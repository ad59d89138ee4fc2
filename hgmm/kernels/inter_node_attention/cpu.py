"""The operator on the CPU, compiled: the border to ``csrc/inter_node_attention.cpp``."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from hgmm.kernels import _native
from hgmm.kernels._checks import MAX_MODALITIES, attention_refusals
from hgmm.kernels._segment import uniform_index
from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs
from hgmm.typing import RelationCSC

__all__ = ["backward", "forward", "unsupported_reasons"]

# Mirrors ``struct Args`` of the source.
_Args = _native.structure(
    sizes=("num_dst", "num_src"),
    flags=("M", "H", "D", "wide_index", "storage", "threads", "need_dst", "need_src", "need_bias", "dropout"),
    numbers={
        "drop_below": ctypes.c_uint32,
        "padding": ctypes.c_uint32,
        "seed": ctypes.c_uint64,
        "keep_scale": ctypes.c_double,
    },
    pointers=(
        *("indptr", "indices", "indptr_t", "indices_t", "edge_pos_t", "k", "q", "v", "present", "edge_bias"),
        *("out", "attn", "lse", "grad_out", "records", "grad_k", "grad_q", "grad_v", "grad_bias"),
    ),
)


def unsupported_reasons(inputs: InterNodeInputs) -> list[str]:
    """Say what of these inputs the compiled kernels cannot do."""
    reasons = _native.device_reasons(inputs.k)
    if inputs.k.shape[1] > MAX_MODALITIES:
        reasons.append(f"at most {MAX_MODALITIES} modalities, got {inputs.k.shape[1]}")
    return reasons + attention_refusals(inputs.return_attention, inputs.k, inputs.q, inputs.v, inputs.edge_bias)


def _args(
    csc: RelationCSC,
    k: Tensor,
    q: Tensor,
    v: Tensor,
    present: Tensor | None,
    edge_bias: Tensor | None,
    dropout: float,
    seed: int,
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
        threads=torch.get_num_threads(),
        dropout=dropout > 0,
        drop_below=math.floor(dropout * 2**32),
        seed=seed % 2**64,
        keep_scale=1 / (1 - dropout),
        indptr=p(csc.indptr),
        indices=p(csc.indices),
        indptr_t=p(csc.indptr_t),
        indices_t=p(csc.indices_t),
        edge_pos_t=p(csc.edge_pos_t),
        k=p(k),
        q=p(q),
        v=p(v),
        present=p(present),
        edge_bias=p(edge_bias),
    )


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
    """Run the forward pass.

    Returns
    -------
    out, attn, lse : Tensor
        ``(N_dst, M, H, D)`` in the queries' dtype; ``(E, M, H)`` after dropout, empty if not asked for; and
        ``(N_dst, M, H)`` logarithms of the softmaxes' sums.
    """
    csc = uniform_index(csc)
    _, M, H, _ = k.shape
    acc = _native.accumulation_dtype(q)
    query, bias = q.to(acc), None if edge_bias is None else edge_bias.to(acc)
    stored_k, stored_v = _native.stored(k, acc), _native.stored(v, acc)
    out, lse = torch.empty_like(query), query.new_empty(csc.num_dst, M, H)
    attn = query.new_empty((csc.num_edges, M, H) if return_attention else (0,))
    args = _args(csc, stored_k, query, stored_v, present, bias, dropout, seed)
    args.out, args.lse = out.data_ptr(), lse.data_ptr()
    args.attn = attn.data_ptr() if return_attention else None
    _native.call(_native.library().hgmm_inter_node_forward, ctypes.byref(args))
    return out.to(q.dtype), attn, lse


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
    """Run the backward pass.

    Returns
    -------
    grad_k, grad_q, grad_v, grad_bias : Tensor
        Shapes and dtypes of the inputs; empty for what is not needed.
    """
    csc = uniform_index(csc)
    _, M, H, _ = k.shape
    acc = _native.accumulation_dtype(q)
    query, out, grad_out = (x.to(acc) for x in (q, out, grad_out))
    bias = None if edge_bias is None else edge_bias.to(acc)
    stored_k, stored_v = _native.stored(k, acc), _native.stored(v, acc)
    src = k.shape if need_src else (0,)
    grad_k, grad_v = query.new_empty(src), query.new_empty(src)
    grad_q = query.new_empty(q.shape if need_dst else (0,))
    grad_bias = query.new_empty((csc.num_edges, M, H) if need_bias else (0,))
    library = _native.library()
    library.hgmm_inter_node_record_size.restype = ctypes.c_int64
    size = library.hgmm_inter_node_record_size(M, H)
    records = query.new_empty((csc.num_dst, size) if need_src else (0,))
    args = _args(csc, stored_k, query, stored_v, present, bias, dropout, seed)
    args.need_dst, args.need_src, args.need_bias = need_dst, need_src, need_bias
    args.out, args.lse, args.grad_out, args.records = (x.data_ptr() for x in (out, lse, grad_out, records))
    args.grad_k, args.grad_q, args.grad_v, args.grad_bias = (x.data_ptr() for x in (grad_k, grad_q, grad_v, grad_bias))
    _native.call(library.hgmm_inter_node_backward, ctypes.byref(args))
    return grad_k.to(k.dtype), grad_q.to(q.dtype), grad_v.to(v.dtype), grad_bias.to(q.dtype)
