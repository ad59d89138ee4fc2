"""The CUDA kernels of the three passes; `triton_kernels` launches them. A program holds some heads of some rows."""

from __future__ import annotations

import triton
import triton.language as tl

from hgmm.kernels._triton_device import edges_from, row_bounds, run_bounds

__all__ = ["attention_pass", "destination_pass", "forward_pass", "source_pass"]


@triton.jit
def _place(H: tl.constexpr, M: tl.constexpr, BH: tl.constexpr):
    """Return run or part, modality and heads of this program."""
    blocks: tl.constexpr = (H + BH - 1) // BH
    program = tl.program_id(0)
    return program // (blocks * M), program // blocks % M, program % blocks * BH + tl.arange(0, BH)


@triton.jit
def _vectors(x, node, ok, m, heads, d, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr):
    """Gather ``(nodes, heads, D)``; 0 where `ok` is false."""
    mask = ok[:, None, None] & (heads < H)[None, :, None] & (d < D)[None, None, :]
    at = ((node * M + m)[:, None] * H + heads[None, :])[:, :, None] * D + d[None, None, :]
    return tl.load(x + at, mask=mask, other=0.0).to(ACC)


@triton.jit
def _vector(x, node, m, heads, d, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr):
    """Read ``(heads, D)`` of one node."""
    at = ((node * M + m) * H + heads[:, None]) * D + d[None, :]
    return tl.load(x + at, mask=(heads < H)[:, None] & (d < D)[None, :], other=0.0).to(ACC)


@triton.jit
def _store_vector(x, value, row, m, heads, d, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr):
    at = ((row * M + m) * H + heads[:, None]) * D + d[None, :]
    tl.store(x + at, value.to(x.dtype.element_ty), mask=(heads < H)[:, None] & (d < D)[None, :])


@triton.jit
def _numbers(x, node, ok, m, heads, M: tl.constexpr, H: tl.constexpr, ACC: tl.constexpr):
    """Gather ``(nodes, heads)`` of a tensor with one number a head."""
    mask = ok[:, None] & (heads < H)[None, :]
    return tl.load(x + (node * M + m)[:, None] * H + heads[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def _keep(edge, m, heads, seed, drop_below, scale, rest, ACC: tl.constexpr):
    """Return what dropout multiplies the weights by; `hgmm.kernels._philox` has the contract."""
    zero = (edge[:, None] * 0 + heads[None, :] * 0).to(tl.uint32)
    low, high = (edge & 0xFFFFFFFF).to(tl.uint32)[:, None] + zero, (edge >> 32).to(tl.uint32)[:, None] + zero
    block_of_head = (heads // 4).to(tl.uint32)[None, :] + zero
    w0, w1, w2, w3 = tl.philox(seed, low, high, block_of_head, m.to(tl.uint32) + zero)
    lane = (heads % 4)[None, :]
    word = tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
    kept = tl.zeros([1, 1], ACC) + scale + rest
    return tl.where(word >= drop_below.to(tl.uint32), kept, 0.0)


@triton.jit
def _logits(
    products, present, edge_bias, source, edge, ok, m, heads, M: tl.constexpr, H: tl.constexpr, ACC: tl.constexpr,
    MASKED: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Add the bias; -inf where there is no edge or the source lacks the modality."""
    if MASKED:
        ok = ok & (tl.load(present + source * M + m, mask=ok, other=0) != 0)
    if BIASED:
        products += _numbers(edge_bias, edge, ok, m, heads, M, H, ACC)
    return tl.where(ok[:, None], products, float("-inf"))


@triton.jit
def forward_pass(
    k, q, v, indptr, indices, runs, part_row, part_begin, part_end, longest, present, edge_bias, seed, drop_below,
    scale, rest, out, lse, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr, DROPOUT: tl.constexpr, SPLIT: tl.constexpr,
    BE: tl.constexpr,
):  # fmt: skip
    """Form the weighted sums of the values, and the logarithms of the weights' sums."""
    item, m, heads = _place(H, M, BH)
    d = tl.arange(0, BD)
    first, last = run_bounds(item, runs, SPLIT)
    for row in range(first, last):
        node, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            query = _vector(q, node, m, heads, d, M, H, D, ACC)
            top = tl.full([BH], float("-inf"), ACC)
            total = tl.zeros([BH], ACC)
            sums = tl.zeros([BH, BD], ACC)
            for start in range(begin, end, BE):
                edge = edges_from(start, BE)
                ok = edge < end
                source = tl.load(indices + edge, mask=ok, other=0).to(tl.int64)
                keys = _vectors(k, source, ok, m, heads, d, M, H, D, ACC)
                products = tl.sum(keys * query[None, :, :], 2)
                logit = _logits(products, present, edge_bias, source, edge, ok, m, heads, M, H, ACC, MASKED, BIASED)
                higher = tl.maximum(top, tl.max(logit, 0))
                zero = tl.where(higher == float("-inf"), 0.0, higher)
                weight = tl.exp(logit - zero[None, :])
                shrink = tl.exp(top - zero)
                total = total * shrink + tl.sum(weight, 0)
                if DROPOUT:
                    weight *= _keep(edge, m, heads, seed, drop_below, scale, rest, ACC)
                values = _vectors(v, source, ok, m, heads, d, M, H, D, ACC)
                sums = sums * shrink[:, None] + tl.sum(weight[:, :, None] * values, 0)
                top = higher
            empty = total == 0
            _store_vector(out, sums / tl.where(empty, 1.0, total)[:, None], row, m, heads, d, M, H, D)
            # A part without a neighbour must not count when the parts are joined, a row without one has 0.
            nothing = float("-inf") if SPLIT else 0.0
            result = tl.where(empty, nothing, top + tl.log(tl.where(empty, 1.0, total)))
            tl.store(lse + (row * M + m) * H + heads, result, mask=heads < H)


@triton.jit
def attention_pass(
    k, q, indptr, indices, runs, part_row, part_begin, part_end, longest, present, edge_bias, seed, drop_below, scale,
    rest, lse, attn, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr, DROPOUT: tl.constexpr, SPLIT: tl.constexpr,
    BE: tl.constexpr,
):  # fmt: skip
    """Write the weights of the edges."""
    item, m, heads = _place(H, M, BH)
    d = tl.arange(0, BD)
    first, last = run_bounds(item, runs, SPLIT)
    for row in range(first, last):
        node, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            query = _vector(q, node, m, heads, d, M, H, D, ACC)
            of_row = tl.load(lse + (node * M + m) * H + heads, mask=heads < H, other=0.0)
            for start in range(begin, end, BE):
                edge = edges_from(start, BE)
                ok = edge < end
                source = tl.load(indices + edge, mask=ok, other=0).to(tl.int64)
                products = tl.sum(_vectors(k, source, ok, m, heads, d, M, H, D, ACC) * query[None, :, :], 2)
                logit = _logits(products, present, edge_bias, source, edge, ok, m, heads, M, H, ACC, MASKED, BIASED)
                weight = tl.exp(logit - of_row[None, :])
                if DROPOUT:
                    weight *= _keep(edge, m, heads, seed, drop_below, scale, rest, ACC)
                at = (edge * M + m)[:, None] * H + heads[None, :]
                tl.store(attn + at, weight, mask=ok[:, None] & (heads < H)[None, :])


@triton.jit
def destination_pass(
    k, q, v, grad_out, out, indptr, indices, runs, part_row, part_begin, part_end, longest, present, edge_bias, seed,
    drop_below, scale, rest, lse, delta, grad_q, grad_bias, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BH: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    DROPOUT: tl.constexpr, NEED_QUERIES: tl.constexpr, NEED_BIAS: tl.constexpr, SPLIT: tl.constexpr,
    BE: tl.constexpr,
):  # fmt: skip
    """Form the gradients of queries and bias, and ``<G, out>`` of each row for the sources."""
    item, m, heads = _place(H, M, BH)
    d = tl.arange(0, BD)
    first, last = run_bounds(item, runs, SPLIT)
    for row in range(first, last):
        node, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            query = _vector(q, node, m, heads, d, M, H, D, ACC)
            gradient = _vector(grad_out, node, m, heads, d, M, H, D, ACC)
            mean = tl.sum(gradient * _vector(out, node, m, heads, d, M, H, D, ACC), 1)
            # Of a row's parts the first one writes.
            if begin == tl.load(indptr + node):
                tl.store(delta + (node * M + m) * H + heads, mean, mask=heads < H)
            of_row = tl.load(lse + (node * M + m) * H + heads, mask=heads < H, other=0.0)
            sums = tl.zeros([BH, BD], ACC)
            for start in range(begin, end, BE):
                edge = edges_from(start, BE)
                ok = edge < end
                source = tl.load(indices + edge, mask=ok, other=0).to(tl.int64)
                keys = _vectors(k, source, ok, m, heads, d, M, H, D, ACC)
                products = tl.sum(keys * query[None, :, :], 2)
                logit = _logits(products, present, edge_bias, source, edge, ok, m, heads, M, H, ACC, MASKED, BIASED)
                weight = tl.exp(logit - of_row[None, :])
                towards = tl.sum(_vectors(v, source, ok, m, heads, d, M, H, D, ACC) * gradient[None, :, :], 2)
                if DROPOUT:
                    towards *= _keep(edge, m, heads, seed, drop_below, scale, rest, ACC)
                change = weight * (towards - mean[None, :])
                if NEED_QUERIES:
                    sums += tl.sum(change[:, :, None] * keys, 0)
                if NEED_BIAS:
                    at = grad_bias + (edge * M + m)[:, None] * H + heads[None, :]
                    tl.store(at, change.to(grad_bias.dtype.element_ty), mask=ok[:, None] & (heads < H)[None, :])
            if NEED_QUERIES:
                _store_vector(grad_q, sums, row, m, heads, d, M, H, D)


@triton.jit
def source_pass(
    k, q, v, grad_out, indptr, indices, position, runs, part_row, part_begin, part_end, longest, present, edge_bias,
    seed, drop_below, scale, rest, lse, delta, grad_k, grad_v, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BH: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, MASKED: tl.constexpr, BIASED: tl.constexpr,
    DROPOUT: tl.constexpr, SPLIT: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form the gradients of keys and values, over the out-edges of each source."""
    item, m, heads = _place(H, M, BH)
    d = tl.arange(0, BD)
    first, last = run_bounds(item, runs, SPLIT)
    for row in range(first, last):
        node, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            key = _vector(k, node, m, heads, d, M, H, D, ACC)
            value = _vector(v, node, m, heads, d, M, H, D, ACC)
            key_sums = tl.zeros([BH, BD], ACC)
            value_sums = tl.zeros([BH, BD], ACC)
            if MASKED:
                # Nothing reaches a source that lacks the modality.
                end = tl.where(tl.load(present + node * M + m) != 0, end, begin)
            for start in range(begin, end, BE):
                place = edges_from(start, BE)
                ok = place < end
                other = tl.load(indices + place, mask=ok, other=0).to(tl.int64)
                edge = tl.load(position + place, mask=ok, other=0).to(tl.int64)
                queries = _vectors(q, other, ok, m, heads, d, M, H, D, ACC)
                logit = tl.sum(queries * key[None, :, :], 2)
                if BIASED:
                    logit += _numbers(edge_bias, edge, ok, m, heads, M, H, ACC)
                logit -= _numbers(lse, other, ok, m, heads, M, H, ACC)
                weight = tl.exp(tl.where(ok[:, None], logit, float("-inf")))
                gradients = _vectors(grad_out, other, ok, m, heads, d, M, H, D, ACC)
                towards = tl.sum(gradients * value[None, :, :], 2)
                dropped = weight
                if DROPOUT:
                    keep = _keep(edge, m, heads, seed, drop_below, scale, rest, ACC)
                    towards *= keep
                    dropped = weight * keep
                change = weight * (towards - _numbers(delta, other, ok, m, heads, M, H, ACC))
                key_sums += tl.sum(change[:, :, None] * queries, 0)
                value_sums += tl.sum(dropped[:, :, None] * gradients, 0)
            _store_vector(grad_k, key_sums, row, m, heads, d, M, H, D)
            _store_vector(grad_v, value_sums, row, m, heads, d, M, H, D)
