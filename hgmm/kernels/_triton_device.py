"""Device functions and kernels that all Triton operators share; `hgmm.kernels._triton_rows` has the host's side."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["edges_from", "log_sum_exp_of_parts", "row_bounds", "run_bounds", "sum_of_parts"]


@triton.jit
def row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT: tl.constexpr):
    """Return node, first edge and end of a row, or of the part of a long row that has this number."""
    if SPLIT:
        return tl.load(part_row + row), tl.load(part_begin + row), tl.load(part_end + row)
    return row, tl.load(indptr + row).to(tl.int64), tl.load(indptr + row + 1).to(tl.int64)


@triton.jit
def run_bounds(program, runs, SPLIT: tl.constexpr):
    """Return the rows of a program: its run, or the one part that has its number."""
    if SPLIT:
        return program.to(tl.int64), program.to(tl.int64) + 1
    return tl.load(runs + program), tl.load(runs + program + 1)


@triton.jit
def edges_from(start, BE: tl.constexpr):
    """Return the positions of a tile's edges."""
    return start + tl.arange(0, BE).to(tl.int64)


@triton.jit
def sum_of_parts(parts, split_ptr, out, X, BE: tl.constexpr, BX: tl.constexpr):
    blocks = tl.cdiv(X, BX)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    x = tl.program_id(0) % blocks * BX + tl.arange(0, BX)
    begin, end = tl.load(split_ptr + row), tl.load(split_ptr + row + 1)
    total = tl.zeros([BX], out.dtype.element_ty)
    for first in range(begin, end, BE):
        part = edges_from(first, BE)
        total += tl.sum(tl.load(parts + part[:, None] * X + x, mask=(part < end)[:, None] & (x < X), other=0.0), 0)
    tl.store(out + row * X + x, total, mask=x < X)


@triton.jit
def log_sum_exp_of_parts(parts, split_ptr, out, X, BE: tl.constexpr, BX: tl.constexpr):
    blocks = tl.cdiv(X, BX)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    x = tl.program_id(0) % blocks * BX + tl.arange(0, BX)
    begin, end = tl.load(split_ptr + row), tl.load(split_ptr + row + 1)
    top = tl.full([BX], float("-inf"), out.dtype.element_ty)
    total = tl.zeros([BX], out.dtype.element_ty)
    for first in range(begin, end, BE):
        part = edges_from(first, BE)
        mask = (part < end)[:, None] & (x < X)
        value = tl.load(parts + part[:, None] * X + x, mask=mask, other=float("-inf"))
        higher = tl.maximum(top, tl.max(value, 0))
        zero = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(top - zero) + tl.sum(tl.exp(value - zero), 0)
        top = higher
    tl.store(out + row * X + x, top + tl.log(tl.where(total == 0, 1.0, total)), mask=x < X)
