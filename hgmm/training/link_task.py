"""Completing triples: a task of the trainer for models of knowledge graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.kg import PairScores, RankingEvaluator, TripleSet
from hgmm.losses import ranking_loss, vector_regularizer
from hgmm.sampling import EntityNegativeSampler, NegativeBatch
from hgmm.training.config import LINK_MONITORS, TrainConfig
from hgmm.training.link_config import LinkConfig
from hgmm.training.link_samplers import make_sampler
from hgmm.training.loaders import stream_seed

__all__ = ["LinkPlan", "LinkPredictionTask", "TripleBatch", "TripleLoader", "make_evaluator", "ranking_figures"]


class TripleBatch(NamedTuple):
    """One step's positives and what they are compared with.

    Attributes
    ----------
    positives : Tensor
        ``(B, 3)`` int64.
    negatives : NegativeBatch
        K for each.
    """

    positives: Tensor
    negatives: NegativeBatch

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positional arguments of the model: positives ``(B, 3)``, entities ``(B, K)`` and sides ``(B, K)``."""
        return self.positives, self.negatives.entity, self.negatives.side

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
    sampler : EntityNegativeSampler
        Draws the negatives.
    batch_size : int
        Triples a batch; the last may have fewer.
    seed : int
        Of order and negatives.
    device : torch.device
        Where the model is.
    """

    def __init__(
        self, triples: Tensor, sampler: EntityNegativeSampler, *, batch_size: int, seed: int, device: torch.device
    ) -> None:
        self.num_items = len(triples)
        self._triples = triples.to(device)
        self._sampler = sampler
        self._batch_size = batch_size
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
            yield TripleBatch(positives, self._sampler.sample(positives, seed=self._seed, step=step))


class LinkPlan:
    """Train on the triples of a knowledge graph, and rank those of its validation and test split.

    Parameters
    ----------
    train : TripleLoader
        The batches of an epoch.
    triples : TripleSet
        With what is validated and tested on.
    """

    def __init__(self, train: TripleLoader, triples: TripleSet) -> None:
        self.train = train
        self._triples = triples
        self.has_val = len(triples.val) > 0
        self.has_test = len(triples.test) > 0

    @cached_property
    def _evaluator(self) -> RankingEvaluator:
        return make_evaluator(self._triples)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the validation triples."""
        return ranking_figures(model, self._evaluator, self._triples.val) if self.has_val else {}

    def test(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the test triples."""
        return ranking_figures(model, self._evaluator, self._triples.test)


class LinkPredictionTask:
    """Complete triples: score the true ones above corrupted ones.

    Any model does that is called as `hgmm.models.MMKGE` is and has its ``pairs``, ``candidates`` and ``loss_vectors``.

    Parameters
    ----------
    config : LinkConfig
        Negatives, loss and regulariser.
    monitor : str, optional
        Validation figure that chooses the weights to keep: ``mrr``, ``mean_rank``, ``hits_at_1``, ``_3`` or ``_10``;
        filtered, realistic ties, both sides.
    patience_monitor : str, optional
        Validation figure that early stopping watches. Default: `monitor`.

    Notes
    -----
    Negatives are drawn for a seed, a step and a place in the batch, so a resumed run draws what it would have drawn.
    A negative replaces one end of a triple in all its modalities.
    """

    unit = "training triples"

    def __init__(self, config: LinkConfig, *, monitor: str = "mrr", patience_monitor: str | None = None) -> None:
        for name, value in (("monitor", monitor), ("patience_monitor", patience_monitor or monitor)):
            if value not in LINK_MONITORS:
                raise ConfigError(
                    f"train.{name}: link prediction gives {', '.join(LINK_MONITORS)}, got {value!r}; choose one"
                )
        self.config = config
        self.monitor = (monitor, LINK_MONITORS[monitor])
        self.patience_monitor = (patience_monitor or monitor, LINK_MONITORS[patience_monitor or monitor])

    def plan(self, model: Any, graph: MultimodalGraph, config: TrainConfig, device: torch.device) -> LinkPlan:
        """Return what the trainer goes through.

        Raises
        ------
        SchemaError
            If the graph has no triples, or none to train on.
        """
        triples = graph.triples
        if triples is None:
            raise SchemaError(f"LinkPredictionTask graph: {graph.name!r} has no triples; give it a knowledge graph")
        if not len(triples.train):
            raise SchemaError(f"Trainer.fit graph: {graph.name!r} has no training triple; give it some")
        sampler = make_sampler(self.config, triples, num_modalities=len(model.modality_names))
        train = TripleLoader(triples.train, sampler, batch_size=self.config.batch_size, seed=config.seed, device=device)
        return LinkPlan(train, triples)

    def training_loss(self, model: Any, output: PairScores, batch: TripleBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step and its terms."""
        config, pairs = self.config, model.pairs
        loss = ranking_loss(
            pairs.total(output.positive, output.positive_present),
            pairs.total(output.negative, output.negative_present),
            form="sigmoid" if config.loss == "self-adversarial" else config.loss,
            margin=None if config.loss == "softplus" else config.margin,
            temperature=config.adversarial_temperature if config.loss == "self-adversarial" else None,
        )
        terms = {"ranking": float(loss.detach())}
        if config.regularizer_weight:
            power = {"l2": 2, "n3": 3}[config.regularizer]
            penalty = vector_regularizer(*model.loss_vectors(batch.positives), power=power)
            terms["regularizer"] = float(penalty.detach())
            loss = loss + config.regularizer_weight * penalty
        return loss, terms


def make_evaluator(triples: TripleSet) -> RankingEvaluator:
    """Return what ranks triples of a knowledge graph, filtered by those of all its splits."""
    return RankingEvaluator(triples.known, num_entities=triples.num_entities, num_relations=triples.num_relations)


@torch.no_grad()
def ranking_figures(model: Any, evaluator: RankingEvaluator, triples: Tensor) -> dict[str, float]:
    """Rank triples among all entities, without the other triples that the evaluator knows.

    Parameters
    ----------
    model : torch.nn.Module
        With ``candidates()``, a `hgmm.kg.CandidateScorer`; its mode is restored.
    evaluator : RankingEvaluator
        From `make_evaluator`.
    triples : Tensor
        ``(n, 3)`` int64, n at least 1.

    Returns
    -------
    dict of str to float
        ``mrr``, ``mean_rank``, ``hits_at_1``, ``hits_at_3``, ``hits_at_10`` and ``adjusted_mean_rank_index``.
    """
    was_training = model.training
    model.eval()
    figures = evaluator.evaluate(model.candidates(), triples).metrics()
    model.train(was_training)
    return figures
