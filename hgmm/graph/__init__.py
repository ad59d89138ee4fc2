"""The data model: a DGL heterograph whose nodes carry several modalities, some of them missing."""

from __future__ import annotations

from hgmm.graph.csc import edge_ids, relation_csc
from hgmm.graph.multimodal import DataSource, MultimodalGraph
from hgmm.graph.schema import GraphSchema, ModalitySpec

__all__ = [
    "DataSource",
    "GraphSchema",
    "ModalitySpec",
    "MultimodalGraph",
    "edge_ids",
    "relation_csc",
]
