"""Distances of queries from drawn entities, for pairs of modalities: the scores of translational models."""

from __future__ import annotations

from hgmm.kernels.translational_score.inputs import NORMS, TranslationalInputs
from hgmm.kernels.translational_score.op import translational_score

__all__ = ["NORMS", "TranslationalInputs", "translational_score"]
