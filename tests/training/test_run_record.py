from __future__ import annotations

import dataclasses
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hgmm import __version__
from hgmm.errors import DataError
from hgmm.training import RunRecord, list_runs
from hgmm.training.run_record import aggregate, near_runs, source_commit, versions

KEYS = [
    "schema_version",
    "status",
    "task",
    "model",
    "variant",
    "dataset",
    "seed",
    "data",
    "config",
    "best_epoch",
    "epochs",
    "test",
    "seconds",
    "peak_memory_mib",
    "throughput",
    "versions",
    "commit",
]


def record(seed: int = 0, accuracy: float = 0.5, **changes: Any) -> RunRecord:
    made = RunRecord(
        status="done",
        task="node-classification",
        model="tiny",
        variant=None,
        dataset="small",
        seed=seed,
        data={"source": "local"},
        config={},
        best_epoch=3,
        test={"accuracy": accuracy},
        seconds=2.0,
        peak_memory_mib=10.0 + seed,
        throughput={"value": 100.0 * (seed + 1), "unit": "training nodes per second"},
    )
    return dataclasses.replace(made, **changes)


def test_the_file_has_the_agreed_keys_and_comes_back(tmp_path: Path) -> None:
    record().save(tmp_path)
    assert list(json.loads((tmp_path / "record.json").read_text())) == KEYS
    assert RunRecord.load(tmp_path) == record()


def test_means_and_deviations(tmp_path: Path) -> None:
    whole = aggregate([record(0, 0.5), record(1, 0.75), record(2, 1.0)], ["a", "b", "c"])
    whole.save(tmp_path)
    data = json.loads((tmp_path / "record.json").read_text())
    assert list(data) == [*KEYS, "test_std", "runs"]
    assert data["test"] == {"accuracy": 0.75}
    assert data["test_std"] == {"accuracy": 0.25}
    assert (data["seconds"], data["peak_memory_mib"], data["throughput"]["value"]) == (6.0, 12.0, 200.0)
    assert (data["best_epoch"], data["epochs"]) == (None, [])
    assert data["runs"][1] == {"seed": 1, "path": "b", "best_epoch": 3, "test": {"accuracy": 0.75}}
    assert RunRecord.load(tmp_path) == whole


def test_one_run_deviates_by_nothing() -> None:
    assert aggregate([record()], ["a"]).test_std == {"accuracy": 0.0}


def test_runs_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        record().save(tmp_path / name)
    (tmp_path / "other").mkdir()
    assert [path.name for path, _ in list_runs(tmp_path)] == ["a", "b"]
    with pytest.raises(DataError, match=r"folder of runs .*absent: there is no such folder"):
        list_runs(tmp_path / "absent")


def test_a_broken_record_is_told_of_and_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        record().save(tmp_path / name)
    (tmp_path / "b" / "record.json").write_text("{")
    told: list[DataError] = []
    assert [path.name for path, _ in list_runs(tmp_path, on_broken=told.append)] == ["a", "c"]
    (error,) = told
    assert "b/record.json: it is not valid JSON" in str(error)
    with pytest.raises(DataError, match=r"b/record.json: it is not valid JSON"):
        list_runs(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/emoji-2", " Did you mean runs/emoji-20260101 or runs/emoji-20260102? All of them: hgmm runs"),
        ("emoji-20260102", " Did you mean runs/emoji-20260102? All of them: hgmm runs"),
        ("old/imbd", " Did you mean old/imdb? All of them: hgmm runs"),
        ("nowhere", ""),
    ],
)
def test_runs_that_may_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/emoji-20260101", "runs/emoji-20260102", "old/imdb"):
        record().save(folder)
    assert near_runs(name) == words


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema_version": 7}, r"record.json: schema_version must be 1, got 7"),
        ({"colour": "red"}, r"record.json: unknown key 'colour'; known: best_epoch"),
        ({"status": None}, r"record.json: key 'status' is missing"),
        ({"data": 3}, r"record.json: key 'data' must hold a dict, got 3"),
        ({"epochs": {}}, r"record.json: key 'epochs' must hold a list, got {}"),
        ({"test": {"accuracy": "good"}}, r"record.json: figure 'accuracy' must be a number, got 'good'"),
        ({"test_std": {"accuracy": None}}, r"record.json: figure 'accuracy' must be a number, got None"),
    ],
)
def test_wrong_records(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    data = {key: value for key, value in {**record().to_dict(), **change}.items() if key != "status" or value}
    (tmp_path / "record.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=match):
        RunRecord.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3"])
def test_a_record_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(DataError, match="schema_version must be 1, got None"):
        RunRecord.load(tmp_path)


def test_versions_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions()
    assert list(found) == ["hgmm", "torch", "dgl", "numpy", "python"]
    assert found["hgmm"] == __version__
    commit = source_commit()
    assert commit is None or (len(commit) == 40 and math.isfinite(int(commit, 16)))

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert source_commit() is None
