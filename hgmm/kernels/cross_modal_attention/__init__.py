"""Attention across the neighbours of a node, joined across modalities (HGNN-IMA's influence unit)."""

from __future__ import annotations

from hgmm.kernels.cross_modal_attention.inputs import COMBINES, CrossModalInputs, CrossModalResult
from hgmm.kernels.cross_modal_attention.op import cross_modal_attention

__all__ = ["COMBINES", "CrossModalInputs", "CrossModalResult", "cross_modal_attention"]
