"""The negative samplers that a configuration asks for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hgmm.errors import ConfigError, unknown_name
from hgmm.graph.schema import STRUCTURE
from hgmm.kg import TripleSet
from hgmm.sampling import (
    BernoulliNegativeSampler,
    EntityNegativeSampler,
    ModalityAwareNegativeSampler,
    TypeConstraints,
    UniformNegativeSampler,
)
from hgmm.training.link_config import SAMPLERS, LinkConfig

__all__ = ["known_triples", "make_modality_aware", "make_sampler"]


def known_triples(config: LinkConfig, triples: TripleSet) -> Tensor | None:
    """Return the ``(n, 3)`` triples that are no negatives, or None."""
    if config.filter == "none":
        return None
    return triples.train if config.filter == "train" else triples.known


def make_sampler(config: LinkConfig, triples: TripleSet, *, num_modalities: int) -> EntityNegativeSampler:
    """Return what proposes entities for the triples of a knowledge graph, and filters them.

    Parameters
    ----------
    config : LinkConfig
        Proposal, constraints, filter and K.
    triples : TripleSet
        What is trained on, and known.
    num_modalities : int
        M of the model, structure included.
    """
    sizes = {"num_entities": triples.num_entities, "num_relations": triples.num_relations}
    shared: dict[str, Any] = sizes | {
        "num_negs_per_pos": config.num_negs_per_pos,
        "known": known_triples(config, triples),
        "constraints": TypeConstraints.from_triples(triples.train, **sizes) if config.type_constrained else None,
        "num_modalities": num_modalities,
        "relation_names": triples.relation_vocab,
        "chunk_size": config.chunk_size,
    }
    if config.proposal == "uniform":
        return UniformNegativeSampler(**shared)
    return BernoulliNegativeSampler(triples.train, **shared)


def make_modality_aware(config: LinkConfig, base: EntityNegativeSampler, model: Any) -> ModalityAwareNegativeSampler:
    """Return what decides in which modalities the negatives of `base` are corrupted.

    Parameters
    ----------
    config : LinkConfig
        With a `sampler` other than ``normal``.
    base : EntityNegativeSampler
        Of the model's modalities.
    model : torch.nn.Module
        With ``modality_names``, ``present`` ``(E, M)`` and ``pairs`` of `hgmm.models.MMKGE`.

    Raises
    ------
    ConfigError
        If the model has no modality beside the structure, or not one that is named, or pairs do not let a modality
        tell a corrupted head and a corrupted tail from the right ones.
    """
    names = [name for name in model.modality_names if name != STRUCTURE]
    if not names:
        raise ConfigError(
            f"link.sampler: {config.sampler!r} corrupts modalities beside the structure, and the model has none; "
            "choose data with images, text or numbers, or the sampler 'normal'"
        )
    for name in config.corrupted_modalities:
        if name not in names:
            raise ConfigError(f"link.corrupted_modalities: {unknown_name('modality', name, names)}")
    chosen = config.corrupted_modalities or names
    numbers = [list(model.modality_names).index(name) for name in chosen]
    for m, name in zip(numbers, chosen, strict=True):
        ends = (any(pair[end] == m for pair in model.pairs.pairs) for end in range(2))
        if not all(ends):
            raise ConfigError(
                f"link.corrupted_modalities: a corrupted {name} has to change the score at either end, got pairs "
                f"without {name} as head or as tail; add such pairs, or name other modalities"
            )
    return ModalityAwareNegativeSampler(
        base,
        model.present,
        strategy=SAMPLERS[config.sampler],
        modality=numbers,
        share=config.modal_share,
        rule=config.adaptive_rule,
    )
