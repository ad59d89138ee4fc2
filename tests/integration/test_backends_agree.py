"""Training does not depend on who computes: the same losses and the same best epoch on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgmm import datasets
from hgmm.graph import MultimodalGraph
from hgmm.training import RunRecord, configure, train_run
from tests.kernels.against_reference import use_isa

EPOCHS = 20


def train(backend: str, dataset: str, graph: MultimodalGraph, folder: Path, patch: pytest.MonkeyPatch) -> RunRecord:
    patch.setenv("HGMM_BACKEND", backend)
    settings = {"data.dataset": dataset, "train.epochs": EPOCHS, "train.device": "cpu", "train.num_threads": 2}
    return train_run(configure(overrides=settings), run_dir=folder / backend, graph=graph)


def agree(dataset: str, graph: MultimodalGraph, folder: Path, patch: pytest.MonkeyPatch) -> None:
    use_isa("auto", patch)
    reference, fused = (train(name, dataset, graph, folder, patch) for name in ("reference", "cpu"))
    assert len(reference.epochs) == EPOCHS
    for ours, theirs in zip(fused.epochs, reference.epochs, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
    assert fused.best_epoch == reference.best_epoch


def test_emoji(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agree("emoji", datasets.load("emoji"), tmp_path, monkeypatch)


def test_imdb(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agree("imdb", datasets.load("imdb", root=real_data), tmp_path, monkeypatch)
