"""Vectors of entities: a learned table and projections of constant features, as one node of autograd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hgmm.kernels._first_order import first_derivatives_only
from hgmm.kernels._segment import block_rows

__all__ = ["Projected", "entity_vectors", "renumber"]

# What torch.nn.functional.normalize takes for the length of shorter vectors.
_SHORTEST = 1e-12


class Projected(NamedTuple):
    """A modality: ``features[e] @ weight.T + bias``.

    Attributes
    ----------
    features : Tensor
        ``(E, W)``, a constant of any float dtype; rows are cast to that of `weight`.
    weight, bias : Tensor
        ``(D, W)`` and ``(D,)``.
    """

    features: Tensor
    weight: Tensor
    bias: Tensor


def renumber(num_entities: int, *ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct entities of some tensors, ascending, and for each of all entities its place among these."""
    # Sorting what was drawn takes longer than going through a mark for every entity.
    drawn = torch.zeros(num_entities, dtype=torch.bool, device=ids[0].device)
    for x in ids:
        drawn[x] = True
    distinct = drawn.nonzero().squeeze(1)
    place = torch.empty(num_entities, dtype=torch.int64, device=distinct.device)
    place[distinct] = torch.arange(len(distinct), device=distinct.device)
    return distinct, place


def entity_vectors(
    structure: Tensor,
    projected: Sequence[Projected],
    entities: Tensor | None,
    taken: Tensor,
    *,
    normalize: bool,
    row_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the vectors of entities by modality, learned ones first, and some of them once more.

    Parameters
    ----------
    structure : Tensor
        ``(E, D)`` learned vectors.
    projected : sequence of Projected
        The M - 1 other modalities.
    entities : Tensor or None
        ``(U,)`` int64, each at most once; None for all.
    taken : Tensor
        ``(n,)`` int64 rows of the result that are returned a second time.
    normalize : bool
        Divide every vector by its length.
    row_gradient : bool, optional
        Make the gradient of `structure` a sparse tensor with the rows of `entities`, unless those are all.

    Returns
    -------
    table, of_taken : Tensor
        ``(U, M, D)``, and ``table[taken]``, ``(n, M, D)``; differentiable once in `structure`, weights and biases.

    Notes
    -----
    Works in blocks of entities that stay in the cache, forward and backward. Beside the result and its lengths nothing
    is kept for the backward pass: no rows of features, which autograd would keep, and no vectors as they were before
    they were divided.
    """
    # The gradient of what is taken joins that of the table in one pass; indexing would make a table of zeros for it.
    results: tuple[Tensor, Tensor] = _EntityVectors.apply(  # type: ignore[no-untyped-call]  # torch leaves it so
        entities, taken, normalize, row_gradient, structure, *chain.from_iterable(projected)
    )
    return results


class _EntityVectors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        entities: Tensor | None,
        taken: Tensor,
        normalize: bool,
        row_gradient: bool,
        structure: Tensor,
        *projected: Tensor,
    ) -> tuple[Tensor, Tensor]:
        modalities = _triples(projected)
        shape = (len(structure) if entities is None else len(entities), 1 + len(modalities), structure.shape[1])
        lengths: Tensor | None
        if normalize and entities is None and not modalities:
            # Nothing to put side by side, so nothing to copy.
            unit, length = _divide(structure)
            out, lengths = unit.unsqueeze(1), length.unsqueeze(1)
        else:
            out = structure.new_empty(shape)
            lengths = out.new_empty(*shape[:2], 1) if normalize else None
            for rows, chosen in _blocks(entities, out, modalities):
                for m in range(shape[1]):
                    x = _project(modalities[m - 1], chosen) if m else structure[chosen]
                    if lengths is None:
                        out[rows, m] = x
                    else:
                        out[rows, m], lengths[rows, m] = _divide(x.to(out.dtype))
        ctx.row_gradient = row_gradient and entities is not None
        ctx.set_materialize_grads(False)
        of_taken = out[taken]
        ctx.save_for_backward(entities, taken, structure, out, of_taken, lengths, *projected)
        return out, of_taken

    @staticmethod
    @first_derivatives_only("MMKGE")
    def backward(ctx: Any, grad_table: Tensor | None, grad_taken: Tensor | None) -> tuple[Tensor | None, ...]:
        entities, taken, structure, out, of_taken, lengths, *projected = ctx.saved_tensors
        modalities, needed = _triples(projected), ctx.needs_input_grad[4:]
        grad = _before_division(grad_table, out, lengths) if grad_table is not None else torch.zeros_like(out)
        if grad_taken is not None:
            # Division is the same for both, so only these few rows take part.
            length = None if lengths is None else lengths[taken]
            grad.index_add_(0, taken, _before_division(grad_taken, of_taken, length))
        sums = [torch.zeros_like(x) if need else None for x, need in zip(projected, needed[1:], strict=True)]
        for rows, chosen in _blocks(entities, out, modalities) if modalities else ():
            for m, (features, of_weight, of_bias) in enumerate(
                zip(projected[::3], sums[1::3], sums[2::3], strict=True), 1
            ):
                if of_weight is not None:
                    of_weight.addmm_(grad[rows, m].T, features[chosen].to(of_weight.dtype))
                if of_bias is not None:
                    of_bias.add_(grad[rows, m].sum(0))
        of_structure = _of_structure(grad[:, 0], structure, entities, sparse=ctx.row_gradient) if needed[0] else None
        return None, None, None, None, of_structure, *sums


def _triples(projected: Sequence[Tensor]) -> list[Projected]:
    return [Projected(*projected[i : i + 3]) for i in range(0, len(projected), 3)]


def _blocks(
    entities: Tensor | None, out: Tensor, modalities: Sequence[Projected]
) -> Iterator[tuple[slice, slice | Tensor]]:
    """Yield runs of rows of the result and the entities that they are of."""
    size = min(block_rows(x) for x in (out.flatten(1), *(features for features, _, _ in modalities)))
    for first in range(0, len(out), size):
        rows = slice(first, min(first + size, len(out)))
        yield rows, rows if entities is None else entities[rows]


def _project(modality: Projected, chosen: slice | Tensor) -> Tensor:
    features, weight, bias = modality
    return torch.addmm(bias, features[chosen].to(weight.dtype), weight.T)


def _divide(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors ``(n, D)`` divided by their lengths, and these, ``(n, 1)``."""
    if not len(x):
        # The operator below does not take nothing.
        return x.clone(), x.new_empty(0, 1)
    # What torch's weight normalisation rests on: one pass over the vectors instead of two.
    unit, length = torch.ops.aten._weight_norm_interface(x, x.new_ones(len(x), 1))
    length = length.view(-1, 1).to(x.dtype)
    short = length <= _SHORTEST
    if _may_have_any(short):
        length = length.clamp(min=_SHORTEST)
        unit = torch.where(short, x / _SHORTEST, unit)
    return unit, length


def _before_division(grad: Tensor, out: Tensor, lengths: Tensor | None) -> Tensor:
    """Return, in a tensor of its own, the gradient of vectors that were divided by their lengths, or were not."""
    if lengths is None or not len(out):
        return grad.clone(memory_format=torch.contiguous_format)
    D = out.shape[-1]
    of_unit, unit, factor = grad.reshape(-1, D), out.view(-1, D), lengths.reciprocal().view(-1, 1)
    # As in `_divide`, at vectors of length 1 with 1 / length as their gain.
    ones = torch.ones_like(factor, dtype=torch.promote_types(factor.dtype, torch.float32))
    result: Tensor = torch.ops.aten._weight_norm_interface_backward(of_unit, unit, factor, ones, 0)[0]
    # The length of the shortest vectors is a constant.
    short = lengths.view(-1, 1) <= _SHORTEST
    if _may_have_any(short):
        result = torch.where(short, of_unit * factor, result)
    return result.view_as(out)


def _may_have_any(mask: Tensor) -> bool:
    # A GPU would have to be waited for.
    return mask.device.type != "cpu" or bool(mask.any())


def _of_structure(grad: Tensor, structure: Tensor, entities: Tensor | None, *, sparse: bool) -> Tensor:
    if entities is None:
        return grad.contiguous()
    if sparse:
        return torch.sparse_coo_tensor(
            entities.unsqueeze(0), grad.contiguous(), structure.shape, is_coalesced=True, check_invariants=False
        )
    return torch.zeros_like(structure).index_copy_(0, entities, grad)
