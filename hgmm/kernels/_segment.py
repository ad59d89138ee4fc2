"""Sums and softmaxes over the in-edges of a node, in vectorised PyTorch for any device.

Two primitives carry all the work on vectors, `gather_dot` and `gather_sum`; each is the other's derivative, so both can
be differentiated any number of times. Beyond inputs and results they hold one block of edges or the values of one head,
and for the backward pass they keep their inputs only, never a tensor of size E x M x H x D.

Sums run in edge order and without atomics, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import embedding_bag, pad

from hgmm.typing import RelationCSC

__all__ = [
    "EdgeIndex",
    "block_rows",
    "gather_dot",
    "gather_sum",
    "segment_log_softmax",
    "segment_softmax",
    "segment_sum",
    "uniform_index",
]

# 2 MiB of float32 per operand stay in a CPU's cache; elsewhere a block must be large enough to hide its launch.
_BLOCK_ELEMENTS = {"cpu": 1 << 19}
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 24


def uniform_index(csc: RelationCSC) -> RelationCSC:
    """Return the index tensors in one dtype, as compiled code needs them: int64 if any is, so that no number is cut.

    Nothing is copied that has the dtype already.
    """
    if len({x.dtype for x in csc}) == 1:
        return csc
    return RelationCSC(*(x.to(torch.int64) for x in csc))


class EdgeIndex(NamedTuple):
    """Both ends of every edge, in CSC order, and the transpose; all of one index dtype.

    Attributes
    ----------
    indptr, src, dst : Tensor
        ``(N_dst + 1,)`` row pointers and ``(E,)`` ends; `dst` is non-decreasing.
    indptr_t, dst_t, order_t : Tensor
        ``(N_src + 1,)`` row pointers by source, ``(E,)`` destinations sorted by source, and ``(E,)`` positions that
        sort the edges so.
    """

    indptr: Tensor
    src: Tensor
    dst: Tensor
    indptr_t: Tensor
    dst_t: Tensor
    order_t: Tensor

    @classmethod
    def from_csc(cls, csc: RelationCSC) -> EdgeIndex:
        """Expand the row pointers of `csc`; nothing else is copied unless dtypes are mixed, which makes all int64."""
        indptr, src, indptr_t, dst_t, order_t = uniform_index(csc)
        rows = torch.arange(csc.num_dst, dtype=src.dtype, device=src.device)
        dst = rows.repeat_interleave(indptr.diff(), output_size=csc.num_edges)
        return cls(indptr, src, dst, indptr_t, dst_t, order_t)

    def keep(self, mask: Tensor) -> tuple[EdgeIndex, Tensor]:
        """Drop edges.

        Parameters
        ----------
        mask : Tensor
            ``(E,)`` bool, True for the edges that stay.

        Returns
        -------
        edges : EdgeIndex
            The edges that stay, in the same order.
        kept : Tensor
            ``(E_kept,)`` int64 positions they had.
        """
        mask_t = mask[self.order_t]
        before, before_t = (pad(x.cumsum(0), (1, 0)).to(self.src.dtype) for x in (mask, mask_t))
        edges = EdgeIndex(
            indptr=before[self.indptr],
            src=self.src[mask],
            dst=self.dst[mask],
            indptr_t=before_t[self.indptr_t],
            dst_t=self.dst_t[mask_t],
            order_t=before[self.order_t[mask_t]],
        )
        return edges, mask.nonzero().squeeze(1)


def gather_dot(edges: EdgeIndex, x_dst: Tensor, x_src: Tensor) -> Tensor:
    """Multiply the vectors at the two ends of each edge: ``out[e] = <x_dst[dst_e], x_src[src_e]>``.

    Parameters
    ----------
    edges : EdgeIndex
        The relation.
    x_dst, x_src : Tensor
        ``(N_dst, M, H, D)`` and ``(N_src, M, H, D)``.

    Returns
    -------
    Tensor
        ``(E, M, H)``.
    """
    return _gather_dot(edges, x_dst, x_src, batched_src=False)


def gather_sum(edges: EdgeIndex, weight: Tensor, value: Tensor, *, to_src: bool = False) -> Tensor:
    """Sum weighted vectors of the neighbours: ``out[i] = sum_{e: dst_e = i} weight[e] value[src_e]``.

    Parameters
    ----------
    edges : EdgeIndex
        The relation.
    weight : Tensor
        ``(E, M, H)``; an expanded tensor is not copied.
    value : Tensor
        ``(N_src, M, H, D)``, or ``(N_dst, M, H, D)`` with `to_src`.
    to_src : bool, optional
        Sum over the out-edges of each source instead.

    Returns
    -------
    Tensor
        ``(N_dst, M, H, D)``, or ``(N_src, M, H, D)`` with `to_src`; zero for nodes without edges.
    """
    out: Tensor = _GatherSum.apply(weight, value, edges, to_src)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return out


def segment_sum(edges: EdgeIndex, x: Tensor) -> Tensor:
    """Sum the rows of `x` ``(E, *)`` over the in-edges of each destination: ``(N_dst, *)``, zero without edges."""
    out: Tensor = _SegmentSum.apply(x, edges)  # type: ignore[no-untyped-call]  # as above
    return out


def segment_log_softmax(edges: EdgeIndex, logits: Tensor) -> Tensor:
    """Logarithm of `segment_softmax`; ``-inf`` where the logit is ``-inf``, for whole rows too."""
    out: Tensor = _SegmentLogSoftmax.apply(logits, edges)  # type: ignore[no-untyped-call]  # as above
    return out


def segment_softmax(edges: EdgeIndex, logits: Tensor) -> Tensor:
    """Softmax over the in-edges of each destination, for each column by itself.

    Parameters
    ----------
    edges : EdgeIndex
        The relation.
    logits : Tensor
        ``(E, *)``; ``-inf`` takes an edge out.

    Returns
    -------
    Tensor
        ``(E, *)``, zero where the logit is ``-inf``, for whole rows too.
    """
    out: Tensor = _SegmentSoftmax.apply(logits, edges)  # type: ignore[no-untyped-call]  # as above
    return out


def block_rows(x: Tensor) -> int:
    """Return how many rows of `x`, whose first axis is cut, make a block that fits a CPU's cache; at least 1."""
    return max(1, _BLOCK_ELEMENTS.get(x.device.type, _BLOCK_ELEMENTS_ELSEWHERE) // x.shape[1:].numel())


def _blocks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Walk several tensors with E rows together, some rows at a time."""
    return zip(*(torch.split(x, rows) for x in tensors), strict=True)


def _empty(x: Tensor, y: Tensor, *shape: int) -> Tensor:
    """Return memory for what is made of `x` and `y`; under vmap it has the batch dimension of either."""
    return (x.new_zeros(()) + y.new_zeros(())).new_empty(shape)


def _gather_dot(edges: EdgeIndex, x_dst: Tensor, x_src: Tensor, *, batched_src: bool) -> Tensor:
    """Run `gather_dot`; under vmap at most one side has a batch dimension, `x_src` with `batched_src`, else `x_dst`."""
    out: Tensor = _GatherDot.apply(x_dst, x_src, edges, batched_src)  # type: ignore[no-untyped-call]  # as above
    return out


class _GatherDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_dst: Tensor, x_src: Tensor, edges: EdgeIndex, batched_src: bool) -> Tensor:
        ctx.save_for_backward(x_dst, x_src)
        ctx.edges = edges  # type: ignore[attr-defined]  # torch's context takes any attribute
        out = _empty(x_dst, x_src, edges.src.numel(), *x_src.shape[1:-1])
        for block, src, dst in _blocks(block_rows(x_src), out, edges.src, edges.dst):
            of_dst, of_src = x_dst.index_select(0, dst), x_src.index_select(0, src)
            # In place, which saves a quarter of the time; what has no batch dimension cannot take in what has one.
            product = of_src.mul_(of_dst) if batched_src else of_dst.mul_(of_src)
            block.copy_(product.sum(-1))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_dst, x_src = ctx.saved_tensors
        need_dst, need_src, *_ = ctx.needs_input_grad
        grad_dst = gather_sum(ctx.edges, grad, x_src) if need_dst else None
        grad_src = gather_sum(ctx.edges, grad, x_dst, to_src=True) if need_src else None
        return grad_dst, grad_src, None, None


def _csr_matmul(indptr: Tensor, indices: Tensor, weight: Tensor, value: Tensor) -> Tensor:
    """Multiply the sparse matrix of each modality and head by its values; `weight` is ``(E, M, H)``."""
    _, M, H, D = value.shape
    out = _empty(weight, value, indptr.numel() - 1, M, H, D)
    for m, h in product(range(M), range(H)):
        # A weighted bag is a CSR product on every device and dtype, twice as fast as index_add and without its
        # E x D messages; torch's own CSR product needs MKL and warns that it is in beta.
        out[:, m, h] = embedding_bag(
            indices,
            value[:, m, h].contiguous(),
            indptr,
            mode="sum",
            per_sample_weights=weight[:, m, h].contiguous(),
            include_last_offset=True,
        )
    return out


class _GatherSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, value: Tensor, edges: EdgeIndex, to_src: bool) -> Tensor:
        ctx.save_for_backward(weight, value)
        ctx.edges, ctx.to_src = edges, to_src  # type: ignore[attr-defined]  # as above
        if to_src:
            return _csr_matmul(edges.indptr_t, edges.dst_t, weight.index_select(0, edges.order_t), value)
        return _csr_matmul(edges.indptr, edges.src, weight, value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        weight, value = ctx.saved_tensors
        need_weight, need_value, _, _ = ctx.needs_input_grad
        x_dst, x_src = (value, grad) if ctx.to_src else (grad, value)
        # Gradients have a batch dimension where torch.autograd.grad is asked for several at once.
        grad_weight = _gather_dot(ctx.edges, x_dst, x_src, batched_src=ctx.to_src) if need_weight else None
        grad_value = gather_sum(ctx.edges, weight, grad, to_src=not ctx.to_src) if need_value else None
        return grad_weight, grad_value, None, None


def _shifted_exp(edges: EdgeIndex, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``z = x - max``, ``exp(z)`` and the rows' sums of it, which are 1 where a row has only ``-inf``."""
    index = edges.dst.long().view(-1, *[1] * (logits.dim() - 1)).expand_as(logits)
    row_max = logits.new_full((edges.indptr.numel() - 1, *logits.shape[1:]), -torch.inf)
    row_max.scatter_reduce_(0, index, logits, "amax")
    row_max.masked_fill_(row_max == -torch.inf, 0)
    shifted = logits - row_max.index_select(0, edges.dst)
    exp = shifted.exp()
    # The largest entry of a row adds exp(0) = 1, so only rows without a finite entry lie below 1.
    return shifted, exp, segment_sum(edges, exp).clamp_(min=1)


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, edges: EdgeIndex) -> Tensor:
        ctx.edges = edges  # type: ignore[attr-defined]  # as above
        rows, width = x.shape[0], x.shape[1:].numel()
        every = torch.arange(rows, dtype=edges.indptr.dtype, device=x.device)
        out = embedding_bag(every, x.reshape(rows, width), edges.indptr, mode="sum", include_last_offset=True)
        return out.view(edges.indptr.numel() - 1, *x.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.edges.dst), None


class _SegmentLogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, edges: EdgeIndex) -> Tensor:
        shifted, _, row_sum = _shifted_exp(edges, logits)
        out = shifted.sub_(row_sum.log_().index_select(0, edges.dst))
        ctx.save_for_backward(out)
        ctx.edges = edges  # type: ignore[attr-defined]  # as above
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return grad - out.exp() * segment_sum(ctx.edges, grad).index_select(0, ctx.edges.dst), None


class _SegmentSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, edges: EdgeIndex) -> Tensor:
        _, exp, row_sum = _shifted_exp(edges, logits)
        out = exp.div_(row_sum.index_select(0, edges.dst))
        ctx.save_for_backward(out)
        ctx.edges = edges  # type: ignore[attr-defined]  # as above
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        weighted = out * grad
        return weighted - out * segment_sum(ctx.edges, weighted).index_select(0, ctx.edges.dst), None
