"""The operator on CUDA: the border to the kernels of `triton_passes`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hgmm.kernels._triton import device_reasons
from hgmm.kernels._triton_rows import (
    Rows,
    absent,
    accumulator,
    block,
    launch,
    log_sum_exp_parts,
    rows_of,
    sum_parts,
    two_floats,
)
from hgmm.kernels.cross_modal_attention.inputs import (
    COMPILED_COMBINES,
    CrossModalInputs,
    Options,
    compiled_refusals,
)
from hgmm.kernels.cross_modal_attention.triton_passes import (
    attention_pass,
    destination_pass,
    forward_pass,
    source_pass,
)
from hgmm.typing import RelationCSC

__all__ = ["backward", "forward", "unsupported_reasons"]


def unsupported_reasons(inputs: CrossModalInputs) -> list[str]:
    """Say what of these inputs the kernels cannot do."""
    return device_reasons(inputs.k) + compiled_refusals(inputs)


class _Nodes(NamedTuple):
    """The tensors of both sides."""

    k: Tensor
    q_node: Tensor
    q_modal: Tensor
    v: Tensor


class _Call:
    """The arguments that all kernels of one call share."""

    def __init__(self, nodes: _Nodes, present: Tensor | None, lambda_weight: Tensor | None, options: Options) -> None:
        _, self.M, self.H, self.D = nodes.k.shape
        self.nodes, self.poster = nodes, options.combine == "poster"
        self.dtype, acc = accumulator(nodes.q_node)
        masked, lanes = present is not None, (block(self.M), block(self.D))
        uses_u = options.align and options.combine != "b1"
        self.softmaxed = options.combine != "b1" or masked
        self.constants: dict[str, Any] = {
            "M": self.M,
            "H": self.H,
            "D": self.D,
            "BM": lanes[0],
            "BD": lanes[1],
            "ACC": acc,
            "MASKED": masked,
            "COMBINE": COMPILED_COMBINES[options.combine],
            "USES_U": uses_u,
            "USES_B2": uses_u and options.combine != "sharp",
            "IN_LOGS": options.combine == "sharp" or (options.combine == "b1" and masked),
            "UNIFORM_NODES": options.uniform_nodes,
            "UNIFORM_MODALITIES": options.uniform_modalities,
        }
        self.training = {"SOFTMAXED": self.softmaxed}
        # Vectors whose loads are not aligned take more registers, and a tile of half the edges spills none.
        self.numbers = lanes[0] * lanes[1] * (1 if self.D % 4 == 0 else 2)
        nothing = absent(nodes.k)
        self.present = nothing if present is None else present.view(torch.uint8)
        self.lambda_weight = nothing if lambda_weight is None else lambda_weight
        self.gamma = two_floats(options.gamma)

    def empty(self, *shape: int) -> Tensor:
        """Return a tensor for sums."""
        return self.nodes.q_node.new_empty(shape, dtype=self.dtype)

    def run(
        self,
        kernel: Any,
        rows: Rows,
        arguments: tuple[Any, ...],
        *,
        parts: bool,
        backward: bool = False,
        **constants: Any,
    ) -> None:
        """Launch a kernel for the short rows, or for the parts of the long ones."""
        launch(
            kernel,
            (rows.num_parts if parts else rows.num_runs) * self.H,
            arguments,
            {**self.constants, **self.training, **constants, "SPLIT": parts},
            numbers=self.numbers,
            small=backward,
            # The gradient of u has the sign of g_m - g_m', which is 0 for equal logits.
            fuse=not (backward and self.constants["USES_U"]),
        )


def _table(rows: Rows, indices: Tensor) -> tuple[Any, ...]:
    return (rows.indptr, indices, rows.runs, rows.part_row, rows.part_begin, rows.part_end, rows.longest)


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
    """Run the forward pass; results as those of ``cpu.forward``."""
    call = _Call(_Nodes(k, q_node, q_modal, v), present, lambda_weight, options)
    rows, (M, H) = rows_of(csc.indptr), (call.M, call.H)
    out, stats = torch.empty_like(q_node), call.empty(csc.num_dst, 2 * M + 2, H)
    lambda_sum = call.empty(*((0,) if lambda_weight is None else (csc.num_dst, M, H)))

    def run(known: Tensor, results: tuple[Tensor, Tensor, Tensor], *, parts: bool, **sweeps: bool) -> None:
        options = (call.present, call.lambda_weight, *call.gamma)
        arguments = (*call.nodes, *_table(rows, csc.indices), *options, known, *results)
        call.run(forward_pass, rows, arguments, parts=parts, LAMBDA=lambda_weight is not None, **sweeps)

    run(stats, (stats, out, lambda_sum), parts=False, STATISTICS=True, SOFTMAX_B1=call.poster, VALUES=True)
    if rows.num_parts:
        _forward_long(call, rows, run, stats, out, lambda_sum)
    attn = call.empty(*((csc.num_edges, H) if return_attention else (0,)))
    if return_attention:
        arguments = (k, q_node, q_modal, rows.indptr, csc.indices, rows.runs, call.present, *call.gamma, stats, attn)
        constants = {**call.constants, "BETA_IS_W": options.combine == "b1"}
        launch(attention_pass, rows.num_runs * H, arguments, constants, numbers=call.numbers)
    return out, lambda_sum, attn, stats


def _forward_long(call: _Call, rows: Rows, run: Any, stats: Tensor, out: Tensor, lambda_sum: Tensor) -> None:
    """Run sweep after sweep over the parts of the long rows; the next one needs what the parts of a row found."""
    M, count = call.M, rows.num_parts
    # Zero, because a sweep writes only what it finds.
    part_stats, part_out = call.empty(count, *stats.shape[1:]).zero_(), call.empty(count, *out.shape[1:])
    part_lambda = call.empty(*((count, *lambda_sum.shape[1:]) if lambda_sum.numel() else (0,)))
    results = (part_stats, part_out, part_lambda)
    of_rows = stats.new_zeros(rows.split_row.numel(), *stats.shape[1:])

    def join(*found: slice) -> None:
        joined = log_sum_exp_parts(rows, part_stats)
        joined.masked_fill_(joined == -torch.inf, 0)
        for place in found:
            of_rows[:, place] = joined[:, place]
        stats.index_copy_(0, rows.split_row, of_rows)

    run(stats, results, parts=True, STATISTICS=True, SOFTMAX_B1=False, VALUES=False)
    join(slice(0, M), slice(2 * M, 2 * M + 1))
    if call.poster:
        run(stats, results, parts=True, STATISTICS=False, SOFTMAX_B1=True, VALUES=False)
        join(slice(2 * M + 1, 2 * M + 2))
    run(stats, results, parts=True, STATISTICS=False, SOFTMAX_B1=False, VALUES=True)
    if call.softmaxed:
        join(slice(M, 2 * M))
        part_out *= (part_stats[:, M : 2 * M] - stats[rows.part_row, M : 2 * M]).exp_().unsqueeze(3)
    out.index_copy_(0, rows.split_row, sum_parts(rows, part_out).to(out.dtype))
    if lambda_sum.numel():
        lambda_sum.index_copy_(0, rows.split_row, sum_parts(rows, part_lambda))


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
    """Run the backward pass; results as those of ``cpu.backward``."""
    call = _Call(_Nodes(k, q_node, q_modal, v), present, lambda_weight, options)
    call.training["LAMBDA"] = grad_lambda_sum is not None
    weights = (call.lambda_weight, absent(stats) if grad_lambda_sum is None else grad_lambda_sum, *call.gamma)
    records = call.empty(csc.num_dst, call.H, 4 * call.M + 4)
    grad_node, grad_modal = (torch.empty_like(x) if need_dst else x.new_empty(0) for x in (q_node, q_modal))
    _to_destinations(call, csc, weights, out, stats, grad_out, records, [grad_node, grad_modal], need_dst)
    if not need_src:
        return k.new_empty(0), grad_node, grad_modal, v.new_empty(0)
    grad_k, grad_v, rows = torch.empty_like(k), torch.empty_like(v), rows_of(csc.indptr_t)
    common = (*call.nodes, grad_out, *_table(rows, csc.indices_t), call.present, *weights, records)
    call.run(source_pass, rows, (*common, grad_k, grad_v), parts=False, backward=True)
    if rows.num_parts:
        sums = [call.empty(rows.num_parts, *k.shape[1:]) for _ in range(2)]
        call.run(source_pass, rows, (*common, *sums), parts=True, backward=True)
        for grad, parts in zip((grad_k, grad_v), sums, strict=True):
            grad.index_copy_(0, rows.split_row, sum_parts(rows, parts).to(grad.dtype))
    return grad_k, grad_node, grad_modal, grad_v


def _to_destinations(
    call: _Call,
    csc: RelationCSC,
    weights: tuple[Any, ...],
    out: Tensor,
    stats: Tensor,
    grad_out: Tensor,
    records: Tensor,
    grads: list[Tensor],
    need_dst: bool,
) -> None:
    """Write the records, and the gradients of the queries if they are needed."""
    rows = rows_of(csc.indptr)
    common = (*call.nodes, grad_out, out, *_table(rows, csc.indices), call.present, *weights, stats, records)

    def run(results: list[Tensor], *, parts: bool, **sweeps: bool) -> None:
        call.run(destination_pass, rows, (*common, *results), parts=parts, backward=True, **sweeps)

    nothing = absent(stats)
    run([nothing, *grads], parts=False, FIRST=True, SECOND=call.poster, QUERIES=need_dst)
    if not rows.num_parts:
        return
    M, split = call.M, rows.split_row
    mean = (grad_out[split].to(call.dtype) * out[split].to(call.dtype)).sum(3)
    A, R, U, P = torch.split(stats[split], [M, M, 1, 1], 1)
    zero = torch.zeros_like(U)
    # (L, 4 M + 4, H) until it is copied.
    record = torch.cat([A, R, mean, torch.zeros_like(A), U, P, zero, zero], 1)
    sums = call.empty(rows.num_parts, call.H, M + 2)
    for second in (False, True) if call.poster else (False,):
        records.index_copy_(0, split, record.transpose(1, 2))
        run([sums, *grads], parts=True, FIRST=not second, SECOND=second, QUERIES=False)
        of_rows = sum_parts(rows, sums).transpose(1, 2)
        record[:, 3 * M : 4 * M] = of_rows[:, :M]
        if not second:
            record[:, 4 * M + 2 :] = of_rows[:, M:]
    records.index_copy_(0, split, record.transpose(1, 2))
    if need_dst:
        parts = [call.empty(rows.num_parts, *out.shape[1:]) for _ in range(2)]
        run([sums, *parts], parts=True, FIRST=False, SECOND=False, QUERIES=True)
        for grad, part in zip(grads, parts, strict=True):
            grad.index_copy_(0, split, sum_parts(rows, part).to(grad.dtype))
