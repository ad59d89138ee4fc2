from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hgmm import datasets, files
from hgmm.errors import ConfigError, DataError, SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.graph.multimodal import DataSource
from hgmm.registry import MODELS
from hgmm.training import (
    Callback,
    EpochRecord,
    Interrupted,
    RunConfig,
    RunRecord,
    Trainer,
    configure,
    load_run,
    model_settings,
    session,
    train_run,
    train_runs,
)
from hgmm.training.session import build_model
from tests.training.test_trainer import Diverging
from tests.training.tiny import TinyClassifier, make_graph

pytestmark = pytest.mark.usefixtures("_tiny_model")

SETTINGS: dict[str, Any] = {
    "model.name": "tiny",
    "train.epochs": 5,
    "train.learning_rate": 0.05,
    "train.device": "cpu",
    "train.checkpoint_seconds": 0.0,
}


def config(**settings: Any) -> RunConfig:
    return RunConfig.resolve(
        None, None, {**SETTINGS, **{key.replace("__", "."): value for key, value in settings.items()}}
    )


def comparable(record: RunRecord) -> dict[str, Any]:
    return dataclasses.asdict(dataclasses.replace(record, seconds=0.0, peak_memory_mib=0.0, throughput={}))


def test_a_run_leaves_its_folder(graph: MultimodalGraph, tmp_path: Path) -> None:
    record = train_run(config(), run_dir=tmp_path / "run", graph=graph)
    assert record == RunRecord.load(tmp_path / "run")
    assert (record.status, record.task, record.model, record.variant) == ("done", "node-classification", "tiny", None)
    assert (record.dataset, record.data["source"], record.seed) == ("tiny", "local", 0)
    assert [entry["epoch"] for entry in record.epochs] == [1, 2, 3, 4, 5]
    assert set(record.epochs[0]) == {"epoch", "loss", "val"}
    assert record.best_epoch in range(1, 6)
    assert record.config == config().to_dict()
    names = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    state = json.loads((tmp_path / "run" / "checkpoint" / "state.json").read_text())
    files = {state["tensors"], state["best"], "state.json", "model.json"}
    assert names == {"config.yaml", "record.json", "predictions.csv", "checkpoint", *(f"checkpoint/{f}" for f in files)}


def test_predictions_are_a_table_of_all_target_nodes(tmp_path: Path) -> None:
    graph = make_graph()
    graph.source = DataSource("synthetic", note="made up")
    record = train_run(config(), run_dir=tmp_path / "run", graph=graph)
    table = pd.read_csv(tmp_path / "run" / "predictions.csv", dtype=str, keep_default_na=False)
    probabilities = [f"probability_{name}" for name in graph.schema.classes]
    weights = [f"weight_{name}" for name in graph.schema.modality_names]
    assert list(table) == ["id", "name", "split", "label", "predicted", *probabilities, *weights, "source"]
    assert list(table["id"]) == graph.node_ids["item"]
    assert table["name"][3] == "item, no. 3"
    assert set(table["source"]) == {"synthetic"}
    assert table[probabilities].astype(float).sum(axis=1).to_numpy() == pytest.approx(1.0, abs=1e-5)
    test = table[table["split"] == "test"]
    assert len(test) == 30
    assert (test["label"] == test["predicted"]).mean() == pytest.approx(record.test["accuracy"])


def test_same_seed_same_run(graph: MultimodalGraph, tmp_path: Path) -> None:
    first = train_run(config(), run_dir=tmp_path / "a", graph=graph)
    second = train_run(config(), run_dir=tmp_path / "b", graph=make_graph())
    assert comparable(first) == comparable(second)
    for name in ("predictions.csv", "config.yaml", "checkpoint/model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


class SignalAt(Callback):
    """Send this process a real signal after so many steps."""

    def __init__(self, number: int, steps: int) -> None:
        self.number = number
        self.left = steps

    def on_step(self, step: int, num_steps: int) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "steps", "settings"),
    [
        (signal.SIGINT, 3, {}),
        (signal.SIGTERM, 6, {"train__batch_size": 8, "train__fanouts": [2], "train__epochs": 3}),
    ],
)
def test_a_signal_stops_the_run_and_it_can_be_resumed(
    graph: MultimodalGraph, tmp_path: Path, number: signal.Signals, steps: int, settings: dict[str, Any]
) -> None:
    whole = train_run(config(**settings), run_dir=tmp_path / "whole", graph=graph)
    with pytest.raises(Interrupted, match=f"run was stopped by {number.name}") as caught:
        train_run(config(**settings), run_dir=tmp_path / "run", callbacks=[SignalAt(number, steps)], graph=graph)
    assert (caught.value.signal, caught.value.run_dir) == (number, tmp_path / "run")
    assert RunRecord.load(tmp_path / "run").status == "interrupted"
    assert not (tmp_path / "run" / "predictions.csv").exists()
    resumed = train_run(run_dir=tmp_path / "run", resume=True, graph=graph)
    assert comparable(resumed) == comparable(whole)
    for name in ("predictions.csv", "config.yaml", "checkpoint/model.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["load_data", "describe_model", "labelled_table"])
def test_a_signal_between_the_steps_leaves_no_running_record(
    graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: signal.Signals
) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: graph)
    handlers = [signal.getsignal(entry) for entry in (signal.SIGINT, signal.SIGTERM)]
    work = getattr(session, place)

    def stopped(*args: Any) -> Any:
        signal.raise_signal(number)
        return work(*args)

    with monkeypatch.context() as patch:
        patch.setattr(session, place, stopped)
        with pytest.raises(Interrupted, match=f"one was stopped by {number.name}"):
            train_run(config(), run_dir=tmp_path / "one")
        with pytest.raises(Interrupted, match=f"two was stopped by {number.name}"):
            train_runs(config(), runs=2, run_dir=tmp_path / "two")
    assert [signal.getsignal(entry) for entry in (signal.SIGINT, signal.SIGTERM)] == handlers
    found = {path.parent.name: RunRecord.load(path.parent) for path in tmp_path.rglob("record.json")}
    assert {record.status for record in found.values()} == {"interrupted"}
    assert len(found["one"].epochs) == (5 if place == "labelled_table" else 0)
    assert train_run(run_dir=tmp_path / "one", resume=True).status == "done"
    assert (tmp_path / "one" / "predictions.csv").exists()
    assert train_runs(runs=2, run_dir=tmp_path / "two", resume=True).status == "done"


def test_a_stop_that_no_signal_asked_for_is_no_error(graph: MultimodalGraph, tmp_path: Path) -> None:
    class Enough(Callback):
        def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
            self.trainer = trainer

        def on_epoch_end(self, record: EpochRecord) -> None:
            self.trainer.request_stop()

    record = train_run(config(), run_dir=tmp_path / "run", callbacks=[Enough()], graph=graph)
    assert (record.status, len(record.epochs), record.test) == ("interrupted", 1, {})


def test_resuming_a_run_that_is_done_changes_nothing(graph: MultimodalGraph, tmp_path: Path) -> None:
    record = train_run(config(), run_dir=tmp_path / "run", graph=graph)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert train_run(config(), run_dir=tmp_path / "run", resume=True, graph=graph) == record
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


class Fail(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_epoch_end(self, record: EpochRecord) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("no"), "failed"), (KeyboardInterrupt(), "interrupted"), (MemoryError(), "failed")],
)
def test_a_failure_is_recorded_and_can_be_resumed(
    graph: MultimodalGraph, tmp_path: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)):
        train_run(config(), run_dir=tmp_path / "run", callbacks=[Fail(error)], graph=graph)
    record = RunRecord.load(tmp_path / "run")
    assert (record.status, [entry["epoch"] for entry in record.epochs]) == (status, [1])
    assert train_run(run_dir=tmp_path / "run", resume=True, graph=graph).status == "done"


def test_a_loss_that_is_no_number_leaves_a_run_that_can_be_used(graph: MultimodalGraph, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the validation loss of epoch 3 is nan"):
        train_run(config(), run_dir=tmp_path / "run", callbacks=[Diverging(3)], graph=graph)
    record = RunRecord.load(tmp_path / "run")
    assert (record.status, len(record.epochs)) == ("failed", 2)
    assert "NaN" not in (tmp_path / "run" / "record.json").read_text()
    assert np.isfinite(load_run(tmp_path / "run").predict(graph).probabilities).all()


def full_disk(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let files be written `after` times, then never again."""
    write, written = files.write_atomically, itertools.count(1)

    def write_or_fail(path: Path, fill: Callable[[Path], object]) -> None:
        if next(written) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, fill)

    monkeypatch.setattr(files, "write_atomically", write_or_fail)


@pytest.mark.parametrize("after", [0, 2, 5, 9])
def test_a_full_disk_is_said_and_once_it_has_room_the_run_goes_on(
    graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = train_run(config(), run_dir=tmp_path / "whole", graph=graph)
    with monkeypatch.context() as patch:
        full_disk(patch, after=after)
        with pytest.raises(DataError, match=r"run.*: it cannot be written \(No space left on device\); make room"):
            train_run(config(), run_dir=tmp_path / "run", graph=graph)
    again = train_run(
        config(), run_dir=tmp_path / "run", resume=(tmp_path / "run" / "config.yaml").exists(), graph=graph
    )
    assert comparable(again) == comparable(whole)


def test_a_run_folder_that_cannot_be_made(graph: MultimodalGraph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/run/config.yaml: it cannot be written \(Not a directory\)"):
        train_run(config(), run_dir=tmp_path / "file" / "run", graph=graph)


def test_an_early_failure_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        train_run(config(data__dataset="nowhere"), run_dir=tmp_path / "run")
    record = RunRecord.load(tmp_path / "run")
    assert (record.status, record.dataset, record.data) == ("failed", "nowhere", {})


def test_several_runs(graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: graph)
    record = train_runs(config(train__seed=4), runs=3, run_dir=tmp_path / "run")
    assert record == RunRecord.load(tmp_path / "run")
    assert record.runs is not None
    assert record.test_std is not None
    assert [(entry["seed"], entry["path"]) for entry in record.runs] == [(4, "seed-4"), (5, "seed-5"), (6, "seed-6")]
    single = [RunRecord.load(tmp_path / "run" / entry["path"]) for entry in record.runs]
    assert record.test["accuracy"] == pytest.approx(sum(entry.test["accuracy"] for entry in single) / 3)
    assert [entry.config["train"]["seed"] for entry in single] == [4, 5, 6]
    assert record.config["train"]["seed"] == record.seed == 4
    alone = train_run(config(train__seed=5), run_dir=tmp_path / "alone", graph=graph)
    assert comparable(alone) == comparable(single[1])


def test_several_runs_are_resumed_where_they_stopped(
    graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: graph)
    whole = train_runs(config(), runs=3, run_dir=tmp_path / "whole")
    stop = SignalAt(signal.SIGTERM, 7)
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        train_runs(config(), runs=3, run_dir=tmp_path / "run", callbacks=[stop])
    assert caught.value.run_dir == tmp_path / "run"
    status = {path.parent.name: RunRecord.load(path.parent).status for path in (tmp_path / "run").rglob("record.json")}
    assert status == {"run": "interrupted", "seed-0": "done", "seed-1": "interrupted"}
    resumed = train_runs(run_dir=tmp_path / "run", runs=3, resume=True)
    assert comparable(resumed) == comparable(whole)


def test_a_signal_at_the_very_end_of_a_run_stops_the_runs_that_follow(
    graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Callback):
        def on_epoch_end(self, record: EpochRecord) -> None:
            if record.epoch == 5:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(datasets, "load", lambda *_, **__: graph)
    with pytest.raises(Interrupted, match="SIGINT"):
        train_runs(config(), runs=2, run_dir=tmp_path / "run", callbacks=[Late()])
    status = {path.parent.name: RunRecord.load(path.parent).status for path in (tmp_path / "run").rglob("record.json")}
    assert status == {"run": "interrupted", "seed-0": "done"}


def test_a_failing_run_fails_the_whole(graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: graph)
    with pytest.raises(MemoryError):
        train_runs(config(), runs=2, run_dir=tmp_path / "run", callbacks=[Fail(MemoryError())])
    assert RunRecord.load(tmp_path / "run").status == "failed"


@pytest.mark.parametrize("several", [False, True])
def test_a_corrected_run_takes_the_folder_of_one_that_was_refused(
    graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        train_run(config(data__dataset="nowhere"), run_dir=tmp_path)
    monkeypatch.setattr(session, "load_data", lambda config: graph)
    record = train_runs(config(), runs=2, run_dir=tmp_path) if several else train_run(config(), run_dir=tmp_path)
    assert record.status == RunRecord.load(tmp_path).status == "done"
    with pytest.raises(ConfigError, match="it exists and is not empty"):
        train_run(config(), run_dir=tmp_path, graph=graph)


def occupied(graph: MultimodalGraph, path: Path) -> None:
    (path / "notes.txt").write_text("mine")
    train_run(config(), run_dir=path, graph=graph)


def other_config(graph: MultimodalGraph, path: Path) -> None:
    train_run(config(), run_dir=path / "run", graph=graph)
    train_run(config(train__epochs=9), run_dir=path / "run", resume=True, graph=graph)


def single_as_several(graph: MultimodalGraph, path: Path) -> None:
    train_run(config(), run_dir=path / "run", graph=graph)
    train_runs(runs=2, run_dir=path / "run", resume=True)


def several_as_single(graph: MultimodalGraph, path: Path) -> None:
    train_run(config(), run_dir=path / "seed-0", graph=graph)
    (path / "config.yaml").write_bytes((path / "seed-0" / "config.yaml").read_bytes())
    train_run(run_dir=path, resume=True, graph=graph)


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (occupied, r"run folder .*: it exists and is not empty"),
        (other_config, r"keeps its configuration \(train.epochs was 5, now 9\)"),
        (single_as_several, r"run: it holds a single run; resume it with train_run"),
        (several_as_single, r": it holds several runs; resume it with train_runs"),
        (lambda graph, path: train_run(run_dir=path, graph=graph), r"config: must be given .*, got None"),
        (lambda graph, path: train_run(run_dir=path, resume=True), r"it has no config.yaml, so there is no run"),
        (lambda graph, path: train_runs(config(), runs=0, run_dir=path), r"runs: must be at least 1, got 0"),
        (
            lambda graph, path: train_runs(config(train__seed=2**31 - 1), runs=2, run_dir=path),
            r"train.seed: must be below 2\*\*31, got 2147483648",
        ),
        (
            lambda graph, path: train_run(
                dataclasses.replace(config(), model=dataclasses.replace(config().model, options={"size": 3})),
                run_dir=path,
            ),
            r"model.size: unknown option of model 'tiny' 'size'",
        ),
    ],
)
def test_wrong_calls(
    graph: MultimodalGraph, tmp_path: Path, act: Callable[[MultimodalGraph, Path], object], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        act(graph, tmp_path)


def test_a_run_is_not_resumed_on_other_data(graph: MultimodalGraph, tmp_path: Path) -> None:
    stop = SignalAt(signal.SIGINT, 2)
    with pytest.raises(Interrupted):
        train_run(config(), run_dir=tmp_path / "run", callbacks=[stop], graph=graph)
    with pytest.raises(DataError, match=r"the data has changed since the run was started \(other schema\)"):
        train_run(run_dir=tmp_path / "run", resume=True, graph=make_graph(width=7))
    graph.source = DataSource("local", sha256={"a.csv": "0"})
    with pytest.raises(DataError, match=r"\(other source\)"):
        train_run(run_dir=tmp_path / "run", resume=True, graph=graph)


def test_a_leftover_of_a_killed_process_does_not_occupy_a_folder(graph: MultimodalGraph, tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.0123.tmp").write_text("half")
    assert train_run(config(), run_dir=tmp_path, graph=graph).status == "done"


def test_a_model_must_serve_the_task(graph: MultimodalGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ranker(TinyClassifier):
        tasks = ("link-prediction",)

    monkeypatch.setitem(MODELS._entries, "ranker", Ranker)
    with pytest.raises(
        ConfigError, match=r"'ranker' does not serve node-classification.*'tiny'; models that do: .*tiny"
    ):
        build_model(config(model__name="ranker"), graph)


@pytest.mark.parametrize("train", [train_run, partial(train_runs, runs=2)], ids=["one", "several"])
def test_a_task_that_the_model_does_not_serve_is_refused_before_data_is_read(
    train: Callable[..., RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("the data was read"))
    with pytest.raises(ConfigError, match=r"'tiny' does not serve link-prediction, the task of dataset 'books-lp'"):
        train(config(data__dataset="books-lp"), run_dir=tmp_path / "run")


def test_modalities_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: make_graph())
    with pytest.raises(SchemaError, match="unknown modality 'image'; known: structure, text"):
        train_run(config(data__drop_modalities=["image"]), run_dir=tmp_path / "a")
    assert RunRecord.load(tmp_path / "a").status == "failed"


def test_data_is_corrupted_and_the_record_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: make_graph())
    corrupted = config(data__corrupt=["text=0.5", "labels=0.2"], data__corrupt_seed=3, train__epochs=1)
    record = train_run(corrupted, run_dir=tmp_path / "a")
    assert record.config["data"]["corrupt"] == ["text=0.5", "labels=0.2"]
    assert record.config["data"]["corrupt_seed"] == 3
    assert record.data["corrupted"] == ["missing:text=0.5", "labels=0.2"]
    assert record.data["note"] == (
        "corrupted on purpose (seed 3): text taken from 45 of 90 item, another class for 6 of 30 training nodes"
    )


@pytest.mark.parametrize("name", datasets.available())
def test_the_settings_of_every_dataset_are_known(name: str) -> None:
    info = datasets.info(name)
    for variant in (None, *info.variant_settings):
        overrides = {"data.dataset": name, **({"model.variant": variant} if variant else {})}
        resolved = configure(overrides=overrides)
        assert resolved.model.name == info.default_model
        for key, value in info.settings_for(variant).items():
            section, _, option = key.partition(".")
            assert resolved.to_dict()[section][option] == (list(value) if isinstance(value, tuple) else value)


def test_settings_of_a_dataset_yield_to_file_and_flags(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {dataset: imdb}\ntrain: {epochs: 7}\n")
    assert datasets.info("imdb").settings["train.epochs"] == 100
    assert configure(file=tmp_path / "c.yaml").train.epochs == 7
    assert configure(file=tmp_path / "c.yaml", overrides={"train.epochs": 3}).train.epochs == 3


def test_a_model_of_triples_has_a_default_dataset_of_its_own() -> None:
    assert configure().data.dataset == configure(overrides={"model.name": "graph-mnl"}).data.dataset == "emoji"
    config = configure(overrides={"model.name": "mm-distmult"})
    assert config == configure(overrides={"model.name": "mm-distmult", "data.dataset": "emoji-kg"})
    assert (config.data.dataset, config.link.margin) == ("emoji-kg", 9.0)
    named = configure(overrides={"model.name": "mm-transe", "data.dataset": "emoji"})
    assert named.data.dataset == "emoji"


def test_settings_for_the_default_model_are_not_given_to_another() -> None:
    info = datasets.info("imdb")
    assert "model.num_heads" in info.settings
    resolved = configure(overrides={"data.dataset": "imdb", "model.name": "tiny"})
    assert resolved.model.options == {"hidden_size": 8, "dropout": 0.5, "note": ""}
    assert resolved.train.epochs == info.settings["train.epochs"]


def test_a_models_own_settings_win_over_those_the_dataset_has_for_another_model() -> None:
    info = datasets.info("imdb")
    resolved = configure(overrides={"data.dataset": "imdb", "model.name": "graph-mnl"})
    own = model_settings("graph-mnl")
    assert (resolved.negative.weight, resolved.train.epochs) == (own["negative.weight"], own["train.epochs"])
    assert own["train.epochs"] != info.settings["train.epochs"]
    assert resolved.train.monitor == info.settings["train.monitor"]
    assert configure(overrides={"data.dataset": "imdb"}).negative.weight == 0


def test_configure_names_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'emojy'"):
        configure(overrides={"data.dataset": "emojy"})
    with pytest.raises(DataError, match=r"absent.yaml: it cannot be read"):
        configure(file=tmp_path / "absent.yaml")
