from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, Invoke


def test_curves_are_left_in_the_folder_of_every_run(
    hgmm: Invoke, graph_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hgmm[plots]'")
    monkeypatch.setattr("hgmm.report.plots_installed", lambda: True)
    args = ("train", "--dataset", graph_folder, "--epochs", "1", "--runs", "2", "--run-dir", "runs/two", *SMALL)
    result = hgmm(*args)
    assert result.exit_code == 0, result.output
    assert "plots: runs/two/seed-0/plots, runs/two/seed-1/plots" in result.output.splitlines()
    for seed in (0, 1):
        names = {path.name for path in Path(f"runs/two/seed-{seed}/plots").iterdir()}
        assert names == {f"{stem}.{form}" for stem in ("loss", "branch_accuracy") for form in ("png", "svg")}


def test_without_matplotlib_it_is_said_once(hgmm: Invoke, graph_folder: str) -> None:
    args = ("train", "--dataset", graph_folder, "--epochs", "1", "--runs", "2", "--run-dir", "runs/two", *SMALL)
    result = hgmm(*args)
    assert result.exit_code == 0, result.output
    assert result.output.count("matplotlib is not installed (pip install 'hgmm[plots]')") == 1
    assert not list(Path("runs").rglob("plots"))
