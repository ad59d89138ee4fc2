"""The five graphs of MAGB: products bought or viewed together, and posts of the same author, with text and picture.

The stored graphs have one direction of each edge; here they have both, and no self-loops. Feature files are many, and
their names drift (``GroceryS_…``, ``Reddit_…``), so that they are found by what their names contain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hgmm.datasets.attributed import (
    DEFAULT_FEATURES,
    FEATURE_FOLDERS,
    GRAPH_FILES,
    MODALITIES,
    NTYPE,
    read_attributed,
)
from hgmm.datasets.attributed_dataset import AttributedDataset
from hgmm.datasets.base import DatasetInfo, OfficialFile, register
from hgmm.datasets.source_options import JOINED, choose_file
from hgmm.graph import MultimodalGraph

__all__ = ["GroceryDataset", "MoviesDataset", "RedditMDataset", "RedditSDataset", "ToysDataset"]

REPO = "Sherirto/MAGB"


def _info(name: str, title: str, *, num_nodes: int, num_classes: int, what: str) -> DatasetInfo:
    train, val = int(0.6 * num_nodes), int(0.2 * num_nodes)
    return DatasetInfo(
        name=name,
        title=title,
        description=f"{what} Text and image of every node as frozen vectors of many encoders; MAGB's 60/20/20 split.",
        target=NTYPE,
        licence="CC-BY-4.0",
        citation="MAGB: Yan et al., When Graph meets Multimodal, arXiv 2410.09132",
        url=f"https://huggingface.co/datasets/{REPO}",
        published={
            NTYPE: num_nodes,
            "classes": num_classes,
            "split_sizes": [train, val, num_nodes - train - val],
        },
        ntypes=(NTYPE,),
        official_files=(
            OfficialFile(GRAPH_FILES),
            OfficialFile("TextFeature/*.npy", "text", NTYPE),
            OfficialFile("ImageFeature/*.npy", "image", NTYPE),
        ),
    )


class _MagbDataset(AttributedDataset):
    repo = REPO
    collections = ("MAGB", "magb", "MAGB/Data", "OpenMAG", "MMAG")

    def has(self, folder: Path, file: OfficialFile) -> bool:
        """Say whether a published file is there, in the layout of MAGB or OpenMAG; a joined file is both modalities."""
        if file.modality is None:
            return super().has(folder, file)
        return JOINED in self.options.files or any(
            any((folder / place).glob("*.npy")) for place in FEATURE_FOLDERS[file.modality]
        )

    def read_chosen(self, folder: Path) -> MultimodalGraph:
        """Read the folder; the numbers of classes come from the labels and what is published."""
        return read_attributed(folder, self.options, name=self.info.name, num_classes=self.number("classes"))

    def wanted(self, paths: Sequence[PurePosixPath]) -> list[PurePosixPath | None]:
        """Choose the graph, one file a modality or the joined one, and the table."""
        graph = next((path for path in paths if path.match(GRAPH_FILES)), None)
        table = [path for path in paths if path.suffix == ".csv" and path.parent.name in self.folders]
        if JOINED in self.options.files:
            joined = [path for path in paths if path.parent.name == "MMFeature" and path.suffix == ".npy"]
            return [graph, choose_file(joined, JOINED, self.options), *table]
        chosen = []
        for modality in MODALITIES:
            found = [path for path in paths if path.parent.name in FEATURE_FOLDERS[modality] and path.suffix == ".npy"]
            chosen.append(choose_file(found, modality, self.options, default=DEFAULT_FEATURES[modality]))
        return [graph, *chosen, *table]


@register
class MoviesDataset(_MagbDataset):
    """Films on Amazon."""

    folders = ("Movies", "movies")
    num_edges = 218_390
    info = _info(
        "movies",
        "MAGB Movies: films viewed or bought together",
        num_nodes=16_672,
        num_classes=20,
        what="Which of 20 categories does a film belong to?",
    )


@register
class ToysDataset(_MagbDataset):
    """Toys on Amazon."""

    folders = ("Toys", "toys")
    num_edges = 126_886
    info = _info(
        "toys",
        "MAGB Toys: toys viewed or bought together",
        num_nodes=20_695,
        num_classes=18,
        what="Which of 18 categories does a toy belong to?",
    )


@register
class GroceryDataset(_MagbDataset):
    """Groceries on Amazon."""

    folders = ("Grocery", "GroceryS", "grocery")
    num_edges = 171_340
    info = _info(
        "grocery",
        "MAGB Grocery: groceries viewed or bought together",
        num_nodes=17_074,
        num_classes=20,
        what="Which of 20 categories does a product belong to?",
    )


@register
class RedditSDataset(_MagbDataset):
    """Posts on Reddit, the small set."""

    folders = ("Reddit-S", "RedditS", "reddit-s")
    num_edges = 566_160
    info = _info(
        "reddit-s",
        "MAGB Reddit-S: posts linked by their author",
        num_nodes=15_894,
        num_classes=20,
        what="In which of 20 subreddits is a post?",
    )


@register
class RedditMDataset(_MagbDataset):
    """Posts on Reddit, the larger set."""

    folders = ("Reddit-M", "RedditM", "reddit-m")
    num_edges = 1_167_188
    info = _info(
        "reddit-m",
        "MAGB Reddit-M: posts linked by their author",
        num_nodes=99_638,
        num_classes=50,
        what="In which of 50 subreddits is a post?",
    )
