"""The negative sampler that a configuration asks for, on one graph."""

from __future__ import annotations

from typing import Any

from hgmm.errors import SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.sampling import BernoulliNegativeSampler, EntityNegativeSampler, UniformNegativeSampler
from hgmm.training.link_config import LinkConfig

__all__ = ["make_sampler"]


def make_sampler(config: LinkConfig, graph: MultimodalGraph, *, num_modalities: int) -> EntityNegativeSampler:
    """Return the sampler of a configuration for the triples of a graph.

    Parameters
    ----------
    config : LinkConfig
        Proposal, filter and K.
    graph : MultimodalGraph
        With `triples`.
    num_modalities : int
        M of the model, structure included.

    Raises
    ------
    SchemaError
        If the graph has no triples.
    """
    triples = graph.triples
    if triples is None:
        raise SchemaError(f"LinkPredictionTask graph: {graph.name!r} has no triples; give it a knowledge graph")
    known = {"train": triples.train, "all": triples.known, "none": None}[config.filter]
    shared: dict[str, Any] = {
        "known": known,
        "num_modalities": num_modalities,
        "relation_names": triples.relation_vocab,
    }
    sizes = (triples.num_entities, triples.num_relations, config.num_negs_per_pos)
    if config.proposal == "uniform":
        return UniformNegativeSampler(*sizes, **shared)
    return BernoulliNegativeSampler(triples.train, *sizes, **shared)
