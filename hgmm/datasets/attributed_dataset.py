"""What the named multimodal attributed graphs share: where their folders are, stand-ins, fetching from the hub."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from hgmm.datasets.attributed import ETYPE, MODALITIES, NTYPE
from hgmm.datasets.base import Dataset, OfficialFile, check_published
from hgmm.datasets.hub import HubListing, download_from_hub, list_hub
from hgmm.datasets.source_options import SourceOptions
from hgmm.datasets.synthetic import synthetic
from hgmm.errors import DataError
from hgmm.graph import DataSource, MultimodalGraph

__all__ = ["AttributedDataset"]

STAND_IN_WIDTH = 64
"""Columns of a modality of a stand-in; published widths would fill the memory with numbers that mean nothing."""


class AttributedDataset(Dataset):
    """A graph of one node type and one relation that is published as a folder on the hub."""

    repo: ClassVar[str]
    """The repository on the hub."""

    folders: ClassVar[tuple[str, ...]]
    """Names that the dataset's folder may have; the first is that of the hub."""

    collections: ClassVar[tuple[str, ...]]
    """Folders of the data root that may hold it; the first is where fetched files go."""

    num_edges: ClassVar[int]
    """Edges of the stand-in, both directions counted."""

    options = SourceOptions()

    @abstractmethod
    def read(self, folder: Path) -> MultimodalGraph:
        """Read the files."""

    @abstractmethod
    def wanted(self, paths: Sequence[PurePosixPath]) -> list[PurePosixPath | None]:
        """Choose what to fetch from the paths of the dataset's folder on the hub; None for what is not there."""

    def choosing(self, options: SourceOptions) -> AttributedDataset:
        """Return the same dataset, read from other files."""
        chosen = copy.copy(self)
        chosen.options = options
        return chosen

    def folder(self, root: Path) -> Path:
        """Return the dataset's folder: below `root` or one of the collections in it, whichever exists."""
        bases = [root, *(root / name for name in self.collections)]
        places = [base / name for name in self.folders for base in bases]
        return next((place for place in places if place.is_dir()), root / self.collections[0] / self.folders[0])

    def has(self, folder: Path, file: OfficialFile) -> bool:
        """Say whether a published file is in a folder; its path may be a pattern."""
        return any(folder.glob(file.path))

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Return the graph of the published files, of those that are there, or a generated stand-in.

        The graph's `source` is ``official`` if text and image are there, ``local`` if a modality is absent, and
        ``synthetic`` if there is no file at all.

        Parameters
        ----------
        root : Path
            The folder that holds datasets or collections of them.
        require_official : bool, optional
            Raise unless everything is there.

        Raises
        ------
        DataError
            If the graph's files are there in part only, a file is damaged, a number differs from the published ones,
            several files fit, or `require_official` is set and something is missing.
        """
        folder = self.folder(root)
        absent = [file for file in self.info.official_files if not self.has(folder, file)]
        there = len(absent) < len(self.info.official_files)
        needed = [file for file in absent if file.modality is None]
        if (absent and require_official) or (there and needed):
            raise DataError(
                f"dataset {self.info.name}: files are missing in {folder}: {', '.join(file.path for file in absent)}; "
                f"run: hgmm datasets fetch {self.info.name}, or download them from {self.info.url}"
            )
        if not there:
            return self.stand_in(self._synthetic_source(folder, absent))
        graph = self.read(folder)
        if not graph.source.absent:
            graph.source = replace(graph.source, source="official")
        # A split by shots is not the published one.
        hidden = () if self.options.shots is None else ("split_sizes",)
        published = {key: value for key, value in self.info.published.items() if key not in hidden}
        check_published(graph, replace(self.info, published=published))
        return graph

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

    def _synthetic_source(self, folder: Path, absent: Sequence[OfficialFile]) -> DataSource:
        note = (
            f"synthetic stand-in: the published files of {self.info.name!r} are not in {folder}, so a generated graph "
            "with the published numbers of nodes, edges and classes takes their place; scores on it say nothing about "
            f"the real data (to get the files: hgmm datasets fetch {self.info.name})"
        )
        return DataSource("synthetic", absent=tuple(file.path for file in absent), note=note)
