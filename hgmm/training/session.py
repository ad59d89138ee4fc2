"""A whole run: read the data, build the model, train it, test it, and write everything down."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hgmm import datasets
from hgmm.errors import ConfigError, DataError
from hgmm.files import write_bytes
from hgmm.graph import MultimodalGraph
from hgmm.registry import MODELS
from hgmm.training._files import read_json, write_json
from hgmm.training.config import RunConfig, model_settings
from hgmm.training.config_file import read_config, write_config
from hgmm.training.interrupts import Interrupted, interruptible, stop_signals
from hgmm.training.link_task import LinkPredictionTask
from hgmm.training.negative_task import NegativeLearningTask
from hgmm.training.predictions import Predictions, labelled_table
from hgmm.training.progress import Callback, EpochRecord, FitResult
from hgmm.training.run_folder import is_free
from hgmm.training.run_record import RECORD, RunRecord, aggregate, source_commit, versions
from hgmm.training.task import NodeClassificationTask, Task
from hgmm.training.trained_run import CONFIG, DESCRIPTION, describe_model, graph_sizes, load_run
from hgmm.training.trainer import Trainer, seed_everything

__all__ = ["build_model", "configure", "load_data", "train_run", "train_runs"]

NODE_CLASSIFICATION = "node-classification"
LINK_PREDICTION = "link-prediction"


def configure(*, file: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Resolve a configuration: overrides > file > the dataset's settings > defaults.

    Parameters
    ----------
    file : path, optional
        A configuration file.
    overrides : mapping, optional
        Dotted keys such as ``train.epochs``.

    Notes
    -----
    Where no dataset is named, it is ``emoji-kg`` for a model of triples. The dataset's settings depend on the variant
    that overrides or file choose. To a model that is not the dataset's default one those of the section ``model`` do
    not apply, and others only where the model has no setting of its own (`hgmm.training.model_settings`).

    Raises
    ------
    ConfigError
        If a key is unknown or a value wrong.
    DataError
        If the file or the dataset cannot be read.
    """
    from_file = {} if file is None else read_config(file)
    asked = RunConfig.merge(None, from_file, overrides)
    unnamed = _default_data(asked)
    asked = unnamed | asked
    data = RunConfig.from_dict({key: value for key, value in asked.items() if key.startswith("data.")}).data
    info = datasets.info(data.dataset)
    name = asked.get("model.name", info.default_model)
    if name == info.default_model:
        settings = {"model.name": name, **info.settings_for(asked.get("model.variant"))}
    else:
        # Variants and options of the model are those of the dataset's default model, and so is how it is trained.
        own = model_settings(name) if name in MODELS else {}
        settings = {key: x for key, x in info.settings.items() if not key.startswith("model.") and key not in own}
    return RunConfig.resolve(unnamed | settings, from_file, overrides)


def _default_data(asked: Mapping[str, Any]) -> dict[str, str]:
    """Name the data set of a model that does not serve the task of the usual one."""
    name = asked.get("model.name", "")
    if "data.dataset" in asked or name not in MODELS or NODE_CLASSIFICATION in MODELS.get(name).tasks:
        return {}
    return {"data.dataset": "emoji-kg"}


def load_data(config: RunConfig) -> MultimodalGraph:
    """Load the graph that a configuration names, without what it drops, and damaged as it asks."""
    data = config.data
    graph: MultimodalGraph = datasets.load(
        data.dataset, root=data.root, require_official=data.require_official, options=data.source_options
    )
    return data.applied_to(graph)


def build_model(config: RunConfig, graph: MultimodalGraph) -> nn.Module:
    """Build the model that a configuration names, with weights drawn from its seed.

    Raises
    ------
    ConfigError
        If the model is unknown, does not serve the graph's task, or refuses an option.
    """
    _check_task(config, graph_task(graph), graph.name)
    seed_everything(config.train.seed)
    model = MODELS.get(config.model.name)
    built: nn.Module = model(graph.schema, **graph_sizes(model, graph), **config.model.complete().options)
    return built


def make_task(config: RunConfig, graph: MultimodalGraph) -> Task:
    """Return what a configuration teaches a model of this graph."""
    if graph_task(graph) == LINK_PREDICTION:
        train = config.train
        return LinkPredictionTask(config.link, monitor=train.monitor, patience_monitor=train.patience_monitor)
    return NegativeLearningTask(config.negative, NodeClassificationTask.from_config(config.train))


def _check_task(config: RunConfig, task: str, dataset: str) -> None:
    if task not in MODELS.get(config.model.name).tasks:
        serving = [name for name in MODELS if task in MODELS.get(name).tasks]
        raise ConfigError(
            f"model.name: {config.model.name!r} does not serve {task}, the task of dataset {dataset!r}; "
            f"models that do: {', '.join(serving) or 'none'}"
        )


def _load_for_model(config: RunConfig) -> MultimodalGraph:
    """Load the data, but first refuse a task that the model does not serve: a large data set takes its time."""
    info = datasets.info(config.data.dataset)
    _check_task(config, info.task, info.name)
    return load_data(config)


def graph_task(graph: MultimodalGraph) -> str:
    """Return the task that a graph poses: triples ask for link prediction, labels for node classification."""
    return LINK_PREDICTION if graph.triples is not None else NODE_CLASSIFICATION


def train_run(
    config: RunConfig | None = None,
    *,
    run_dir: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    graph: MultimodalGraph | None = None,
) -> RunRecord:
    """Do a whole run and write its folder; nothing is printed.

    Parameters
    ----------
    config : RunConfig, optional
        The configuration; may be left out when resuming.
    run_dir : path
        The run folder. It must be new or empty unless `resume`.
    resume : bool, optional
        Go on from the folder's checkpoint with the folder's configuration; a run that is done is returned as it is.
    callbacks : sequence of Callback, optional
        Followers.
    graph : MultimodalGraph, optional
        The data, if it is loaded already. Default: what the configuration names.

    Returns
    -------
    RunRecord
        As in the folder's ``record.json``.

    Raises
    ------
    ConfigError
        If the folder is not empty, has nothing to resume, was made with another configuration, or an option is wrong.
    DataError, SchemaError
        If the data cannot be read or does not fit.
    Interrupted
        If SIGINT or SIGTERM came; the state is saved.
    """
    run_dir = Path(run_dir)
    config = _resumed_config(config, run_dir, several=False) if resume else _fresh_config(config, run_dir)
    if resume and (run_dir / RECORD).exists():
        record = RunRecord.load(run_dir)
        if record.status == "done":
            return record
    write_config(run_dir / CONFIG, config.to_dict())
    record = _started(config)
    trainer = None
    try:
        with interruptible(run_dir):
            record.save(run_dir)
            graph = _load_for_model(config) if graph is None else graph
            model = build_model(config, graph)
            description = describe_model(model, config, graph)
            if resume:
                _check_same_data(description, run_dir)
            write_json(run_dir / DESCRIPTION, description)
            record = dataclasses.replace(
                record,
                task=graph_task(graph),
                variant=description["arguments"].get("variant"),
                dataset=graph.name,
                data=description["source"],
            )
            record.save(run_dir)
            task = make_task(config, graph)
            trainer = Trainer(model, task, config.train, run_dir=run_dir, callbacks=callbacks)
            return _train(record, trainer, graph, run_dir, resume=resume)
    except BaseException as error:
        epochs = [] if trainer is None else trainer.history
        _save_stopped(dataclasses.replace(record, epochs=_plain_epochs(epochs)), run_dir, error)
        raise


def train_runs(
    config: RunConfig | None = None,
    *,
    runs: int,
    run_dir: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> RunRecord:
    """Do several runs with consecutive seeds on the same data, in ``run_dir/seed-<s>``.

    Parameters
    ----------
    config : RunConfig, optional
        Its seed is the first one; may be left out when resuming.
    runs : int
        How many, at least 1.
    run_dir, resume, callbacks
        As in `train_run`; resuming skips the runs that are done.

    Returns
    -------
    RunRecord
        Means, with ``test_std`` and ``runs``; also written as ``run_dir/record.json``.

    Raises
    ------
    ConfigError
        If `runs` is below 1 or leads to a seed that is too large; and as `train_run`.
    """
    if runs < 1:
        raise ConfigError(f"train_runs runs: must be at least 1, got {runs!r}")
    run_dir = Path(run_dir)
    config = _resumed_config(config, run_dir, several=True) if resume else _fresh_config(config, run_dir)
    trains = [dataclasses.replace(config.train, seed=config.train.seed + number) for number in range(runs)]
    write_config(run_dir / CONFIG, config.to_dict())
    record = _started(config)
    records = []
    try:
        with interruptible(run_dir):
            record.save(run_dir)
            graph = _load_for_model(config)
            for train in trains:
                one, folder = dataclasses.replace(config, train=train), run_dir / f"seed-{train.seed}"
                going_on = resume and (folder / CONFIG).exists()
                records.append(train_run(one, run_dir=folder, resume=going_on, callbacks=callbacks, graph=graph))
            whole = aggregate(records, [f"seed-{record.seed}" for record in records])
            whole = dataclasses.replace(whole, config=config.to_dict())
            whole.save(run_dir)
            return whole
    except BaseException as error:
        _save_stopped(record, run_dir, error)
        if isinstance(error, Interrupted):
            raise Interrupted(error.signal, run_dir) from error
        raise


def _fresh_config(config: RunConfig | None, run_dir: Path) -> RunConfig:
    if config is None:
        raise ConfigError("train_run config: must be given unless a run is resumed, got None")
    if run_dir.exists() and not (run_dir.is_dir() and is_free(run_dir)):
        raise ConfigError(f"run folder {run_dir}: it exists and is not empty; choose another, or resume that run")
    return dataclasses.replace(config, model=config.model.complete())


def _resumed_config(config: RunConfig | None, run_dir: Path, *, several: bool) -> RunConfig:
    if not (run_dir / CONFIG).exists():
        raise ConfigError(f"run folder {run_dir}: it has no {CONFIG}, so there is no run to resume; start one without")
    if not several and any(run_dir.glob("seed-*")):
        raise ConfigError(f"run folder {run_dir}: it holds several runs; resume it with train_runs, or with --runs K")
    if several and (run_dir / "checkpoint").exists():
        raise ConfigError(f"run folder {run_dir}: it holds a single run; resume it with train_run, or without --runs")
    stored = RunConfig.from_dict(read_config(run_dir / CONFIG))
    if config is not None:
        config = dataclasses.replace(config, model=config.model.complete())
    if config is not None and config != stored:
        old, new = (RunConfig.merge(None, entry.to_dict(), None) for entry in (stored, config))
        keys = sorted(key for key in old | new if old.get(key) != new.get(key))
        changes = "; ".join(f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in keys)
        raise ConfigError(f"run folder {run_dir}: a resumed run keeps its configuration ({changes}); start a new run")
    return stored


def _check_same_data(description: Mapping[str, Any], run_dir: Path) -> None:
    if not (run_dir / DESCRIPTION).exists():
        return
    before, now = read_json(run_dir / DESCRIPTION), json.loads(json.dumps(description))
    changed = sorted(key for key in before if before[key] != now.get(key))
    if changed:
        raise DataError(
            f"run folder {run_dir}: the data has changed since the run was started (other {', '.join(changed)}); "
            "start a new run"
        )


def _started(config: RunConfig) -> RunRecord:
    return RunRecord(
        status="running",
        task=NODE_CLASSIFICATION,
        model=config.model.name,
        variant=config.model.options.get("variant"),
        dataset=config.data.dataset,
        seed=config.train.seed,
        data={},
        config=config.to_dict(),
        versions=versions(),
        commit=source_commit(),
    )


def _save_stopped(record: RunRecord, run_dir: Path, error: BaseException) -> None:
    status = "interrupted" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "failed"
    # On a full disk this fails as well, and the first error is the one to show.
    with contextlib.suppress(OSError):
        # A run that was saved as interrupted or done before the error came stays that.
        if RunRecord.load(run_dir).status != "running":
            return
        dataclasses.replace(record, status=status).save(run_dir)


def _train(record: RunRecord, trainer: Trainer, graph: MultimodalGraph, run_dir: Path, *, resume: bool) -> RunRecord:
    with stop_signals(trainer.request_stop) as signals:
        result = trainer.fit(graph, resume=resume)
    unit = getattr(trainer.task, "unit", "training nodes")
    record = _with_result(record, result, f"{unit} per second")
    if result.status == "done":
        predictions = load_run(run_dir).predict(graph)
        table = labelled_table(predictions, graph) if isinstance(predictions, Predictions) else predictions.table()
        write_bytes(run_dir / "predictions.csv", table.to_csv(index=False).encode())
    record.save(run_dir)
    # A signal in the last moment leaves a run that is done, but whoever sent it wants what comes next to stop too.
    if signals.caught is not None:
        raise Interrupted(signals.caught, run_dir)
    return record


def _plain_epochs(epochs: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    return [
        {"epoch": entry.epoch, "loss": entry.loss, "val": entry.val}
        | ({"figures": entry.figures} if entry.figures else {})
        for entry in epochs
    ]


def _with_result(record: RunRecord, result: FitResult, unit: str) -> RunRecord:
    return dataclasses.replace(
        record,
        status=result.status,
        best_epoch=result.best_epoch or None,
        epochs=_plain_epochs(result.epochs),
        test=result.test,
        seconds=result.seconds,
        peak_memory_mib=result.peak_memory_mib,
        throughput={"value": result.throughput, "unit": unit},
    )
