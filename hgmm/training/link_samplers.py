"""The negative sampler that a configuration asks for, on one graph."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from hgmm.errors import SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.sampling import BernoulliNegativeSampler, EntityNegativeSampler, NegativeBatch, UniformNegativeSampler
from hgmm.training.link_config import LinkConfig

__all__ = ["TripleSampler", "make_sampler"]


class TripleSampler(Protocol):
    """What a training step asks of a sampler."""

    def sample(self, positives: Tensor, *, seed: int, step: int, progress: float) -> NegativeBatch:
        """Draw K negatives for each of ``(B, 3)`` positives."""
        ...

    def choose(self, negatives: NegativeBatch, intra: Tensor, inter: Tensor) -> NegativeBatch:
        """Decide by ``(B, K)`` distances within and across modalities which modalities are corrupted."""
        ...


class _WholeEnd:
    """A sampler of whole ends as a `TripleSampler`: there is nothing to choose."""

    def __init__(self, sampler: EntityNegativeSampler) -> None:
        self._sampler = sampler

    def sample(self, positives: Tensor, *, seed: int, step: int, progress: float) -> NegativeBatch:
        return self._sampler.sample(positives, seed=seed, step=step, progress=progress)

    def choose(self, negatives: NegativeBatch, intra: Tensor, inter: Tensor) -> NegativeBatch:
        return negatives


def make_sampler(config: LinkConfig, graph: MultimodalGraph, modalities: tuple[str, ...]) -> TripleSampler:
    """Return the sampler of a configuration for the triples of a graph.

    Parameters
    ----------
    config : LinkConfig
        Strategy, proposal, filter and K.
    graph : MultimodalGraph
        With `triples`.
    modalities : tuple of str
        The model's M modalities, ``structure`` first.

    Raises
    ------
    SchemaError
        If the graph has no triples.
    ConfigError
        If a modality is asked for that the model has not.
    """
    triples = graph.triples
    if triples is None:
        raise SchemaError(f"LinkPredictionTask graph: {graph.name!r} has no triples; give it a knowledge graph")
    known = {"train": triples.train, "all": triples.known, "none": None}[config.filter]
    shared: dict[str, Any] = {
        "known": known,
        "num_modalities": len(modalities),
        "relation_names": triples.relation_vocab,
    }
    sizes = (triples.num_entities, triples.num_relations, config.num_negs_per_pos)
    if config.proposal == "uniform":
        return _WholeEnd(UniformNegativeSampler(*sizes, **shared))
    return _WholeEnd(BernoulliNegativeSampler(triples.train, *sizes, **shared))
