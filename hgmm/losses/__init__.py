"""Losses: tensors in, scalar out."""

from __future__ import annotations

from hgmm.losses.cross_modal import cross_modal_loss
from hgmm.losses.missing_modality import missing_modality_loss
from hgmm.losses.negative_learning import NegativeLearningLoss, negative_learning_loss
from hgmm.losses.ranking import one_vs_all_loss, ranking_loss, self_adversarial_weights, vector_regularizer

__all__ = [
    "NegativeLearningLoss",
    "cross_modal_loss",
    "missing_modality_loss",
    "negative_learning_loss",
    "one_vs_all_loss",
    "ranking_loss",
    "self_adversarial_weights",
    "vector_regularizer",
]
