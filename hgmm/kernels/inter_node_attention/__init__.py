"""Softmax attention over the in-edges of a node, for each modality by itself."""

from __future__ import annotations

from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs, InterNodeResult
from hgmm.kernels.inter_node_attention.op import inter_node_attention

__all__ = ["InterNodeInputs", "InterNodeResult", "inter_node_attention"]
