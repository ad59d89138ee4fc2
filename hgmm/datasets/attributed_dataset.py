"""What the named multimodal attributed graphs share: where their folders are, stand-ins, fetching from the hub."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, cast

from hgmm.datasets.attributed import ETYPE, MODALITIES, NTYPE
from hgmm.datasets.base import DatasetInfo, OfficialFile
from hgmm.datasets.file_dataset import FolderDataset
from hgmm.datasets.hub import HubListing, download_from_hub, list_hub
from hgmm.datasets.source_options import SourceOptions
from hgmm.datasets.synthetic import synthetic
from hgmm.errors import DataError
from hgmm.graph import DataSource, MultimodalGraph

__all__ = ["AttributedDataset"]

STAND_IN_WIDTH = 64
"""Columns of a modality of a stand-in; published widths would fill the memory with numbers that mean nothing."""


class AttributedDataset(FolderDataset):
    """A graph of one node type and one relation that is published as a folder on the hub."""

    repo: ClassVar[str]
    """The repository on the hub."""

    num_edges: ClassVar[int]
    """Edges of the stand-in, both directions counted."""

    options = SourceOptions()
    stand_in_has = "the published numbers of nodes, edges and classes"

    @abstractmethod
    def read_chosen(self, folder: Path) -> MultimodalGraph:
        """Read the files that the options choose."""

    @abstractmethod
    def wanted(self, paths: Sequence[PurePosixPath]) -> list[PurePosixPath | None]:
        """Choose what to fetch from the paths of the dataset's folder on the hub; None for what is not there."""

    def choosing(self, options: SourceOptions) -> AttributedDataset:
        """Return the same dataset, read from other files."""
        chosen = copy.copy(self)
        chosen.options = options
        return chosen

    def read(self, folder: Path, there: Sequence[OfficialFile], absent: Sequence[OfficialFile]) -> MultimodalGraph:
        """Read the files; what the graph lacks then counts, since one file may hold both modalities."""
        graph = self.read_chosen(folder)
        if not graph.source.absent:
            graph.source = replace(graph.source, source="official")
        return graph

    def count_of(self, absent: Sequence[OfficialFile]) -> str:
        """Say what is missing; how many files a pattern stands for nobody knows."""
        return "files"

    def comparable_info(self) -> DatasetInfo:
        """Return the published numbers that hold for the chosen files: a split by shots is not the published one."""
        hidden = () if self.options.shots is None else ("split_sizes",)
        return replace(self.info, published={key: x for key, x in self.info.published.items() if key not in hidden})

    def number(self, name: str) -> int:
        """Return a published number that is one, not a list."""
        return int(cast(int, self.info.published[name]))

    def stand_in(self, source: DataSource) -> MultimodalGraph:
        """Generate a graph with the published numbers of nodes, edges and classes; the vectors are shorter."""
        return self.planted(self.info.published, source)

    def planted(self, published: Mapping[str, Any], source: DataSource) -> MultimodalGraph:
        """Generate a graph from its numbers of nodes and classes and the sizes of its splits."""
        return synthetic(
            {NTYPE: published[NTYPE]},
            {ETYPE: self.num_edges},
            {NTYPE: dict.fromkeys(MODALITIES, STAND_IN_WIDTH)},
            target=NTYPE,
            classes=published["classes"],
            reliability={"text": 0.65, "image": 0.55},
            homophily=0.6,
            split=published.get("split_sizes", (0.6, 0.2, 0.2)),
            name=self.info.name,
            source=source,
        )

    def fetch(self, root: Path) -> list[Path]:
        """Download the graph and the chosen features with huggingface_hub, and return the paths of all.

        Raises
        ------
        DataError
            If huggingface_hub or the network is missing, the hub lacks a file, or one is damaged.
        """
        into = root / self.collections[0]
        listing = list_hub(self.repo, into=into)
        wanted = self.wanted(self._listed(listing))
        lacking = [file.path for file, path in zip(self.info.official_files, wanted, strict=False) if path is None]
        if lacking:
            raise DataError(
                f"fetch from {self.info.url}: it has no {', '.join(lacking)} in the folder {self.folders[0]}; put them "
                f"into {into / self.folders[0]} by hand"
            )
        return download_from_hub(listing, [path for path in wanted if path is not None], into=into)

    def _listed(self, listing: HubListing) -> list[PurePosixPath]:
        return [file.path for file in listing.files if set(file.path.parts[:-1]) & set(self.folders)]
