"""Named datasets, folders of the user's own data, and generated graphs; each becomes a `MultimodalGraph`."""

from __future__ import annotations

from hgmm.datasets import (
    amazon,
    amazon_copurchase,
    douban,
    emoji,
    emoji_kg,
    films,
    imbalance,
    imdb,
    knowledge_graphs,
    magb,
    mm_graph,
    nations,
)
from hgmm.datasets.attributed import magb_split
from hgmm.datasets.base import Dataset, DatasetInfo, OfficialFile, check_published, register, statistics
from hgmm.datasets.loading import available, fetch, info, load
from hgmm.datasets.planted_triples import synthetic_knowledge_graph
from hgmm.datasets.source_options import SourceOptions
from hgmm.datasets.synthetic import synthetic

__all__ = [
    "Dataset",
    "DatasetInfo",
    "OfficialFile",
    "SourceOptions",
    "amazon",
    "amazon_copurchase",
    "available",
    "check_published",
    "douban",
    "emoji",
    "emoji_kg",
    "fetch",
    "films",
    "imbalance",
    "imdb",
    "info",
    "knowledge_graphs",
    "load",
    "magb",
    "magb_split",
    "mm_graph",
    "nations",
    "register",
    "statistics",
    "synthetic",
    "synthetic_knowledge_graph",
]
