"""Linear projections of rows of a table that is not trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hgmm.kernels._segment import block_rows

__all__ = ["project_rows"]


def project_rows(table: Tensor, ids: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """Project some rows of a table: ``table[ids] @ weight.T + bias``.

    Parameters
    ----------
    table : Tensor
        ``(E, W)``, a constant.
    ids : Tensor or None
        ``(U,)`` int64 rows; None for all.
    weight, bias : Tensor
        ``(D, W)`` and ``(D,)``, float of one dtype; rows are cast to it.

    Returns
    -------
    Tensor
        ``(U, D)``, differentiable once in `weight` and `bias`.

    Notes
    -----
    Rows are gathered in blocks, forward and again backward: autograd would keep all U x W of them.
    """
    if ids is None and table.dtype == weight.dtype:
        return F.linear(table, weight, bias)
    rows = torch.arange(len(table), device=table.device) if ids is None else ids
    out: Tensor = _ProjectRows.apply(table, rows, weight, bias)  # type: ignore[no-untyped-call]  # torch leaves it so
    return out


class _ProjectRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(table, ids, weight)
        out = weight.new_empty(len(ids), len(weight))
        for rows, block in zip(torch.split(ids, block_rows(table)), torch.split(out, block_rows(table)), strict=True):
            torch.addmm(bias, table[rows].to(weight.dtype), weight.T, out=block)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        table, ids, weight = ctx.saved_tensors
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = torch.zeros_like(weight)
            blocks = (torch.split(x, block_rows(table)) for x in (ids, grad))
            for rows, block in zip(*blocks, strict=True):
                grad_weight.addmm_(block.T, table[rows].to(weight.dtype))
        return None, None, grad_weight, grad.sum(0) if ctx.needs_input_grad[3] else None
