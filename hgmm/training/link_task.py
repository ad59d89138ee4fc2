"""Completing triples: a task of the trainer for models of knowledge graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.kg import PairScores, RankingEvaluator
from hgmm.losses import ranking_loss, vector_regularizer
from hgmm.sampling import NegativeBatch
from hgmm.training.config import MONITORS, TrainConfig
from hgmm.training.link_config import LinkConfig
from hgmm.training.link_samplers import TripleSampler, make_sampler
from hgmm.training.loaders import stream_seed

__all__ = ["LinkPlan", "LinkPredictionTask", "TripleBatch", "TripleLoader", "ranking_figures"]

SINGLE = "single_modality"


class TripleBatch(NamedTuple):
    """One step's positives and what they are compared with.

    Attributes
    ----------
    inputs : tuple
        Positional arguments of the model: positives ``(B, 3)``, entities ``(B, K)`` and sides ``(B, K)``.
    negatives : NegativeBatch
        The same with the modalities that are corrupted.
    """

    inputs: tuple[Tensor, Tensor, Tensor]
    negatives: NegativeBatch

    @property
    def num_items(self) -> int:
        """B."""
        return len(self.inputs[0])


class TripleLoader:
    """Batches of training triples, each epoch in another order, with negatives.

    A batch depends on nothing but the seed, the epoch and its number.

    Parameters
    ----------
    triples : Tensor
        ``(n, 3)`` int64.
    sampler : TripleSampler
        Draws the negatives.
    batch_size : int
        Triples a batch; the last may have fewer.
    seed : int
        Of order and negatives.
    epochs : int
        Of the run, of which a sampler may be told the share that is over.
    device : torch.device
        Where the model is.
    """

    def __init__(
        self, triples: Tensor, sampler: TripleSampler, *, batch_size: int, seed: int, epochs: int, device: torch.device
    ) -> None:
        self.num_items = len(triples)
        self._triples = triples.to(device)
        self._sampler = sampler
        self._batch_size = batch_size
        self._seed = seed
        self._epochs = epochs

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
            step, progress = (epoch - 1) * len(self) + number, (epoch - 1) / self._epochs
            negatives = self._sampler.sample(positives, seed=self._seed, step=step, progress=progress)
            yield TripleBatch((positives, negatives.entity, negatives.side), negatives)


class LinkPlan:
    """Train on the triples of a knowledge graph, and rank those of its validation and test split.

    Parameters
    ----------
    graph : MultimodalGraph
        With `triples`.
    config : TrainConfig
        Seed and number of epochs.
    link : LinkConfig
        How triples are batched and corrupted.
    sampler : TripleSampler
        Draws the negatives.
    device : torch.device
        Where the model is.

    Raises
    ------
    SchemaError
        If there are no training triples.
    """

    def __init__(
        self,
        graph: MultimodalGraph,
        config: TrainConfig,
        link: LinkConfig,
        sampler: TripleSampler,
        device: torch.device,
    ) -> None:
        triples = _triples(graph)
        if not len(triples.train):
            raise SchemaError(f"Trainer.fit graph: {graph.name!r} has no training triple; give it some")
        self._graph = graph
        self.train = TripleLoader(
            triples.train,
            sampler,
            batch_size=link.batch_size,
            seed=config.seed,
            epochs=config.epochs,
            device=device,
        )
        self.has_val = len(triples.val) > 0
        self.has_test = len(triples.test) > 0

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the validation triples."""
        return ranking_figures(model, self._graph, _triples(self._graph).val) if self.has_val else {}

    def test(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the test triples."""
        return ranking_figures(model, self._graph, _triples(self._graph).test)


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
    Each drawn entity is scored once in all pairs of modalities; which modalities are corrupted decides which of these
    scores count, so ``mans-a`` costs no second pass.

    References
    ----------
    MANS, IJCNN 2023, arXiv 2304.11618; its released code trains with the margin and one negative.
    """

    unit = "training triples"

    def __init__(self, config: LinkConfig, *, monitor: str = "mrr", patience_monitor: str | None = None) -> None:
        for name, value in (("monitor", monitor), ("patience_monitor", patience_monitor or monitor)):
            if value not in LINK_MONITORS:
                raise ConfigError(
                    f"train.{name}: link prediction gives {', '.join(LINK_MONITORS)}, got {value!r}; choose one"
                )
        self.config = config
        self.monitor = (monitor, MONITORS[monitor])
        self.patience_monitor = (patience_monitor or monitor, MONITORS[patience_monitor or monitor])
        self._sampler: TripleSampler | None = None
        self._single = torch.zeros(2, dtype=torch.float64)

    def plan(self, model: Any, graph: MultimodalGraph, config: TrainConfig, device: torch.device) -> LinkPlan:
        """Return what the trainer goes through."""
        self._sampler = make_sampler(self.config, graph, tuple(model.modality_names))
        return LinkPlan(graph, config, self.config, self._sampler, device)

    def training_loss(self, model: Any, output: PairScores, batch: TripleBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step and its terms."""
        assert self._sampler is not None
        config, pairs = self.config, model.pairs
        negatives = self._sampler.choose(
            batch.negatives, *pairs.intra_and_inter(output.negative, output.negative_present)
        )
        self._note(negatives.modality)
        scores, present = pairs.compose(output, negatives.side, negatives.modality)
        loss = ranking_loss(
            pairs.total(output.positive, output.positive_present),
            pairs.total(scores, present),
            form="sigmoid" if config.loss == "self-adversarial" else config.loss,
            margin=None if config.loss == "softplus" else config.margin,
            temperature=config.adversarial_temperature if config.loss == "self-adversarial" else None,
        )
        terms = {"ranking": float(loss.detach())}
        if config.regularizer_weight:
            power = {"l2": 2, "n3": 3}[config.regularizer]
            penalty = vector_regularizer(*model.loss_vectors(batch.inputs[0]), power=power)
            terms["regularizer"] = float(penalty.detach())
            loss = loss + config.regularizer_weight * penalty
        return loss, terms

    def figures(self) -> dict[str, dict[str, float]]:
        """Return by group what the epoch's record shall keep: the share of negatives that keep a modality."""
        if self.config.sampler == "normal" or not self._single[1]:
            return {}
        return {"negatives": {SINGLE: float(self._single[0] / self._single[1])}}

    def on_epoch_end(self, epoch: int) -> None:
        """Count anew."""
        self._single.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was counted in this epoch."""
        return {SINGLE: self._single}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self._single = state[SINGLE].clone()

    def _note(self, modality: Tensor) -> None:
        if self.config.sampler != "normal":
            single = (~modality).any(2)
            self._single += torch.tensor([int(single.sum()), single.numel()], dtype=torch.float64)


LINK_MONITORS = ("mrr", "mean_rank", "hits_at_1", "hits_at_3", "hits_at_10")


@torch.no_grad()
def ranking_figures(model: Any, graph: MultimodalGraph, triples: Tensor) -> dict[str, float]:
    """Rank triples among all entities, without the other triples that the graph knows.

    Parameters
    ----------
    model : torch.nn.Module
        With ``candidates()``, a `hgmm.kg.CandidateScorer`; its mode is restored.
    graph : MultimodalGraph
        With `triples`.
    triples : Tensor
        ``(n, 3)`` int64, n at least 1.

    Returns
    -------
    dict of str to float
        ``mrr``, ``mean_rank``, ``hits_at_1``, ``hits_at_3``, ``hits_at_10`` and ``adjusted_mean_rank_index``.
    """
    known = _triples(graph)
    evaluator = RankingEvaluator(known.known, num_entities=known.num_entities, num_relations=known.num_relations)
    was_training = model.training
    model.eval()
    figures = evaluator.evaluate(model.candidates(), triples).metrics()
    model.train(was_training)
    return figures


def _triples(graph: MultimodalGraph) -> Any:
    if graph.triples is None:
        raise SchemaError(f"LinkPredictionTask graph: {graph.name!r} has no triples; give it a knowledge graph")
    return graph.triples
