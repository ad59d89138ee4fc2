"""The operators on CUDA: the border to the kernels of `triton_passes`."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.kernels._triton import device_reasons
from hgmm.kernels._triton_rows import (
    Rows,
    absent,
    accumulator,
    block,
    launch,
    rows_of,
    sum_parts,
)
from hgmm.kernels.neighbor_mean.inputs import NeighborInputs
from hgmm.kernels.neighbor_mean.triton_passes import sum_pass, weight_pass
from hgmm.typing import RelationCSC

__all__ = ["backward", "forward", "unsupported_reasons"]

_LANES = 128


def unsupported_reasons(inputs: NeighborInputs) -> list[str]:
    """Say what of these inputs the kernels cannot do."""
    return device_reasons(inputs.x)


def _sum(
    rows: Rows,
    csc: RelationCSC,
    x: Tensor,
    present: Tensor | None,
    weight: Tensor | None,
    mean: bool,
    total_in: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Sum over in-edges, or over out-edges with the sums of weights `total_in` of their destinations."""
    backward = total_in is not None
    _, M, D = x.shape
    acc, ACC = accumulator(x)
    indices = csc.indices_t if backward else csc.indices
    num_rows, BD = rows.indptr.numel() - 1, min(block(D), _LANES)
    out = x.new_empty(num_rows, M, D)
    total = x.new_empty((num_rows, M) if mean and not backward else (0,), dtype=acc)
    constants = {
        "M": M,
        "D": D,
        "BD": BD,
        "ACC": ACC,
        "COLUMNS": 0 if weight is None else weight.shape[1],
        "MASKED": present is not None,
        "MEAN": mean,
        "BACKWARD": backward,
    }
    nothing = absent(total)
    table = (rows.indptr, indices, csc.edge_pos_t, rows.runs, rows.part_row, rows.part_begin, rows.part_end)
    optional = (nothing if y is None else y for y in (None if present is None else present.view(torch.uint8), weight))
    inputs = (x, *table, rows.longest, *optional, nothing if total_in is None else total_in)
    blocks = M * -(-D // BD)
    launch(sum_pass, rows.num_runs * blocks, (*inputs, out, total), {**constants, "SPLIT": False}, numbers=BD)
    if rows.num_parts:
        parts = x.new_empty(rows.num_parts, M, D, dtype=acc)
        totals = x.new_empty((rows.num_parts, M) if total.numel() else (0,), dtype=acc)
        launch(sum_pass, rows.num_parts * blocks, (*inputs, parts, totals), {**constants, "SPLIT": True}, numbers=BD)
        sums = sum_parts(rows, parts)
        if total.numel():
            of_rows = sum_parts(rows, totals)
            total.index_copy_(0, rows.split_row, of_rows)
            empty = (of_rows == 0).unsqueeze(2)
            sums = (sums / of_rows.unsqueeze(2).masked_fill(empty, 1)).masked_fill_(empty, 0)
        out.index_copy_(0, rows.split_row, sums.to(out.dtype))
    return out, total


def forward(
    csc: RelationCSC, x: Tensor, present: Tensor | None, edge_weight: Tensor | None, mean: bool
) -> tuple[Tensor, Tensor]:
    """Run the forward pass; results as those of ``cpu.forward``."""
    return _sum(rows_of(csc.indptr), csc, x, present, edge_weight, mean, None)


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
    """Run the backward pass; results as those of ``cpu.backward``."""
    grad_x = x.new_empty(0)
    if need_x:
        grad_x, _ = _sum(rows_of(csc.indptr_t), csc, grad_out, present, edge_weight, mean, total)
    if not need_weight or edge_weight is None:
        return grad_x, x.new_empty(0)
    return grad_x, _grad_weight(csc, x, present, edge_weight, mean, out, total, grad_out)


def _grad_weight(
    csc: RelationCSC,
    x: Tensor,
    present: Tensor | None,
    edge_weight: Tensor,
    mean: bool,
    out: Tensor,
    total: Tensor,
    grad_out: Tensor,
) -> Tensor:
    rows, (_, M, D), columns = rows_of(csc.indptr), x.shape, edge_weight.shape[1]
    grad_weight, BD = torch.empty_like(edge_weight), min(block(D), _LANES)
    constants = {
        "M": M,
        "D": D,
        "BD": BD,
        "ACC": accumulator(x)[1],
        "COLUMNS": columns,
        "MASKED": present is not None,
        "MEAN": mean,
    }
    table = (rows.indptr, csc.indices, rows.runs, rows.part_row, rows.part_begin, rows.part_end, rows.longest)
    mask = absent(total) if present is None else present.view(torch.uint8)
    arguments = (x, *table, mask, out, total if mean else absent(total), grad_out, grad_weight)
    for count, split in ((rows.num_runs, False), (rows.num_parts, True)):
        launch(weight_pass, count * columns, arguments, {**constants, "SPLIT": split}, numbers=BD)
    return grad_weight
