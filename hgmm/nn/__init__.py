"""Layers for DGL graphs and message-flow blocks; node states are ``{ntype: (N, M, F)}``."""

from __future__ import annotations

from hgmm.nn import functional
from hgmm.nn._conv import KV_DTYPES
from hgmm.nn.cross_modal_conv import CrossModalConv
from hgmm.nn.gat_conv import GATConv
from hgmm.nn.graph_conv import GraphConv
from hgmm.nn.inter_modal_attention import InterModalAttention
from hgmm.nn.inter_node_attention import InterNodeAttention
from hgmm.nn.modality_encoder import ModalityEncoder
from hgmm.nn.sage_conv import SAGEConv

__all__ = [
    "KV_DTYPES",
    "CrossModalConv",
    "GATConv",
    "GraphConv",
    "InterModalAttention",
    "InterNodeAttention",
    "ModalityEncoder",
    "SAGEConv",
    "functional",
]
