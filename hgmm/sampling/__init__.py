"""Negative samplers: false triples and false edges for true ones, on plain tensors or DGL graphs."""

from __future__ import annotations

from hgmm.sampling.batch import NegativeBatch
from hgmm.sampling.constraints import TypeConstraints
from hgmm.sampling.entities import BernoulliNegativeSampler, EntityNegativeSampler, UniformNegativeSampler
from hgmm.sampling.modality_aware import RULES, STRATEGIES, DeliveredShares, ModalityAwareNegativeSampler

__all__ = [
    "RULES",
    "STRATEGIES",
    "BernoulliNegativeSampler",
    "DeliveredShares",
    "EntityNegativeSampler",
    "ModalityAwareNegativeSampler",
    "NegativeBatch",
    "TypeConstraints",
    "UniformNegativeSampler",
]
