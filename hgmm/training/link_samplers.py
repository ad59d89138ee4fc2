"""The negative sampler that a configuration asks for, on one graph."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from hgmm.graph import MultimodalGraph
from hgmm.sampling import BernoulliNegativeSampler, NegativeBatch, UniformNegativeSampler
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
