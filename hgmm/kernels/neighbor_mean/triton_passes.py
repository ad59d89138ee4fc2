"""The CUDA kernels; `triton_kernels` launches them. A program holds a block of one modality's features of some rows."""

from __future__ import annotations

import triton
import triton.language as tl

from hgmm.kernels._triton_device import edges_from, row_bounds, run_bounds

__all__ = ["sum_pass", "weight_pass"]


@triton.jit
def _edge_weights(edge, ok, m, weight, ACC: tl.constexpr, COLUMNS: tl.constexpr):
    """Return what each edge counts, 0 where `ok` is false."""
    if COLUMNS == 0:
        return ok.to(ACC)
    return tl.load(weight + edge * COLUMNS + m % COLUMNS, mask=ok, other=0.0).to(ACC)


@triton.jit
def sum_pass(
    x, indptr, indices, position, runs, part_row, part_begin, part_end, longest, present, weight, total_in, out, total,
    M: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, COLUMNS: tl.constexpr,
    MASKED: tl.constexpr, MEAN: tl.constexpr, BACKWARD: tl.constexpr, SPLIT: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form weighted sums of the neighbours' rows; BACKWARD gathers gradients of the results by source."""
    blocks: tl.constexpr = (D + BD - 1) // BD
    m = tl.program_id(0) // blocks % M
    d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    first, last = run_bounds(tl.program_id(0) // (blocks * M), runs, SPLIT)
    for row in range(first, last):
        node, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            sums = tl.zeros([BD], ACC)
            weights = tl.zeros([BE], ACC)
            for start in range(begin, end, BE):
                edge = edges_from(start, BE)
                ok = edge < end
                other = tl.load(indices + edge, mask=ok, other=0).to(tl.int64)
                if BACKWARD:
                    edge = tl.load(position + edge, mask=ok, other=0).to(tl.int64)
                elif MASKED:
                    ok = ok & (tl.load(present + other * M + m, mask=ok, other=0) != 0)
                w = _edge_weights(edge, ok, m, weight, ACC, COLUMNS)
                weights += w
                if BACKWARD and MEAN:
                    of_row = tl.load(total_in + other * M + m, mask=ok, other=0.0)
                    w = tl.where(of_row == 0, 0.0, w / tl.where(of_row == 0, 1.0, of_row))
                vectors = tl.load(x + (other * M + m)[:, None] * D + d, mask=ok[:, None] & (d < D), other=0.0)
                sums += tl.sum(w[:, None] * vectors.to(ACC), 0)
            if BACKWARD and MASKED:
                sums = tl.where(tl.load(present + node * M + m) != 0, sums, 0.0)
            if MEAN and not BACKWARD:
                of_row = tl.sum(weights, 0)
                tl.store(total + row * M + m, of_row, mask=tl.program_id(0) % blocks == 0)
                if not SPLIT:
                    sums = tl.where(of_row == 0, 0.0, sums / tl.where(of_row == 0, 1.0, of_row))
            tl.store(out + (row * M + m) * D + d, sums.to(out.dtype.element_ty), mask=d < D)


@triton.jit
def weight_pass(
    x, indptr, indices, runs, part_row, part_begin, part_end, longest, present, mean, total, grad_out, grad_weight,
    M: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, COLUMNS: tl.constexpr,
    MASKED: tl.constexpr, MEAN: tl.constexpr, SPLIT: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form ``p s (<G, x> - <G, mean>)``, summed over the modalities that share the weight."""
    column = tl.program_id(0) % COLUMNS
    first, last = run_bounds(tl.program_id(0) // COLUMNS, runs, SPLIT)
    for row in range(first, last):
        node, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            for start in range(begin, end, BE):
                edge = edges_from(start, BE)
                other = tl.load(indices + edge, mask=edge < end, other=0).to(tl.int64)
                gradient = tl.zeros([BE], ACC)
                for m in range(column, M, COLUMNS):
                    ok = edge < end
                    if MASKED:
                        ok = ok & (tl.load(present + other * M + m, mask=ok, other=0) != 0)
                    dots = tl.zeros([BE], ACC)
                    for first_d in range(0, D, BD):
                        d = first_d + tl.arange(0, BD)
                        mask = ok[:, None] & (d < D)
                        row_grad = tl.load(grad_out + (node * M + m) * D + d, mask=d < D, other=0.0).to(ACC)
                        vectors = tl.load(x + (other * M + m)[:, None] * D + d, mask=mask, other=0.0).to(ACC)
                        if MEAN:
                            vectors -= tl.load(mean + (node * M + m) * D + d, mask=d < D, other=0.0).to(ACC)
                        dots += tl.sum(tl.where(mask, vectors * row_grad, 0.0), 1)
                    if MEAN:
                        of_row = tl.load(total + node * M + m)
                        dots = tl.where(of_row == 0, 0.0, dots / tl.where(of_row == 0, 1.0, of_row))
                    gradient += dots
                at = grad_weight + edge * COLUMNS + column
                tl.store(at, gradient.to(grad_weight.dtype.element_ty), mask=edge < end)
