"""DOUBAN as HGNN-IMA uses it: movies of two classes, their directors and actors.

From MHGAT. Every movie has one director and up to three actors.
"""

from __future__ import annotations

from hgmm.datasets.base import DatasetInfo, OfficialFile, register
from hgmm.datasets.movies import OFFICIAL_NTYPES, MovieDataset, movie_counts
from hgmm.datasets.published import CITATION, MHGAT, TERMS, URL, settings, variant_settings

__all__ = ["DoubanDataset"]

COUNTS = movie_counts(
    1888, 1472, 3267, directed=1888, acted=5628, classes={"0": 1067, "1": 821}, splits=(380, 188, 1320)
)


@register
class DoubanDataset(MovieDataset):
    """The published files, those of them that are there, or a stand-in."""

    folders = ("douban", "DOUBAN")
    class_names = tuple(COUNTS.classes)
    counts = COUNTS
    edge_file = "douban_actor_rdf.npy"
    split_file = "train_val_test_idx_929.npz"
    width = 512
    degrees = {"md": 1, "ma": 3}
    info = DatasetInfo(
        name="douban",
        title="Douban movies, their directors and actors",
        description="Two classes; text features on all nodes, an image of each movie.",
        target="movie",
        licence=TERMS,
        citation=f"{CITATION}; {MHGAT}",
        url=URL,
        published=COUNTS.published(),
        ntypes=tuple(COUNTS.nodes),
        published_scores={"micro_f1": 0.8778, "macro_f1": 0.8758},
        published_variant="modal2_missing",
        official_files=(
            OfficialFile("douban_actor_rdf.npy"),
            OfficialFile("labels.npy"),
            OfficialFile("train_val_test_idx_929.npz"),
            OfficialFile("features_douban_928_1_movie.npz.npy", "text", "movie"),
            OfficialFile("features_douban_928_1_directors.npz.npy", "text", "director"),
            OfficialFile("features_douban_928_1_actor.npz.npy", "text", "actor"),
            OfficialFile("img_feature_douban_512_199.npz", "image", "movie"),
        ),
        official_ntypes=OFFICIAL_NTYPES,
        settings=settings(hidden_size=64, epochs=50, patience=100, monitor="macro_f1"),
        variant_settings={
            "modal2_missing": variant_settings(fill="zeros", branch_weight=0.0, missing_attention_weight=1.0)
        },
    )
