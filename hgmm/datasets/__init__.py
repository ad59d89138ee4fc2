"""Named datasets, folders of the user's own data, and generated graphs; each becomes a `MultimodalGraph`."""

from __future__ import annotations

from hgmm.datasets import amazon, amazon_copurchase, douban, emoji, films, imbalance, imdb
from hgmm.datasets.base import Dataset, DatasetInfo, OfficialFile, check_published, register, statistics
from hgmm.datasets.loading import available, fetch, info, load
from hgmm.datasets.synthetic import synthetic

__all__ = [
    "Dataset",
    "DatasetInfo",
    "OfficialFile",
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
    "register",
    "statistics",
    "synthetic",
]
