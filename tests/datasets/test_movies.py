from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hgmm.datasets import check_published, info, load
from hgmm.datasets.imdb import ImdbDataset
from hgmm.registry import DATASETS
from tests.datasets.official_files import write_matrix, write_movies


@pytest.mark.parametrize("name", ["imdb", "douban"])
def test_stand_ins_have_the_published_numbers_and_images_on_movies_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(type(DATASETS.get(name)), "width", 6)
    graph = load(name, root=tmp_path)
    check_published(graph, info(name))
    assert graph.schema.modality_names == ("text", "image")
    assert graph.schema.widths("movie") == {"text": 6, "image": 6}
    assert graph.schema.widths("director") == graph.schema.widths("actor") == {"text": 6}
    assert graph.g.in_degrees(etype="dm").unique().tolist() == [1]
    assert graph.g.in_degrees(etype="am").max() == 3
    assert graph.g.in_degrees(etype="md").max() > 10


def test_repeated_rows_count_once_and_reverse_rows_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImdbDataset, "width", 6)
    stand_in = load("imdb", root=tmp_path)
    folder = tmp_path / "imdb"
    write_movies(stand_in, folder, edge_file="rdf.npy", split_file="train_val_test_idx1.npz")
    for number, ntype in enumerate(("movie", "director", "actor")):
        text = stand_in.features(ntype)["text"].numpy()
        write_matrix(folder / f"features_{number}.npz", np.where(text > 0, text, 0), sparse=True)
    write_matrix(folder / "img_feature_20_6_25_199.npz", stand_in.features("movie")["image"].numpy())
    graph = load("imdb", root=tmp_path, require_official=True)
    assert graph.schema.classes == ("Action", "Comedy", "Drama")
    for etype in stand_in.schema.canonical_etypes:
        pairs = [torch.stack(g.g.edges(etype=etype)).unique(dim=1) for g in (stand_in, graph)]
        assert torch.equal(*pairs)
    assert torch.equal(graph.features("movie")["image"], stand_in.features("movie")["image"])
    for split in ("train", "val", "test"):
        assert torch.equal(graph.split(split), stand_in.split(split))


def test_the_official_node_types_give_the_official_order_of_relations() -> None:
    names = info("imdb").official_ntypes
    ours = load("douban", root="/nonexistent").schema.canonical_etypes
    renamed = sorted((names[src], etype, names[dst]) for src, etype, dst in ours)
    assert renamed == [("0", "ma", "2"), ("0", "md", "1"), ("1", "dm", "0"), ("2", "am", "0")]


def test_published_settings_are_the_default_configuration() -> None:
    settings = info("imdb").settings_for("modal2_missing")
    assert settings == {
        "model.hidden_size": 64,
        "model.num_heads": 8,
        "model.num_layers": 3,
        "model.fill": "copy:text",
        "train.epochs": 100,
        "train.patience": 100,
        "train.monitor": "macro_f1",
        "train.patience_monitor": "loss",
        "train.learning_rate": 1e-3,
        "train.weight_decay": 5e-3,
        "train.scheduler": "one-cycle",
        "train.scheduler_steps": 1000,
        "train.scheduler_warmup": 0.05,
        "train.gradient_clip": 0.0,
        "train.label_smoothing": 0.0,
        "train.branch_weight": 0.0,
        "train.missing_attention_weight": 1.0,
    }
    assert "model.fill" not in info("imdb").settings_for()
    assert info("douban").settings_for("modal2_missing")["model.fill"] == "zeros"
    assert info("douban").settings["train.epochs"] == 50


def test_the_real_imdb_with_its_text_only(real_data: Path) -> None:
    graph = load("imdb", root=real_data)
    assert graph.source.source == "local"
    assert graph.source.absent == ("movie.image",)
    assert [graph.schema.widths(t) for t in ("movie", "director", "actor")] == 3 * [{"text": 3066}]
    assert [int((graph.features(t)["text"] != 0).sum()) for t in ("movie", "director", "actor")] == [
        27175,
        25784,
        76501,
    ]
    assert graph.g.in_degrees(etype="dm").unique().tolist() == [1]
    assert torch.bincount(graph.g.in_degrees(etype="am")).tolist() == [0, 2, 2, 4274]
    majority = torch.bincount(graph.labels[graph.train_idx]).argmax()
    assert (graph.labels[graph.test_idx] == majority).float().mean().item() == pytest.approx(0.363, abs=0.01)
