"""What the named knowledge graphs in OpenKE's layout share: their files, what is absent, stand-ins, fetching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

from hgmm.datasets.base import OfficialFile
from hgmm.datasets.file_dataset import FolderDataset
from hgmm.datasets.github import fetch_from_github
from hgmm.datasets.knowledge_folder import read_openke
from hgmm.datasets.openke import OPENKE_FILES
from hgmm.datasets.planted_triples import synthetic_knowledge_graph
from hgmm.graph import DataSource, MultimodalGraph

__all__ = ["KnowledgeDataset"]

STAND_IN_WIDTH = 64
"""Columns of a modality of a stand-in; published widths would fill the memory with numbers that mean nothing."""


class KnowledgeDataset(FolderDataset):
    """A knowledge graph that is published as a folder in OpenKE's layout, with vectors of its entities elsewhere.

    Vectors of the user's own lie beside the triples like published ones; they are read, and the source then is
    ``local``.
    """

    collections = ("kg", "benchmarks")
    stand_in_has = "the published numbers of entities, relations and triples"

    repo: ClassVar[str]
    """The repository on GitHub that has the triples."""

    repo_folder: ClassVar[str]
    """The folder in it."""

    sizes: ClassVar[tuple[int, int, int]]
    """Training, validation and test triples of the stand-in."""

    def read(self, folder: Path, there: Sequence[OfficialFile], absent: Sequence[OfficialFile]) -> MultimodalGraph:
        """Read triples, and vectors wherever they are from; modalities without any are listed as absent."""
        graph = read_openke(folder)
        graph.name = self.info.name
        lacking = [file for file in absent if file.modality not in graph.schema.modalities["entity"]]
        listed = ", ".join(f"{file.ntype}.{file.modality} ({file.path})" for file in lacking)
        notes = [f"real triples of {self.info.name!r}, treated as absent: {listed}"] if lacking else []
        graph.source = replace(
            graph.source,
            source="local" if absent else "official",
            absent=tuple(f"{file.ntype}.{file.modality}" for file in lacking),
            note="; ".join([*notes, *filter(None, [graph.source.note])]),
        )
        return graph

    def stand_in(self, source: DataSource) -> MultimodalGraph:
        """Generate a graph with the published numbers; its modalities tell classes that relations connect."""
        published = cast(dict[str, Any], self.info.published)
        modalities = [file.modality for file in self.info.official_files if file.modality is not None]
        return synthetic_knowledge_graph(
            published["entity"],
            published["relations"],
            self.sizes,
            modalities=dict.fromkeys(modalities, STAND_IN_WIDTH),
            name=self.info.name,
            source=source,
        )

    def fetch(self, root: Path) -> list[Path]:
        """Download the triples and return the paths of all their files; vectors are not to be had so.

        Raises
        ------
        DataError
            If the network or a file is missing; it says where to put the files by hand.
        """
        return fetch_from_github(self.repo, self.repo_folder, OPENKE_FILES, into=self.folder(root))
