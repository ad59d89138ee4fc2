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
from torch.autograd.function import once_differentiable

from hgmm.errors import ConfigError
from hgmm.kernels import translational_score
from hgmm.kernels._checks import check_axes
from hgmm.kernels._segment import block_rows

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
    query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, kind: Measure = 1
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
    Nothing of size B x K x D is made or kept: distances come from `hgmm.kernels.translational_score`, and for inner
    products vectors are gathered in blocks, forward and again backward.
    """
    _check_kind(kind)
    where = "measure_gathered"
    check_axes(where, "query", query, ("B", "S", "A", "D"), hint="one query a side and modality")
    B, S, _, D = query.shape
    check_axes(where, "table", table, ("N", "M", D), hint="D is that of query")
    check_axes(where, "entity", entity, (B, "K"), hint="B is that of query")
    check_axes(where, "side", side, tuple(entity.shape), hint="one side a drawn entity")
    check_axes(where, "pairs", pairs, (S, "P", 2), hint="a list of pairs a side")
    if kind != "dot" and pairs.shape[1]:
        return translational_score(query, table, entity, side.to(torch.int8), pairs, kind)
    out: Tensor = _GatheredProducts.apply(query, table, entity, side, pairs)  # type: ignore[no-untyped-call]  # as above
    return out


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
    @once_differentiable
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


class _GatheredProducts(torch.autograd.Function):
    """Inner products with drawn rows, one side after the other."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(query, table, entity, side, pairs)
        out = query.new_empty(entity.numel(), pairs.shape[1])
        for places, rows, ids, met in _GatheredProducts._blocks(query, table, entity, side, pairs):
            out[places] = _by_pair(query.flatten(0, 1)[rows], table[ids], met)
        return out.view(*entity.shape, pairs.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, table, entity, side, pairs = ctx.saved_tensors
        grad = grad.flatten(0, 1)
        flat = query.flatten(0, 1)
        grad_query, grad_table = torch.zeros_like(flat), torch.zeros_like(table)
        for places, rows, ids, met in _GatheredProducts._blocks(query, table, entity, side, pairs):
            leaves = (flat[rows], table[ids])
            of_query, of_table = _derivatives(lambda q, t, met=met: _by_pair(q, t, met), leaves, grad[places])
            grad_query.index_add_(0, rows, of_query)
            grad_table.index_add_(0, ids, of_table)
        return grad_query.view_as(query), grad_table, None, None, None

    @staticmethod
    def _blocks(
        query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, list[list[int]]]]:
        """Yield places in the flat result, rows of the flat queries, rows of the table and the pairs, by side."""
        _, S, A, D = query.shape
        width = max(1, block_rows(query.new_empty(0, A + table.shape[1], D)))
        flat_entity, flat_side = entity.flatten(), side.flatten()
        for s in range(S):
            met = pairs[s].tolist()
            for places in torch.split((flat_side == s).nonzero().squeeze(1), width):
                yield places, places.div(entity.shape[1], rounding_mode="floor") * S + s, flat_entity[places], met


def _by_pair(query: Tensor, vectors: Tensor, pairs: list[list[int]]) -> Tensor:
    """Multiply ``(n, A, D)`` by ``(n, M, D)`` for each of the P pairs: ``(n, P)``."""
    if not pairs:
        return query.new_empty(len(query), 0)
    return torch.stack([measure(query[:, a], vectors[:, m], "dot") for a, m in pairs], 1)
