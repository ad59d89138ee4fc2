"""Completing triples: a task of the trainer for models of knowledge graphs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.kg import ModalityPairs, PairScores, RankingEvaluator, TripleSet
from hgmm.kg.entity_lists import KnownAnswers
from hgmm.losses import one_vs_all_loss, ranking_loss, vector_regularizer
from hgmm.sampling import EntityNegativeSampler, ModalityAwareNegativeSampler, NegativeBatch
from hgmm.sampling.batch import HEAD, TAIL
from hgmm.training.config import LINK_MONITORS, TrainConfig
from hgmm.training.link_config import ONE_VS_ALL, LinkConfig
from hgmm.training.link_loader import TripleBatch, TripleLoader
from hgmm.training.link_samplers import known_triples, make_modality_aware, make_sampler

__all__ = [
    "LinkPlan",
    "LinkPredictionTask",
    "make_evaluator",
    "ranking_figures",
]


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

    Any model does that is called as `hgmm.models.MMKGE` is and has its ``pairs``, ``modality_names``, ``present``,
    ``interaction``, ``candidates`` and ``loss_vectors``.

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
    Losses are told the mean score of the pairs, so that margin and temperature mean the same for any number of them: a
    margin of 12 on the sum over four pairs, as in the released code of MANS, is 3 here.

    Negatives are drawn for a seed, a step and a place in the batch, so a resumed run draws what it would have drawn.
    Corruptions of single modalities are put together from the scores of the triple and of the corrupted triple
    (`hgmm.kg.ModalityPairs`), so no strategy runs the model again. How many there were of which modality stands in the
    figures of an epoch as ``negatives``: shares of all, and as ``modal`` the share of those that could be.
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
        self._sampler: ModalityAwareNegativeSampler | None = None
        self._modality_names: tuple[str, ...] = ()
        self._answers: KnownAnswers | None = None

    def plan(self, model: Any, graph: MultimodalGraph, config: TrainConfig, device: torch.device) -> LinkPlan:
        """Return what the trainer goes through.

        Raises
        ------
        SchemaError
            If the graph has no triples, or none to train on.
        ConfigError
            If the model does not have what the configuration corrupts.
        """
        triples = graph.triples
        if triples is None:
            raise SchemaError(f"LinkPredictionTask graph: {graph.name!r} has no triples; give it a knowledge graph")
        if not len(triples.train):
            raise SchemaError(f"Trainer.fit graph: {graph.name!r} has no training triple; give it some")
        link, self._modality_names, self._sampler = self.config, tuple(model.modality_names), None
        sampler: EntityNegativeSampler | ModalityAwareNegativeSampler | None = None
        if link.loss == ONE_VS_ALL:
            known = known_triples(link, triples)
            self._answers = None if known is None else KnownAnswers(known, triples.num_entities)
        else:
            sampler = make_sampler(link, triples, num_modalities=len(model.modality_names))
            if link.sampler != "normal":
                sampler = self._sampler = make_modality_aware(link, sampler, model)
        train = TripleLoader(
            triples.train,
            sampler,
            batch_size=link.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            device=device,
        )
        return LinkPlan(train, triples)

    def on_epoch_start(self, epoch: int) -> None:
        """Count what is delivered in this epoch."""
        if self._sampler is not None:
            self._sampler.reset_delivered()

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the shares of negatives that were corrupted in one modality only; nothing where none may be."""
        if self._sampler is None:
            return {}
        delivered = self._sampler.delivered
        total = max(1, delivered.negatives)
        shares = {"modal": delivered.share, "eligible": delivered.eligible / total}
        for m in self._sampler.modalities:
            shares[self._modality_names[m]] = delivered.by_modality[m] / total
        return {"negatives": shares}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was delivered in an epoch that is not over."""
        return {} if self._sampler is None else {"delivered": self._sampler.delivered_counts()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on with what `state_dict` returned."""
        if self._sampler is not None:
            self._sampler.restore_delivered(state["delivered"])

    def training_loss(self, model: Any, output: PairScores, batch: TripleBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a step and its terms."""
        config = self.config
        loss = self._one_vs_all(model, batch) if config.loss == ONE_VS_ALL else self._ranking(model, output, batch)
        terms = {"ranking": float(loss.detach())}
        if config.regularizer_weight:
            power = {"l2": 2, "n3": 3}[config.regularizer]
            penalty = vector_regularizer(
                *model.loss_vectors(batch.positives), power=power, complex_numbers=model.interaction.complex_vectors
            )
            terms["regularizer"] = float(penalty.detach())
            loss = loss + config.regularizer_weight * penalty
        return loss, terms

    def _ranking(self, model: Any, output: PairScores, batch: TripleBatch) -> Tensor:
        config, pairs = self.config, model.pairs
        scores, present, differs = self._negative_scores(pairs, output, batch.negatives)
        return ranking_loss(
            pairs.mean(output.positive, output.positive_present),
            pairs.mean(scores, present),
            form="sigmoid" if config.loss == "self-adversarial" else config.loss,
            margin=None if config.loss == "softplus" else config.margin,
            temperature=config.adversarial_temperature if config.loss == "self-adversarial" else None,
            valid=differs,
        )

    def _negative_scores(
        self, pairs: ModalityPairs, output: PairScores, negatives: NegativeBatch
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return scores and presence by pair, and which negatives count, where not all do."""
        if self._sampler is None:
            return output.negative, output.negative_present, None
        if negatives.eligible is not None:
            of_whole_ends = pairs.intra_and_inter(output.negative, output.negative_present)
            negatives = self._sampler.choose(negatives, *of_whole_ends)
        if self.config.modal_pairs == "changed":
            return pairs.changed(output, negatives.side, negatives.modality)
        return *pairs.compose(output, negatives.side, negatives.modality), None

    def _one_vs_all(self, model: Any, batch: TripleBatch) -> Tensor:
        """Return the mean over both ends."""
        head, relation, tail = batch.positives.unbind(1)
        table, of_pairs = model.candidates(differentiable=True), sum(model.pairs.weights)
        asked = ((TAIL, tail, table.score_tails(head, relation)), (HEAD, head, table.score_heads(relation, tail)))
        losses = [
            one_vs_all_loss(scores / of_pairs, end, excluded=self._excluded(batch.positives, side))
            for side, end, scores in asked
        ]
        return torch.stack(losses).mean()

    def _excluded(self, positives: Tensor, side: int) -> Tensor | None:
        return None if self._answers is None else self._answers.mask(positives, side)


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
