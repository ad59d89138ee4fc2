"""Layers for DGL graphs and message-flow blocks; node states are ``{ntype: (N, M, F)}``."""

from __future__ import annotations

from hgmm.nn import functional
from hgmm.nn._conv import KV_DTYPES
from hgmm.nn.branch_fusion import FUSIONS, fuse_branches, label_free_reliability
from hgmm.nn.branches import FAMILIES, BranchLibrary, BranchOutput, branch_names
from hgmm.nn.cross_modal_conv import CrossModalConv
from hgmm.nn.gat_conv import GATConv
from hgmm.nn.graph_conv import GraphConv
from hgmm.nn.inter_modal_attention import InterModalAttention
from hgmm.nn.inter_node_attention import InterNodeAttention
from hgmm.nn.modality_encoder import ModalityEncoder
from hgmm.nn.sage_conv import SAGEConv
from hgmm.nn.structural_features import return_probabilities, structural_features, structural_width

__all__ = [
    "FAMILIES",
    "FUSIONS",
    "KV_DTYPES",
    "BranchLibrary",
    "BranchOutput",
    "CrossModalConv",
    "GATConv",
    "GraphConv",
    "InterModalAttention",
    "InterNodeAttention",
    "ModalityEncoder",
    "SAGEConv",
    "branch_names",
    "functional",
    "fuse_branches",
    "label_free_reliability",
    "return_probabilities",
    "structural_features",
    "structural_width",
]
