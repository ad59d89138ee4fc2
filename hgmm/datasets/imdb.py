"""IMDB as HGNN-IMA uses it: movies of three genres, their directors and actors.

MAGNN's IMDB (same movies, people and 3,066 words) with an image of each movie, from MHGAT. Every movie has exactly one
director and three actors.
"""

from __future__ import annotations

from hgmm.datasets.base import DatasetInfo, OfficialFile, register
from hgmm.datasets.movies import OFFICIAL_NTYPES, MovieDataset, movie_counts
from hgmm.datasets.published import CITATION, MHGAT, TERMS, URL, settings, variant_settings

__all__ = ["ImdbDataset"]

COUNTS = movie_counts(
    4278,
    2081,
    5257,
    directed=4278,
    acted=12828,
    classes={"Action": 1135, "Comedy": 1584, "Drama": 1559},
    splits=(855, 855, 2568),
)


@register
class ImdbDataset(MovieDataset):
    """The published files, those of them that are there, or a stand-in."""

    folders = ("imdb", "IMDB")
    class_names = tuple(COUNTS.classes)
    counts = COUNTS
    edge_file = "rdf.npy"
    split_file = "train_val_test_idx1.npz"
    width = 3066
    degrees = {"md": 1, "ma": 3}
    info = DatasetInfo(
        name="imdb",
        title="IMDB movies, their directors and actors",
        description="Three genres; bags of words on all nodes, an image of each movie.",
        target="movie",
        licence=TERMS,
        citation=f"{CITATION}; {MHGAT}",
        url=URL,
        published=COUNTS.published(),
        ntypes=tuple(COUNTS.nodes),
        published_scores={"micro_f1": 0.7578, "macro_f1": 0.7560},
        published_variant="modal2_missing",
        official_files=(
            OfficialFile("rdf.npy"),
            OfficialFile("labels.npy"),
            OfficialFile("train_val_test_idx1.npz"),
            OfficialFile("features_0.npz", "text", "movie"),
            OfficialFile("features_1.npz", "text", "director"),
            OfficialFile("features_2.npz", "text", "actor"),
            OfficialFile("img_feature_20_6_25_199.npz", "image", "movie"),
        ),
        official_ntypes=OFFICIAL_NTYPES,
        settings=settings(hidden_size=64, epochs=100, patience=100, monitor="macro_f1"),
        variant_settings={
            "modal2_missing": variant_settings(fill="copy:text", branch_weight=0.0, missing_attention_weight=1.0),
            # Chosen by validation accuracy on the text files alone; docs/results.md has the runs.
            "sharp": {
                "model.num_heads": 4,
                "model.num_layers": 1,
                "model.input_norm": "layer",
                "model.input_dropout": 0.3,
                "model.encoder_dropout": 0.5,
                "model.dropout": 0.5,
                "train.epochs": 30,
                "train.monitor": "micro_f1",
                "train.learning_rate": 3e-3,
                "train.weight_decay": 0.05,
                "train.scheduler_steps": 0,
                "train.scheduler_warmup": 0.1,
                "train.gradient_clip": 1.0,
                "train.label_smoothing": 0.1,
                "train.branch_weight": 0.0,
                "train.missing_attention_weight": 0.0,
            },
        },
    )
