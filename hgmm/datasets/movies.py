"""What IMDB and DOUBAN share: movies with their directors and actors; images on movies only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from hgmm.datasets.arrays import read_array, read_splits, relation_rows, whole_numbers, with_reverse
from hgmm.datasets.official import Counts, OfficialDataset, RawGraph
from hgmm.datasets.planted import IntArray
from hgmm.datasets.synthetic import synthetic
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.typing import CanonicalEtype

__all__ = ["OFFICIAL_NTYPES", "MovieDataset", "movie_counts"]

NTYPES = ("movie", "director", "actor")
OFFICIAL_NTYPES = {"movie": "0", "director": "1", "actor": "2"}

# Relation number in the file -> relation and reverse. The odd numbers are the same edges turned round, and not read.
RELATIONS: dict[int, tuple[CanonicalEtype, CanonicalEtype]] = {
    0: (("movie", "md", "director"), ("director", "dm", "movie")),
    2: (("movie", "ma", "actor"), ("actor", "am", "movie")),
}


def movie_counts(
    movies: int,
    directors: int,
    actors: int,
    *,
    directed: int,
    acted: int,
    classes: Mapping[str, int],
    splits: tuple[int, int, int],
) -> Counts:
    """Return the published size of a movie dataset; `directed` and `acted` are edges in one direction."""
    edges = {etype: number for number, pair in ((directed, RELATIONS[0]), (acted, RELATIONS[2])) for etype in pair}
    return Counts(dict(zip(NTYPES, (movies, directors, actors), strict=True)), edges, classes, splits)


class MovieDataset(OfficialDataset):
    """IMDB or DOUBAN; edges are rows (source, destination, relation) of numbers that run through all node types."""

    modality_names = ("text", "image")
    counts: ClassVar[Counts]
    edge_file: ClassVar[str]
    split_file: ClassVar[str]
    width: ClassVar[int]
    degrees: ClassVar[Mapping[str, int]]

    def read_graph(self, folder: Path) -> RawGraph:
        """Read edges, labels and split; repeated edges count once, and reverse relations are made from the forward."""
        sizes = self.counts.nodes
        first = dict(zip(NTYPES, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        edges: dict[CanonicalEtype, tuple[IntArray, IntArray]] = {}
        for number, (forward, backward) in RELATIONS.items():
            src, dst = relation_rows(folder / self.edge_file, number, forward, first=first, num_nodes=sizes)
            edges[forward], edges[backward] = with_reverse(src, dst)
        labels = whole_numbers(folder / "labels.npy", read_array(folder / "labels.npy"))
        return RawGraph(sizes, edges, labels, read_splits(folder / self.split_file))

    def stand_in(self, source: DataSource) -> MultimodalGraph:
        """Generate a graph with the published numbers of nodes, edges and classes."""
        text = {"text": self.width}
        return synthetic(
            self.counts.nodes,
            self.counts.edges,
            {"movie": {"text": self.width, "image": self.width}, "director": text, "actor": text},
            target="movie",
            classes=self.counts.classes,
            reliability={"text": 0.6, "image": 0.65},
            homophily=0.6,
            degree_exponent=3.5,
            degrees=self.degrees,
            split=self.counts.splits,
            name=self.info.name,
            source=source,
        )
