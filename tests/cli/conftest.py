from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hgmm.cli import main
from hgmm.graph import MultimodalGraph, save_graph

SMALL = ("--set", "model.hidden_size=8", "--set", "model.num_heads=2", "--set", "train.num_threads=1")

Invoke = Callable[..., Result]


@pytest.fixture
def hgmm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in an empty folder; anything but an expected exit is raised. Nothing is drawn, to save time."""
    monkeypatch.setattr("hgmm.report.plots_installed", lambda: False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HGMM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("HGMM_BACKEND", raising=False)

    def invoke(*args: str) -> Result:
        return CliRunner().invoke(main, args, catch_exceptions=False)

    return invoke


@pytest.fixture
def graph_folder(small_graph: MultimodalGraph, tmp_path: Path) -> str:
    save_graph(small_graph, tmp_path / "small")
    return "./small"


@pytest.fixture
def trained(hgmm: Invoke, graph_folder: str) -> str:
    """Return the folder of a run of two epochs."""
    result = hgmm("train", "--dataset", graph_folder, "--epochs", "2", "--run-dir", "runs/one", *SMALL)
    assert result.exit_code == 0, result.output
    return "runs/one"
