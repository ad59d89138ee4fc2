"""Inner products with rows of a table that were drawn, each for itself or for many queries at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hgmm.kernels._first_order import first_derivatives_only
from hgmm.kernels._segment import block_rows

__all__ = ["gathered_products"]


def gathered_products(
    query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, shared: Tensor | None = None
) -> Tensor:
    """Multiply as `hgmm.kg.measures.measure_gathered` says; its arguments, checked."""
    out: Tensor = _GatheredProducts.apply(query, table, entity, side, pairs, shared)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _GatheredProducts(torch.autograd.Function):
    """Matrix products of chunks, for either side, then one by one what is not shared."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, shared: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(query, table, entity, side, pairs, shared)
        out = query.new_empty(*entity.shape, pairs.shape[1])
        alone = None
        if shared is not None:
            chunks = _Chunks(query, entity, side, pairs, shared)
            alone = chunks.alone
            chunks.score(query, table, out)
        flat = out.flatten(0, 1)
        for places, rows, ids, met in _blocks(query, table, entity, side, pairs, alone):
            flat[places] = _by_pair(query.flatten(0, 1)[rows], table[ids], met)
        return out

    @staticmethod
    @first_derivatives_only("measure_gathered")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, table, entity, side, pairs, shared = ctx.saved_tensors
        grad_query, grad_table = query.new_zeros(query.shape), torch.zeros_like(table)
        alone = None
        if shared is not None:
            chunks = _Chunks(query, entity, side, pairs, shared)
            alone = chunks.alone
            chunks.add_derivatives(query, table, grad, grad_query, grad_table)
        flat, of_flat, grad = query.flatten(0, 1), grad_query.view(-1, *query.shape[2:]), grad.flatten(0, 1)
        for places, rows, ids, met in _blocks(query, table, entity, side, pairs, alone):
            of_query, of_table = _derivatives(flat[rows], table[ids], met, grad[places])
            of_flat.index_add_(0, rows, of_query)
            grad_table.index_add_(0, ids, of_table)
        return grad_query, grad_table, None, None, None, None


class _Chunks:
    """What is shared, in the last columns.

    Attributes
    ----------
    alone : Tensor
        ``(B, K)`` bool, True for what is not.
    """

    def __init__(self, query: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, shared: Tensor) -> None:
        (B, K), (C, L) = entity.shape, shared.shape
        self.rows, self.first = max(1, math.ceil(B / max(C, 1))), K - L
        self.shared, self.num_chunks = shared, C
        common = shared.repeat_interleave(self.rows, 0)[:B]
        self.alone = torch.ones_like(entity, dtype=torch.bool)
        torch.ne(entity[:, self.first :], common, out=self.alone[:, self.first :])
        self.side = side[:, self.first :]
        self.pairs: list[list[list[int]]] = pairs.tolist()

    def score(self, query: Tensor, table: Tensor, out: Tensor) -> None:
        """Fill the last columns; nothing is said of what is alone."""
        queries, candidates = self._cut(query), table[self.shared]
        for s, met in enumerate(self.pairs):
            for p, (a, m) in enumerate(met):
                product = self._join(queries[:, :, s, a] @ candidates[:, :, m].mT, len(query))
                to = out[:, self.first :, p]
                to.copy_(product if s == 0 else torch.where(self.side == s, product, to))

    def add_derivatives(
        self, query: Tensor, table: Tensor, grad: Tensor, grad_query: Tensor, grad_table: Tensor
    ) -> None:
        """Add what these columns give to the gradients."""
        queries, candidates = self._cut(query), table[self.shared]
        of_candidates = torch.zeros_like(candidates)
        for s, met in enumerate(self.pairs):
            elsewhere = self.alone[:, self.first :] | (self.side != s)
            for p, (a, m) in enumerate(met):
                of_product = self._cut(grad[:, self.first :, p].masked_fill(elsewhere, 0))
                grad_query[:, s, a] += self._join(of_product @ candidates[:, :, m], len(query))
                of_candidates[:, :, m] += of_product.mT @ queries[:, :, s, a]
        grad_table.index_add_(0, self.shared.flatten(), of_candidates.flatten(0, 1))

    def _cut(self, x: Tensor) -> Tensor:
        """Return ``(C, rows, *)`` of ``(B, *)``, with zeros after the last."""
        missing = self.num_chunks * self.rows - len(x)
        if missing:
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
        return x.view(self.num_chunks, self.rows, *x.shape[1:])

    def _join(self, x: Tensor, length: int) -> Tensor:
        return x.flatten(0, 1)[:length]


def _blocks(
    query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, alone: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, list[list[int]]]]:
    """Yield places in the flat result, rows of the flat queries, rows of the table and the pairs, by side."""
    _, S, A, D = query.shape
    width = max(1, block_rows(query.new_empty(0, A + table.shape[1], D)))
    flat_entity, flat_side = entity.flatten(), side.flatten()
    for s in range(S):
        of_side = flat_side == s
        if alone is not None:
            of_side &= alone.flatten()
        met = pairs[s].tolist()
        for places in torch.split(of_side.nonzero().squeeze(1), width):
            yield places, places.div(entity.shape[1], rounding_mode="floor") * S + s, flat_entity[places], met


def _by_pair(query: Tensor, vectors: Tensor, pairs: Sequence[Sequence[int]]) -> Tensor:
    """Multiply ``(n, A, D)`` by ``(n, M, D)`` for each of the P pairs: ``(n, P)``."""
    if not pairs:
        return query.new_empty(len(query), 0)
    return torch.stack([(query[:, a] * vectors[:, m]).sum(-1) for a, m in pairs], 1)


def _derivatives(query: Tensor, vectors: Tensor, pairs: Sequence[Sequence[int]], grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``_by_pair(query, vectors, pairs)``."""
    of_query, of_vectors = torch.zeros_like(query), torch.zeros_like(vectors)
    for p, (a, m) in enumerate(pairs):
        of_query[:, a].addcmul_(vectors[:, m], grad[:, p, None])
        of_vectors[:, m].addcmul_(query[:, a], grad[:, p, None])
    return of_query, of_vectors
