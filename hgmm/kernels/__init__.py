"""Operators on plain tensors: no DGL, no parameters, one folder an operator.

Each function checks its arguments, chooses a backend (``HGMM_BACKEND``) and runs it.
"""

from __future__ import annotations

from hgmm.kernels.cross_modal_attention import COMBINES, CrossModalResult, cross_modal_attention
from hgmm.kernels.inter_node_attention import InterNodeResult, inter_node_attention

__all__ = ["COMBINES", "CrossModalResult", "InterNodeResult", "cross_modal_attention", "inter_node_attention"]
