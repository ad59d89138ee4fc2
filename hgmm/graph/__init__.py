"""The data model: a DGL heterograph whose nodes carry several modalities, some of them missing."""

from __future__ import annotations

from hgmm.graph.assemble import from_tensors
from hgmm.graph.builder import GraphBuilder
from hgmm.graph.convert import from_dgl, from_networkx, from_pyg, from_scipy, to_dgl, to_networkx, to_pyg, to_scipy
from hgmm.graph.corruption import Corruption, corrupt
from hgmm.graph.csc import edge_ids, relation_csc
from hgmm.graph.folder import read_folder
from hgmm.graph.leaks import drop_leaks
from hgmm.graph.multimodal import DataSource, MultimodalGraph
from hgmm.graph.schema import GraphSchema, ModalitySpec
from hgmm.graph.storage import load_graph, save_graph
from hgmm.graph.summary import GraphSummary, summarize

__all__ = [
    "Corruption",
    "DataSource",
    "GraphBuilder",
    "GraphSchema",
    "GraphSummary",
    "ModalitySpec",
    "MultimodalGraph",
    "corrupt",
    "drop_leaks",
    "edge_ids",
    "from_dgl",
    "from_networkx",
    "from_pyg",
    "from_scipy",
    "from_tensors",
    "load_graph",
    "read_folder",
    "relation_csc",
    "save_graph",
    "summarize",
    "to_dgl",
    "to_networkx",
    "to_pyg",
    "to_scipy",
]
