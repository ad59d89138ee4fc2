"""The operator on CUDA: the border to the kernels of `triton_passes`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hgmm.kernels import _triton_rows
from hgmm.kernels._triton import device_reasons
from hgmm.kernels._triton_rows import accumulator, block, launch, rows_of, sum_parts
from hgmm.kernels.translational_score.inputs import TranslationalInputs
from hgmm.kernels.translational_score.triton_passes import distance_pass, query_pass, table_pass

__all__ = ["backward", "forward", "unsupported_reasons"]

_LANES = 128


def unsupported_reasons(inputs: TranslationalInputs) -> list[str]:
    """Say what of these inputs the kernels cannot do."""
    return device_reasons(inputs.query)


def _constants(inputs: TranslationalInputs) -> dict[str, Any]:
    _, S, A, D = inputs.query.shape
    is_complex = inputs.norm == "complex"
    return {
        "S": S,
        "A": A,
        "M": inputs.table.shape[1],
        "D": D,
        "P": inputs.pairs.shape[1],
        "BD": min(block(D // 2 if is_complex else D), _LANES),
        "ACC": accumulator(inputs.query)[1],
        "ROOT": inputs.norm == "2",
        "COMPLEX": is_complex,
    }


def _blocks(constants: dict[str, Any]) -> int:
    width: int = constants["D"] // 2 if constants["COMPLEX"] else constants["D"]
    lanes: int = constants["BD"]
    return -(-width // lanes)


def forward(inputs: TranslationalInputs, signs: Tensor) -> Tensor:
    """Run the forward pass; the result is that of ``cpu.forward``. Nothing is kept in `signs`."""
    query, table, entity, side, pairs, _ = inputs
    out = query.new_empty(*entity.shape, pairs.shape[1])
    constants, run = _constants(inputs), _triton_rows.RUN_WORK
    arguments = (query, table, entity, side, pairs, out, entity.numel(), entity.shape[1])
    launch(
        distance_pass,
        -(-entity.numel() // run),
        arguments,
        {**constants, "RUN": run},
        numbers=constants["BD"],
        small=constants["COMPLEX"],
    )
    return out


def backward(
    inputs: TranslationalInputs, signs: Tensor, out: Tensor, grad_out: Tensor, need_query: bool, need_table: bool
) -> tuple[Tensor, Tensor]:
    """Run the backward pass; results as those of ``cpu.backward``."""
    return (
        _grad_query(inputs, out, grad_out) if need_query else inputs.query.new_empty(0),
        _grad_table(inputs, out, grad_out) if need_table else inputs.table.new_empty(0),
    )


def _grad_query(inputs: TranslationalInputs, out: Tensor, grad_out: Tensor) -> Tensor:
    query, table, entity, side, pairs, _ = inputs
    B, S, A, D = query.shape
    K, longest = entity.shape[1], _triton_rows.LONGEST_ROW
    num_parts = max(1, -(-K // longest))
    dtype = query.dtype if num_parts == 1 else accumulator(query)[0]
    grad = query.new_empty(B, num_parts, S, A, D, dtype=dtype)
    constants = _constants(inputs)
    arguments = (query, table, entity, side, pairs, out, grad_out, grad, K, num_parts)
    launch(
        query_pass,
        B * num_parts * S * A * _blocks(constants),
        arguments,
        {**constants, "PART": longest},
        numbers=constants["BD"],
        small=constants["COMPLEX"],
    )
    return (grad[:, 0] if num_parts == 1 else grad.sum(1)).to(query.dtype)


def _grad_table(inputs: TranslationalInputs, out: Tensor, grad_out: Tensor) -> Tensor:
    query, table, entity, side, pairs, _ = inputs
    # Stable, so that the sums of an entity have the order of its draws.
    drawn, order = entity.reshape(-1).sort(stable=True)
    indptr = torch.searchsorted(drawn, torch.arange(len(table) + 1, dtype=drawn.dtype, device=drawn.device))
    rows = rows_of(indptr)
    grad = torch.empty_like(table)
    constants = _constants(inputs)
    spread = (rows.indptr, rows.runs, rows.part_row, rows.part_begin, rows.part_end, rows.longest)
    inputs_of_pass = (query, table, order, *spread, side, pairs, out, grad_out)
    options: dict[str, Any] = {"numbers": constants["BD"], "small": constants["COMPLEX"]}
    blocks, K = constants["M"] * _blocks(constants), entity.shape[1]
    launch(table_pass, rows.num_runs * blocks, (*inputs_of_pass, grad, K), {**constants, "SPLIT": False}, **options)
    if rows.num_parts:
        parts = table.new_empty(rows.num_parts, *table.shape[1:], dtype=accumulator(query)[0])
        launch(
            table_pass, rows.num_parts * blocks, (*inputs_of_pass, parts, K), {**constants, "SPLIT": True}, **options
        )
        grad.index_copy_(0, rows.split_row, sum_parts(rows, parts).to(table.dtype))
    return grad
