"""Whole models; importing this package fills `hgmm.registry.MODELS`."""

from __future__ import annotations

from hgmm.models.graph_mnl import GraphMNL
from hgmm.models.hgnn_ima import HGNNIMA
from hgmm.models.mm_kge import MMKGE, MMComplEx, MMDistMult, MMRotatE, MMTransE

__all__ = ["HGNNIMA", "MMKGE", "GraphMNL", "MMComplEx", "MMDistMult", "MMRotatE", "MMTransE"]
