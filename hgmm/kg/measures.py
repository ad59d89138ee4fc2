"""How a query is compared with a candidate: distances and the inner product, in the three shapes that are needed.

A measure is ``1`` (sum of absolute differences), ``2`` (Euclidean), ``"complex"`` (sum of the moduli of complex
differences) or ``"dot"`` (inner product). Complex vectors of D / 2 numbers are D real ones: all real parts, then all
imaginary parts. Distances have the gradient 0 where they are not differentiable; a modulus of 0 counts as the square
root of the smallest normal number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels import translational_score
from hgmm.kernels._checks import check_axes
from hgmm.kernels._first_order import first_derivatives_only
from hgmm.kernels._segment import block_rows
from hgmm.kernels.translational_score.inputs import check_ids
from hgmm.kg._gathered_products import gathered_products

__all__ = ["MEASURES", "Measure", "measure", "measure_all", "measure_gathered"]

Measure = Literal[1, 2, "complex", "dot"]
MEASURES: tuple[Measure, ...] = (1, 2, "complex", "dot")
# Queries that meet the same candidates while these are in the cache, and operands that share it.
_QUERIES_PER_BLOCK = 4
_OPERANDS = 4


def measure(query: Tensor, candidate: Tensor, kind: Measure) -> Tensor:
    """Compare vectors that lie side by side.

    Parameters
    ----------
    query, candidate : Tensor
        ``(*, D)`` each, broadcast; D even for ``"complex"``.
    kind : int or str
        A name in `MEASURES`.

    Returns
    -------
    Tensor
        ``(*)``; distances, or inner products.

    Raises
    ------
    ConfigError
        `kind` is unknown.
    """
    _check_kind(kind)
    if kind == "dot":
        return (query * candidate).sum(-1)
    difference = query - candidate
    if kind == 1:
        return difference.abs().sum(-1)
    if kind == 2:
        # Unlike a square root of squares it has the gradient 0 at 0.
        length: Tensor = torch.linalg.vector_norm(difference, dim=-1)
        return length
    real, imaginary = difference.chunk(2, -1)
    # For the same reason; torch's norm over an axis of length 2 takes 80 times as long.
    tiny = torch.finfo(difference.dtype).tiny
    return torch.addcmul(real * real, imaginary, imaginary).add(tiny).sqrt().sum(-1)


def measure_all(query: Tensor, candidates: Tensor, kind: Measure) -> Tensor:
    """Compare every query with every candidate.

    Parameters
    ----------
    query : Tensor
        ``(Q, D)``.
    candidates : Tensor
        ``(E, D)``.
    kind : int or str
        A name in `MEASURES`.

    Returns
    -------
    Tensor
        ``(Q, E)``, differentiable in both.

    Raises
    ------
    ConfigError
        `kind` is unknown.
    ShapeError
        The vectors do not fit each other.

    Notes
    -----
    Nothing of size Q x E x D is made: the inner product is a matrix product, distances are summed up pair by pair
    (``torch.cdist`` without the matrix product, which loses half of the digits between near vectors), complex ones in
    blocks of queries and candidates.
    """
    _check_kind(kind)
    check_axes("measure_all", "query", query, ("Q", "D"), hint="one row a query")
    check_axes("measure_all", "candidates", candidates, ("E", query.shape[1]), hint="D is that of query")
    if kind == "dot":
        return query @ candidates.T
    if kind == "complex":
        out: Tensor = _AllByBlocks.apply(query, candidates)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return out
    return torch.cdist(query, candidates, p=float(kind), compute_mode="donot_use_mm_for_euclid_dist")


def measure_gathered(
    query: Tensor,
    table: Tensor,
    entity: Tensor,
    side: Tensor,
    pairs: Tensor,
    kind: Measure = 1,
    *,
    shared: Tensor | None = None,
) -> Tensor:
    """Compare queries with rows of a table that were drawn for them.

    ``out[b, k, p] = |query[b, s, a] - table[entity[b, k], m]|`` with s = ``side[b, k]`` and (a, m) = ``pairs[s, p]``.

    Parameters
    ----------
    query : Tensor
        ``(B, S, A, D)``.
    table : Tensor
        ``(N, M, D)``.
    entity : Tensor
        ``(B, K)`` int64 rows of the table.
    side : Tensor
        ``(B, K)`` int8 or int64 in [0, S).
    pairs : Tensor
        ``(S, P, 2)`` int64: which of the A queries meets which of the M vectors.
    kind : int or str, optional
        A name in `MEASURES`.
    shared : Tensor, optional
        ``(C, L)`` int64, L at most K: what the last L columns of `entity` mostly hold, row c in its rows from
        ``c ceil(B / C)`` on. It changes no result: inner products with what is shared are matrix products.

    Returns
    -------
    Tensor
        ``(B, K, P)``, differentiable once in `query` and `table`.

    Raises
    ------
    ConfigError
        `kind` is unknown.
    ShapeError
        The tensors do not fit each other.

    Notes
    -----
    Nothing of size B x K x D is made or kept: distances come from `hgmm.kernels.translational_score`, which has no
    use for `shared`, and for inner products vectors are gathered in blocks, forward and again backward.
    """
    _check_kind(kind)
    where = "measure_gathered"
    check_axes(where, "query", query, ("B", "S", "A", "D"), hint="one query a side and modality")
    B, S, _, D = query.shape
    check_axes(where, "table", table, ("N", "M", D), hint="D is that of query")
    check_axes(where, "entity", entity, (B, "K"), hint="B is that of query")
    check_axes(where, "side", side, tuple(entity.shape), hint="one side a drawn entity")
    check_axes(where, "pairs", pairs, (S, "P", 2), hint="a list of pairs a side")
    if shared is not None:
        check_axes(where, "shared", shared, ("C", "L"), hint="one row a run of queries")
        (C, L), K = shared.shape, entity.shape[1]
        if L > K or C > B or (B and not C):
            raise ShapeError(
                f"{where}, shared: expected (C, L) with C in [1, {B}] and L in [0, {K}], got ({C}, {L}); one row a run "
                "of queries, one entry for each of the last columns of entity"
            )
    if kind != "dot" and pairs.shape[1]:
        return translational_score(query, table, entity, side.to(torch.int8), pairs, kind)
    check_ids(query, table, entity, side, pairs, where=where)
    return gathered_products(query, table, entity, side, pairs, shared)


def _check_kind(kind: object) -> None:
    if kind not in MEASURES or isinstance(kind, bool):
        raise ConfigError(f"measure, kind: unknown measure {kind!r}; known: {', '.join(map(str, MEASURES))}")


def _derivatives(function: Callable[..., Tensor], leaves: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
    """Compute a block again and return the derivatives of its inputs."""
    with torch.enable_grad():
        leaves = tuple(x.detach().requires_grad_() for x in leaves)
        result = function(*leaves)
    return torch.autograd.grad(result, leaves, grad)


class _AllByBlocks(torch.autograd.Function):
    """Complex distances of all queries from all candidates."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, candidates: Tensor) -> Tensor:
        ctx.save_for_backward(query, candidates)
        out = query.new_empty(len(query), len(candidates))
        # Contiguous parts and no new tensors: a third faster than the formula that is differentiated.
        query_real, query_imaginary = (x.contiguous() for x in query.chunk(2, -1))
        real, imaginary = (x.contiguous() for x in candidates.chunk(2, -1))
        for rows, columns in _AllByBlocks._blocks(query, candidates):
            x = query_real[rows].unsqueeze(1) - real[columns]
            y = query_imaginary[rows].unsqueeze(1) - imaginary[columns]
            out[rows, columns] = x.mul_(x).addcmul_(y, y).sqrt_().sum(-1)
        return out

    @staticmethod
    @first_derivatives_only("measure_all")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        query, candidates = ctx.saved_tensors
        grad_query, grad_candidates = torch.zeros_like(query), torch.zeros_like(candidates)
        for rows, columns in _AllByBlocks._blocks(query, candidates):
            leaves = (query[rows], candidates[columns])
            of_query, of_candidates = _derivatives(
                lambda q, c: measure(q.unsqueeze(1), c, "complex"), leaves, grad[rows, columns]
            )
            grad_query[rows] += of_query
            grad_candidates[columns] += of_candidates
        return grad_query, grad_candidates

    @staticmethod
    def _blocks(query: Tensor, candidates: Tensor) -> Iterator[tuple[slice, slice]]:
        height = min(_QUERIES_PER_BLOCK, max(1, len(query)))
        width = max(1, block_rows(candidates) // (height * _OPERANDS))
        for first in range(0, len(candidates), width):
            for top in range(0, len(query), height):
                yield slice(top, top + height), slice(first, first + width)
