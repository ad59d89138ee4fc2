from __future__ import annotations

from pathlib import Path

import pytest

from hgmm.datasets import available, info, load
from hgmm.errors import ConfigError
from hgmm.graph import MultimodalGraph
from hgmm.graph.storage import save_graph


def test_every_dataset_of_the_package_is_available() -> None:
    assert available() == [
        "amazon",
        "amazon-1",
        "amazon-2",
        "books-lp",
        "books-nc",
        "cloth-copurchase",
        "db15k",
        "douban",
        "ele-fashion",
        "emoji",
        "emoji-kg",
        "fb15k",
        "fb15k-237",
        "films",
        "grocery",
        "imdb",
        "mkg-w",
        "mkg-y",
        "movies",
        "nations",
        "planted-imbalance",
        "reddit-m",
        "reddit-s",
        "sports-copurchase",
        "synthetic",
        "toys",
    ]


def test_the_data_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_DATA", str(tmp_path))
    assert f"are not in {tmp_path / 'douban'}" in load("douban").source.note


def test_a_registered_name_wins_and_a_separator_means_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_graph: MultimodalGraph
) -> None:
    monkeypatch.chdir(tmp_path)
    save_graph(small_graph, "synthetic")
    save_graph(small_graph, "mine")
    assert load("synthetic").source.source == "synthetic"
    assert load("./synthetic").name == "small"
    assert load(Path("synthetic")).name == "small"
    assert load(tmp_path / "mine").name == "small"
    assert info("./mine").name == "mine"
    assert info("./mine").task == "node-classification"
    assert info("synthetic").target == "item"
    with pytest.raises(
        ConfigError, match=r"unknown dataset 'mine'; known: amazon, .* folder of that name write \./mine"
    ):
        load("mine")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown dataset 'emojy'. Did you mean 'emoji' or 'emoji-kg'\? All of them: hgmm datasets list\.",
    ):
        load("emojy")
    with pytest.raises(ConfigError, match=r"unknown dataset 'nothing'.* as in \./nothing"):
        info("nothing")


def test_folders_have_no_official_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"only named datasets have official files, got the folder '{tmp_path}'"):
        load(tmp_path, require_official=True)
