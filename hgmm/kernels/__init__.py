"""Operators on plain tensors: no DGL, no parameters, one folder an operator.

Each function checks its arguments, chooses a backend (``HGMM_BACKEND``) and runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hgmm.kernels._dispatch import Backend
from hgmm.kernels.cross_modal_attention import COMBINES, CrossModalResult, cross_modal_attention
from hgmm.kernels.cross_modal_attention.op import BACKENDS as _CROSS_MODAL
from hgmm.kernels.inter_node_attention import InterNodeResult, inter_node_attention
from hgmm.kernels.inter_node_attention.op import BACKENDS as _INTER_NODE
from hgmm.kernels.neighbor_mean import neighbor_mean, neighbor_sum
from hgmm.kernels.neighbor_mean.op import BACKENDS as _NEIGHBOR_MEAN
from hgmm.kernels.translational_score import translational_score
from hgmm.kernels.translational_score.op import BACKENDS as _TRANSLATIONAL

__all__ = [
    "COMBINES",
    "OPERATORS",
    "Backend",
    "CrossModalResult",
    "InterNodeResult",
    "cross_modal_attention",
    "inter_node_attention",
    "neighbor_mean",
    "neighbor_sum",
    "translational_score",
]

OPERATORS: Mapping[str, tuple[Backend[Any, Any], ...]] = MappingProxyType(
    {
        "cross_modal_attention": _CROSS_MODAL,
        "inter_node_attention": _INTER_NODE,
        "neighbor_mean": _NEIGHBOR_MEAN,
        "translational_score": _TRANSLATIONAL,
    }
)
"""The backends of each operator, in the order in which ``auto`` asks them; `Backend.unavailable_reasons` says what this
machine lacks for one."""
