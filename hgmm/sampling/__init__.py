"""Negative samplers: false triples and false edges for true ones, on plain tensors or DGL graphs."""

from __future__ import annotations

from hgmm.sampling.batch import NegativeBatch
from hgmm.sampling.constraints import TypeConstraints
from hgmm.sampling.entities import BernoulliNegativeSampler, EntityNegativeSampler, UniformNegativeSampler

__all__ = [
    "BernoulliNegativeSampler",
    "EntityNegativeSampler",
    "NegativeBatch",
    "TypeConstraints",
    "UniformNegativeSampler",
]
