"""AMAZON as HGNN-IMA uses it: items, the items bought or viewed with them, and their reviews.

From MHGAT. 561 items have no neighbour at all; the busiest review node has 2,986 items.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hgmm.datasets.arrays import read_array, read_splits, relation_rows, whole_numbers, with_reverse
from hgmm.datasets.base import DatasetInfo, OfficialFile, register
from hgmm.datasets.official import Counts, OfficialDataset, RawGraph
from hgmm.datasets.published import CITATION, MHGAT, TERMS, URL, settings, variant_settings
from hgmm.datasets.synthetic import synthetic
from hgmm.graph import DataSource, MultimodalGraph

__all__ = ["AmazonDataset"]

COUNTS = Counts(
    nodes={"item": 6158, "review": 7031},
    edges={("item", "ii", "item"): 14256, ("item", "ir", "review"): 54171, ("review", "ri", "item"): 54171},
    classes={"0": 3889, "1": 776, "2": 1493},
    splits=(1233, 615, 4310),
)
WIDTH = 1433


@register
class AmazonDataset(OfficialDataset):
    """The published files, those of them that are there, or a stand-in."""

    folders = ("amazon", "AMAZON")
    modality_names = ("text", "image")
    class_names = tuple(COUNTS.classes)
    info = DatasetInfo(
        name="amazon",
        title="Amazon items and their reviews",
        description="Three classes of items; text features on items and reviews, an image of each item.",
        target="item",
        licence=TERMS,
        citation=f"{CITATION}; {MHGAT}; reviews of Ni et al., EMNLP 2019",
        url=URL,
        published=COUNTS.published(),
        ntypes=tuple(COUNTS.nodes),
        published_scores={"micro_f1": 0.8870, "macro_f1": 0.8427},
        published_variant="modal2_missing",
        official_files=(
            OfficialFile("rdf.npy"),
            OfficialFile("labels.npy"),
            OfficialFile("train_val_test_idx_amaze.npz"),
            OfficialFile("feature_item_amazon.npz", "text", "item"),
            OfficialFile("feature_review_amazon.npz", "text", "review"),
            OfficialFile("img_feature_20_1_25_199.npz", "image", "item"),
        ),
        settings=settings(hidden_size=64, epochs=100, patience=100, monitor="macro_f1"),
        variant_settings={
            "modal2_missing": variant_settings(fill="zeros", branch_weight=0.0, missing_attention_weight=1.0)
        },
    )

    def read_graph(self, folder: Path) -> RawGraph:
        """Read edges, labels and split.

        Relations 0 and 1 of the file are one symmetric relation ``ii`` here, as in the official loader; 2 is ``ir``,
        and 3, its reverse, is made from it. Repeated edges count once.
        """
        path, sizes, first = folder / "rdf.npy", COUNTS.nodes, {"item": 0, "review": COUNTS.nodes["item"]}
        similar, rated = ("item", "ii", "item"), ("item", "ir", "review")
        both = [relation_rows(path, number, similar, first=first, num_nodes=sizes) for number in (0, 1)]
        src, dst = (np.concatenate(ends) for ends in zip(*both, strict=True))
        forward, _ = with_reverse(src, dst)
        to_review, to_item = with_reverse(*relation_rows(path, 2, rated, first=first, num_nodes=sizes))
        edges = {similar: forward, rated: to_review, ("review", "ri", "item"): to_item}
        labels = whole_numbers(folder / "labels.npy", read_array(folder / "labels.npy"))
        return RawGraph(sizes, edges, labels, read_splits(folder / "train_val_test_idx_amaze.npz"))

    def stand_in(self, source: DataSource) -> MultimodalGraph:
        """Generate a graph with the published numbers of nodes, edges and classes, and images on items only."""
        return synthetic(
            COUNTS.nodes,
            COUNTS.edges,
            {"item": {"text": WIDTH, "image": WIDTH}, "review": {"text": WIDTH}},
            target="item",
            classes=COUNTS.classes,
            reliability={"text": 0.6, "image": 0.65},
            homophily=0.6,
            degree_exponent={"ii": 2.5, "ir": 2.2},
            split=COUNTS.splits,
            name="amazon",
            source=source,
        )
