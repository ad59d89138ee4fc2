"""Negative samplers: false triples and false edges for true ones, on plain tensors or DGL graphs."""

from __future__ import annotations

from hgmm.sampling.batch import NegativeBatch
from hgmm.sampling.constraints import TypeConstraints
from hgmm.sampling.entities import BernoulliNegativeSampler, EntityNegativeSampler, UniformNegativeSampler
from hgmm.sampling.links import ENDS, LinkNegativeSampler
from hgmm.sampling.modality_aware import RULES, STRATEGIES, DeliveredShares, ModalityAwareNegativeSampler

__all__ = [
    "ENDS",
    "RULES",
    "STRATEGIES",
    "BernoulliNegativeSampler",
    "DeliveredShares",
    "EntityNegativeSampler",
    "LinkNegativeSampler",
    "ModalityAwareNegativeSampler",
    "NegativeBatch",
    "TypeConstraints",
    "UniformNegativeSampler",
]
