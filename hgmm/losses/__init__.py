"""Losses: tensors in, scalar out."""

from __future__ import annotations

from hgmm.losses.cross_modal import cross_modal_loss
from hgmm.losses.missing_modality import missing_modality_loss

__all__ = ["cross_modal_loss", "missing_modality_loss"]
