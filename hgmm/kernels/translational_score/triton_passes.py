"""The CUDA kernels; `triton_kernels` launches them.

The differences of a block of coordinates are held as x; for the complex norm those of the imaginary parts as y.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hgmm.kernels._triton_device import edges_from, row_bounds, run_bounds

__all__ = ["distance_pass", "query_pass", "table_pass"]


@triton.jit
def _difference(query, table, from_query, from_table, d, ok, ACC: tl.constexpr):
    """Return query less table at coordinates `d` of vectors that start at these offsets, 0 where `ok` is false."""
    q = tl.load(query + from_query + d, mask=ok, other=0.0).to(ACC)
    return tl.where(ok, q - tl.load(table + from_table + d, mask=ok, other=0.0).to(ACC), 0.0)


@triton.jit
def _factor(grad_out, out, at, ok, ACC: tl.constexpr, ROOT: tl.constexpr):
    """Return what a distance's slopes are multiplied by; 0 at distance 0, where the root has no derivative."""
    grad = tl.load(grad_out + at, mask=ok, other=0.0).to(ACC)
    if ROOT:
        distance = tl.load(out + at, mask=ok, other=1.0).to(ACC)
        return tl.where(distance == 0, 0.0, grad / tl.where(distance == 0, 1.0, distance))
    return grad


@triton.jit
def _signs(x):
    return tl.where(x > 0, 1.0, 0.0) - tl.where(x < 0, 1.0, 0.0)


@triton.jit
def _inverse_moduli(x, y):
    modulus = tl.sqrt(x * x + y * y)
    return tl.where(modulus == 0, 0.0, 1.0 / tl.where(modulus == 0, 1.0, modulus))


@triton.jit
def distance_pass(
    query, table, entity, side, pairs, out, num_draws, K,
    S: tl.constexpr, A: tl.constexpr, M: tl.constexpr, D: tl.constexpr, P: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, ROOT: tl.constexpr, COMPLEX: tl.constexpr, RUN: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form the distances of a run of draws."""
    W: tl.constexpr = D // 2 if COMPLEX else D
    first = tl.program_id(0).to(tl.int64) * RUN
    last = tl.minimum(first + RUN, num_draws)
    for start in range(first, last, BE):
        e = edges_from(start, BE)
        ok = e < last
        row = tl.load(entity + e, mask=ok, other=0).to(tl.int64) * M
        s = tl.load(side + e, mask=ok, other=0).to(tl.int64)
        q_row = (e // K * S + s) * A
        for p in range(P):
            a = tl.load(pairs + (s * P + p) * 2, mask=ok, other=0)
            m = tl.load(pairs + (s * P + p) * 2 + 1, mask=ok, other=0)
            from_query, from_table = ((q_row + a) * D)[:, None], ((row + m) * D)[:, None]
            sums = tl.zeros([BE], ACC)
            for first_d in range(0, W, BD):
                d = first_d + tl.arange(0, BD)
                there = ok[:, None] & (d < W)
                x = _difference(query, table, from_query, from_table, d, there, ACC)
                if COMPLEX:
                    y = _difference(query, table, from_query, from_table, d + W, there, ACC)
                    sums += tl.sum(tl.sqrt(x * x + y * y), 1)
                elif ROOT:
                    sums += tl.sum(x * x, 1)
                else:
                    sums += tl.sum(tl.abs(x), 1)
            if ROOT:
                sums = tl.sqrt(sums)
            tl.store(out + e * P + p, sums.to(out.dtype.element_ty), mask=ok)


@triton.jit
def query_pass(
    query, table, entity, side, pairs, out, grad_out, grad_query, K, num_parts,
    S: tl.constexpr, A: tl.constexpr, M: tl.constexpr, D: tl.constexpr, P: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, ROOT: tl.constexpr, COMPLEX: tl.constexpr, PART: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form the gradient of one block of a query vector from a part of the draws of its row."""
    W: tl.constexpr = D // 2 if COMPLEX else D
    blocks: tl.constexpr = (W + BD - 1) // BD
    d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    vector = tl.program_id(0) // blocks % (S * A)
    part = (tl.program_id(0) // (blocks * S * A)).to(tl.int64)
    own_s, own_a = vector // A, vector % A
    b = part // num_parts
    first = b * K + part % num_parts * PART
    last = tl.minimum(first + PART, (b + 1) * K)
    from_query = (b * S * A + vector) * D
    sum_x = tl.zeros([BD], ACC)
    sum_y = tl.zeros([BD], ACC)
    for p in range(P):
        a = tl.load(pairs + (own_s * P + p) * 2)
        m = tl.load(pairs + (own_s * P + p) * 2 + 1)
        if a == own_a:
            for start in range(first, last, BE):
                e = edges_from(start, BE)
                ok = e < last
                ok = ok & (tl.load(side + e, mask=ok, other=-1) == own_s)
                row = tl.load(entity + e, mask=ok, other=0).to(tl.int64) * M + m
                there = ok[:, None] & (d < W)
                factor = _factor(grad_out, out, e * P + p, ok, ACC, ROOT)[:, None]
                x = _difference(query, table, from_query, (row * D)[:, None], d, there, ACC)
                if COMPLEX:
                    y = _difference(query, table, from_query, (row * D)[:, None], d + W, there, ACC)
                    inverse = _inverse_moduli(x, y)
                    sum_x += tl.sum(factor * x * inverse, 0)
                    sum_y += tl.sum(factor * y * inverse, 0)
                elif ROOT:
                    sum_x += tl.sum(factor * x, 0)
                else:
                    sum_x += tl.sum(factor * _signs(x), 0)
    at = grad_query + (part * S * A + vector) * D + d
    tl.store(at, sum_x.to(grad_query.dtype.element_ty), mask=d < W)
    if COMPLEX:
        tl.store(at + W, sum_y.to(grad_query.dtype.element_ty), mask=d < W)


@triton.jit
def table_pass(
    query, table, order, indptr, runs, part_row, part_begin, part_end, longest, side, pairs, out, grad_out, grad_table,
    K, S: tl.constexpr, A: tl.constexpr, M: tl.constexpr, D: tl.constexpr, P: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr, ROOT: tl.constexpr, COMPLEX: tl.constexpr, SPLIT: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form the gradients of one block of one modality of some entities from their draws."""
    W: tl.constexpr = D // 2 if COMPLEX else D
    blocks: tl.constexpr = (W + BD - 1) // BD
    d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    own_m = tl.program_id(0) // blocks % M
    first, last = run_bounds(tl.program_id(0) // (blocks * M), runs, SPLIT)
    for row in range(first, last):
        node, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            from_table = (node * M + own_m) * D
            sum_x = tl.zeros([BD], ACC)
            sum_y = tl.zeros([BD], ACC)
            for start in range(begin, end, BE):
                i = edges_from(start, BE)
                drawn = i < end
                e = tl.load(order + i, mask=drawn, other=0)
                s = tl.load(side + e, mask=drawn, other=0).to(tl.int64)
                q_row = (e // K * S + s) * A
                for p in range(P):
                    # Not masked by `ok`: with one pair Triton 3.6 cannot lay that out.
                    a = tl.load(pairs + (s * P + p) * 2, mask=drawn, other=0)
                    ok = drawn & (tl.load(pairs + (s * P + p) * 2 + 1, mask=drawn, other=-1) == own_m)
                    there = ok[:, None] & (d < W)
                    factor = _factor(grad_out, out, e * P + p, ok, ACC, ROOT)[:, None]
                    from_query = ((q_row + a) * D)[:, None]
                    x = _difference(query, table, from_query, from_table, d, there, ACC)
                    if COMPLEX:
                        y = _difference(query, table, from_query, from_table, d + W, there, ACC)
                        inverse = _inverse_moduli(x, y)
                        sum_x -= tl.sum(factor * x * inverse, 0)
                        sum_y -= tl.sum(factor * y * inverse, 0)
                    elif ROOT:
                        sum_x -= tl.sum(factor * x, 0)
                    else:
                        sum_x -= tl.sum(factor * _signs(x), 0)
            at = grad_table + (row * M + own_m) * D + d
            tl.store(at, sum_x.to(grad_table.dtype.element_ty), mask=d < W)
            if COMPLEX:
                tl.store(at + W, sum_y.to(grad_table.dtype.element_ty), mask=d < W)
