"""Whole models; importing this package fills `hgmm.registry.MODELS`."""

from __future__ import annotations

from hgmm.models.graph_mnl import GraphMNL
from hgmm.models.hgnn_ima import HGNNIMA

__all__ = ["HGNNIMA", "GraphMNL"]
