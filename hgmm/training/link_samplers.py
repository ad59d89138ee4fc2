"""The negative sampler that a configuration asks for."""

from __future__ import annotations

from typing import Any

from hgmm.kg import TripleSet
from hgmm.sampling import BernoulliNegativeSampler, EntityNegativeSampler, UniformNegativeSampler
from hgmm.training.link_config import LinkConfig

__all__ = ["make_sampler"]


def make_sampler(config: LinkConfig, triples: TripleSet, *, num_modalities: int) -> EntityNegativeSampler:
    """Return the sampler of a configuration for the triples of a knowledge graph.

    Parameters
    ----------
    config : LinkConfig
        Proposal, filter and K.
    triples : TripleSet
        What is trained on, and known.
    num_modalities : int
        M of the model, structure included.
    """
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
