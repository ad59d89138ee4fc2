from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLE = EXAMPLES / "train_without_the_command_line.py"


def test_training_without_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--epochs", "20"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["10", "20"]
    score = next(line for line in lines if line.startswith("best epoch"))
    assert float(score.split()[-1]) > 0.8
    assert len([line for line in lines if line.startswith("item-")]) == 3


def test_negative_learning_in_your_model(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "negative_learning_in_your_model.py"
    assert len(path.read_text().splitlines()) < 40
    runpy.run_path(str(path), run_name="__main__")
    shares, score = capsys.readouterr().out.splitlines()
    found = ast.literal_eval(shares)
    assert 0 < found["gate"] <= 1
    assert found["inferior"] > 0.5
    assert float(score.split()[-1]) > 0.6


@pytest.mark.filterwarnings("ignore:Dataloader CPU affinity opt is not enabled")
def test_link_prediction_with_dgl(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "link_prediction_with_dgl.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    losses = [float(line.split()[-1]) for line in epochs]
    assert [line.split()[1] for line in epochs] == ["5,", "10,", "15,", "20,"]
    assert losses[-1] < losses[0]
    popularity, model = (
        dict(word.split() for word in line.split(": ")[1].split(", ")) for line in lines if line not in epochs
    )
    assert float(model["AUC"]) > float(popularity["AUC"]) + 0.15
    assert float(model["MRR"]) > float(popularity["MRR"])
