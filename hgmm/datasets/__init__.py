"""Named datasets, folders of the user's own data, and generated graphs; each becomes a `MultimodalGraph`."""

from __future__ import annotations

from hgmm.datasets import amazon, amazon_copurchase, douban, emoji, films, imbalance, imdb, magb, mm_graph
from hgmm.datasets.attributed import magb_split
from hgmm.datasets.base import Dataset, DatasetInfo, OfficialFile, check_published, register, statistics
from hgmm.datasets.loading import available, fetch, info, load
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
    "fetch",
    "films",
    "imbalance",
    "imdb",
    "info",
    "load",
    "magb",
    "magb_split",
    "mm_graph",
    "register",
    "statistics",
    "synthetic",
]
