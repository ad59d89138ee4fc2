"""The graphs of MM-Graph: two with classes, three with links to predict; a row of features is text, then image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from hgmm.datasets.attributed import ETYPE, MODALITIES, NTYPE
from hgmm.datasets.attributed_dataset import AttributedDataset
from hgmm.datasets.base import DatasetInfo, OfficialFile, register
from hgmm.datasets.mm_graph_folder import (
    DEFAULT_FEATURES,
    EDGE_FILE,
    FEATURE_FILES,
    LABEL_FILE,
    LINK_FILES,
    RELATION,
    SPLIT_FILE,
    choose_link_file,
    read_mm_graph,
    read_mm_graph_links,
)
from hgmm.datasets.source_options import JOINED, choose_file
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.triples import TripleSet

__all__ = ["BooksLinksDataset", "BooksNodesDataset", "ClothDataset", "EleFashionDataset", "SportsDataset"]

REPO = "mm-graph-org/mm-graph"
LINK_SHARES = (0.8, 0.1, 0.1)
"""Of the stand-ins' links; the published ones are not known here."""


def _info(name: str, title: str, *, num_nodes: int, num_classes: int = 0) -> DatasetInfo:
    links = not num_classes
    ntype = "entity" if links else NTYPE
    graph_files = [LINK_FILES] if links else [EDGE_FILE, LABEL_FILE, SPLIT_FILE]
    return DatasetInfo(
        name=name,
        title=title,
        description=(
            "Which nodes are linked? One relation, text and image of every node."
            if links
            else f"Which of {num_classes} classes does a node belong to? Some are unlabelled; text and image of each."
        ),
        task="link-prediction" if links else "node-classification",
        target=ntype,
        licence="Apache-2.0 (as the hub states it)",
        citation="MM-Graph: Zhu et al., Mosaic of Modalities, arXiv 2406.16321",
        url=f"https://huggingface.co/datasets/{REPO}",
        published={ntype: num_nodes} if links else {ntype: num_nodes, "classes": num_classes},
        ntypes=(ntype,),
        official_files=(
            *map(OfficialFile, graph_files),
            *(OfficialFile(FEATURE_FILES, modality, ntype) for modality in MODALITIES),
        ),
    )


class _MmGraphDataset(AttributedDataset):
    repo = REPO
    collections = ("mm-graph", "Multimodal-Graph-Completed-Graph")

    def _features(self, paths: Sequence[PurePosixPath]) -> list[PurePosixPath | None]:
        found = [path for path in paths if path.match(FEATURE_FILES)]
        apart = [modality for modality in MODALITIES if modality in self.options.files]
        if apart:
            return [choose_file(found, modality, self.options) for modality in apart]
        return [choose_file(found, JOINED, self.options, default=DEFAULT_FEATURES)]


class _MmGraphNodes(_MmGraphDataset):
    def read_chosen(self, folder: Path) -> MultimodalGraph:
        """Read edges, labels, splits and features."""
        return read_mm_graph(folder, self.options, name=self.info.name, num_classes=self.number("classes"))

    def wanted(self, paths: Sequence[PurePosixPath]) -> list[PurePosixPath | None]:
        """Choose the three files of the graph and one of features."""
        named = {path.name: path for path in paths}
        return [*map(named.get, (EDGE_FILE, LABEL_FILE, SPLIT_FILE)), *self._features(paths)]


class _MmGraphLinks(_MmGraphDataset):
    def read_chosen(self, folder: Path) -> MultimodalGraph:
        """Read links and features."""
        return read_mm_graph_links(folder, self.options, name=self.info.name)

    def wanted(self, paths: Sequence[PurePosixPath]) -> list[PurePosixPath | None]:
        """Choose a file of links and one of features."""
        links = [path for path in paths if path.match(LINK_FILES)]
        return [choose_link_file(links, self.options), *self._features(paths)]

    def stand_in(self, source: DataSource) -> MultimodalGraph:
        """Generate links between nodes of ten planted classes; only the number of nodes is published."""
        num_nodes = self.number("entity")
        planted = self.planted({NTYPE: num_nodes, "classes": 10}, source)
        src, dst = (ends.numpy() for ends in planted.g.edges(etype=ETYPE))
        links = np.stack([src, np.zeros_like(src), dst], axis=1)[src < dst]
        order = np.random.default_rng(0).permutation(len(links))
        parts = np.split(links[order], np.cumsum([int(share * len(links)) for share in LINK_SHARES[:2]]))
        train, val, test = map(torch.from_numpy, parts)
        names = tuple(map(str, range(num_nodes)))
        return MultimodalGraph.from_triples(
            TripleSet(train, val, test, names, (RELATION,)),
            features=planted.features(NTYPE),
            source=source,
            name=self.info.name,
        )


@register
class EleFashionDataset(_MmGraphNodes):
    """Fashion on Amazon."""

    folders = ("ele-fashion",)
    num_edges = 199_602
    info = _info("ele-fashion", "MM-Graph Ele-Fashion: fashion bought together", num_nodes=97_766, num_classes=12)


@register
class BooksNodesDataset(_MmGraphNodes):
    """Books on Goodreads, with classes."""

    folders = ("books-nc",)
    num_edges = 7_235_048
    info = _info("books-nc", "MM-Graph Goodreads-NC: similar books", num_nodes=685_294, num_classes=11)


@register
class BooksLinksDataset(_MmGraphLinks):
    """Books on Goodreads, with links."""

    folders = ("books-lp",)
    num_edges = 2_000_000
    info = _info("books-lp", "MM-Graph Goodreads-LP: links between similar books", num_nodes=636_502)


@register
class SportsDataset(_MmGraphLinks):
    """Sports articles on Amazon."""

    folders = ("sports-copurchase",)
    num_edges = 200_000
    info = _info("sports-copurchase", "MM-Graph Amazon-Sports: articles bought together", num_nodes=50_250)


@register
class ClothDataset(_MmGraphLinks):
    """Clothes on Amazon."""

    folders = ("cloth-copurchase",)
    num_edges = 500_000
    info = _info("cloth-copurchase", "MM-Graph Amazon-Cloth: clothes bought together", num_nodes=125_839)
