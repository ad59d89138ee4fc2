"""Batches of triples with their negatives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.sampling import EntityNegativeSampler, ModalityAwareNegativeSampler, NegativeBatch
from hgmm.training.loaders import stream_seed

__all__ = ["TripleBatch", "TripleLoader"]


class TripleBatch(NamedTuple):
    """One step's positives and what they are compared with.

    Attributes
    ----------
    positives : Tensor
        ``(B, 3)`` int64.
    negatives : NegativeBatch
        K for each; K = 0 where all entities are compared.
    """

    positives: Tensor
    negatives: NegativeBatch

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Positional arguments of the model: positives ``(B, 3)``, entities ``(B, K)`` and sides ``(B, K)``.

        Where candidates are shared, these ``(C, K)``, too.
        """
        negatives = self.negatives
        inputs = self.positives, negatives.entity, negatives.side
        return inputs if negatives.shared is None else (*inputs, negatives.shared)

    @property
    def num_items(self) -> int:
        """B."""
        return len(self.positives)


class TripleLoader:
    """Batches of training triples, each epoch in another order, with negatives.

    A batch depends on nothing but the seed, the epoch and its number.

    Parameters
    ----------
    triples : Tensor
        ``(n, 3)`` int64.
    sampler : EntityNegativeSampler or ModalityAwareNegativeSampler or None
        Draws the negatives; None draws none.
    batch_size : int
        Triples a batch; the last may have fewer.
    epochs : int
        Of the whole run, for samplers that change with its progress.
    seed : int
        Of order and negatives.
    device : torch.device
        Where the model is.
    """

    def __init__(
        self,
        triples: Tensor,
        sampler: EntityNegativeSampler | ModalityAwareNegativeSampler | None,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.num_items = len(triples)
        self._triples = triples.to(device)
        self._sampler = sampler
        self._batch_size = batch_size
        self._epochs = epochs
        self._seed = seed

    def __len__(self) -> int:
        return math.ceil(self.num_items / self._batch_size)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[TripleBatch]:
        """Yield the batches of an epoch, counted from 1, from number `start` on."""
        generator = torch.Generator().manual_seed(stream_seed(self._seed, epoch))
        order = torch.randperm(self.num_items, generator=generator).to(self._triples.device)
        for number, rows in enumerate(torch.split(order, self._batch_size)):
            if number < start:
                continue
            positives = self._triples[rows]
            step = (epoch - 1) * len(self) + number
            yield TripleBatch(positives, self._draw(positives, step, (epoch - 1) / self._epochs))

    def _draw(self, positives: Tensor, step: int, progress: float) -> NegativeBatch:
        if self._sampler is None:
            nothing = positives.new_empty(len(positives), 0)
            return NegativeBatch(nothing, nothing, nothing.bool().unsqueeze(2))
        return self._sampler.sample(positives, seed=self._seed, step=step, progress=progress)
