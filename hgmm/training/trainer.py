"""The training loop, the same for every model, task and loader."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hgmm import dgl_compat
from hgmm.errors import ConfigError, unknown_name
from hgmm.graph import MultimodalGraph
from hgmm.training.checkpoint import (
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    load_weights,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
)
from hgmm.training.config import TrainConfig
from hgmm.training.devices import peak_memory_mib, reset_peak_memory, usable_device
from hgmm.training.hooks import ask_task, restore_task, task_state, training_loss
from hgmm.training.loaders import Loader, place_graph, prepare_graph
from hgmm.training.optimizers import make_optimizer
from hgmm.training.plan import Plan, make_plan
from hgmm.training.progress import Callback, EpochRecord, FitResult, LoopState
from hgmm.training.schedule import Schedule
from hgmm.training.task import Task

__all__ = ["Trainer", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy, torch and DGL."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - a model may draw from it
    torch.manual_seed(seed)
    dgl_compat.seed(seed)


class Trainer:
    """Train a model on a graph; needs neither a registered model nor the command line.

    Parameters
    ----------
    model : torch.nn.Module
        ``model(graph, nodes)`` on a DGL graph, or ``model(blocks)`` on message-flow blocks, returns a `NodeOutput`. If
        it has a method ``prepare(graph)``, it is given what that makes of a `MultimodalGraph`.
    task : Task
        Loss, figures, and what to steer by.
    config : TrainConfig
        How to train.
    run_dir : path, optional
        Where ``checkpoint/`` is written; without it nothing is.
    callbacks : sequence of Callback, optional
        Followers.

    Raises
    ------
    ConfigError
        If a GPU is asked for that torch does not see.

    Notes
    -----
    AdamW over the parameters that need gradients, in the form that ``config.optimizer`` names. `fit` seeds the global
    generators, so that equal seeds and thread numbers give equal results on one machine; on the CPU a resumed run
    equals an uninterrupted one bit for bit.

    Examples
    --------
    >>> trainer = Trainer(model, NodeClassificationTask(), TrainConfig(epochs=50))  # doctest: +SKIP
    >>> trainer.fit(graph).test["micro_f1"]  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        config: TrainConfig,
        *,
        run_dir: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model = model
        self.task = task
        self.config = config
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.callbacks = tuple(callbacks)
        self.device = usable_device(config.device)
        self._progress = LoopState()
        self._best: dict[str, Tensor] = {}
        self._stop = False
        self._saves = 0
        self._saved_at = -math.inf

    @property
    def history(self) -> list[EpochRecord]:
        """The epochs so far."""
        return [EpochRecord(**entry) for entry in self._progress.history]

    @property
    def best_epoch(self) -> int:
        """The epoch with the best validation so far; 0 before the first."""
        return self._progress.best_epoch

    def request_stop(self) -> None:
        """Make `fit` save and return after the step it is at; may be called from a signal handler or a callback."""
        self._stop = True

    def fit(self, graph: MultimodalGraph, *, resume: bool = False) -> FitResult:
        """Train, keep the weights of the best validation, and test them.

        Parameters
        ----------
        graph : MultimodalGraph
            With something to train on, for most tasks training nodes; without a validation set the last weights are
            kept.
        resume : bool, optional
            Go on from the checkpoint in `run_dir`, or start if there is none yet. Without, there must be none.

        Raises
        ------
        SchemaError
            If the graph has no training nodes.
        ConfigError
            If a loss stops being finite, the task monitors a figure that it does not give, there is no folder to
            resume, or the folder has a checkpoint and shall not be resumed.
        DataError
            If the checkpoint is broken, or that of another model or task.
        """
        self._check(resume)
        with _threads(self.config.num_threads):
            reset_peak_memory(self.device)
            self.model.to(self.device)
            # Neighbours are sampled in main memory; only their blocks travel to the device.
            graph = prepare_graph(self.model, graph)
            graph = graph if self.config.batch_size else place_graph(graph, self.device)
            seed_everything(self.config.seed)
            self._progress, self._best, self._stop, self._saved_at = LoopState(), {}, False, time.monotonic()
            optimizer = make_optimizer(self.model, self.config)
            plan = make_plan(self.task, self.model, graph, self.config, self.device)
            ask_task(self.task, "on_fit_start", graph, self.device)
            if resume:
                self._restore(optimizer)
            for callback in self.callbacks:
                callback.on_fit_start(self, graph)
            self._run_epochs(plan, optimizer)
            result = self._result(plan)
        for callback in self.callbacks:
            callback.on_fit_end(result)
        return result

    def _check(self, resume: bool) -> None:
        if resume and self.run_dir is None:
            raise ConfigError("Trainer.fit resume: must come with a run_dir, got None; give the Trainer the folder")
        if not resume and self.run_dir is not None and has_checkpoint(self.run_dir / "checkpoint"):
            raise ConfigError(
                f"Trainer.fit resume: {self.run_dir} has a checkpoint, got False; resume it or choose another run_dir"
            )

    def _run_epochs(self, plan: Plan, optimizer: torch.optim.Optimizer) -> None:
        progress, config = self._progress, self.config
        steps = config.scheduler_steps or config.epochs * len(plan.train)
        schedule = Schedule(config.scheduler, config.learning_rate, steps, config.scheduler_warmup)
        while progress.epoch <= config.epochs and not self._out_of_patience():
            started = time.perf_counter()
            if progress.step == 0:
                ask_task(self.task, "on_epoch_start", progress.epoch)
            whole = self._train_epoch(plan.train, optimizer, schedule)
            if whole:
                self._close_epoch(plan, started)
            else:
                progress.epoch_seconds += time.perf_counter() - started
            self._save(optimizer, final=self._stop or self._finished())
            if self._stop:
                return

    def _train_epoch(self, train: Loader[Any], optimizer: torch.optim.Optimizer, schedule: Schedule) -> bool:
        """Take the epoch's remaining steps; return False if a stop was asked for before the epoch was validated."""
        progress = self._progress
        self.model.train()
        for batch in train.batches(progress.epoch, start=progress.step):
            progress.learning_rate = schedule.apply(optimizer, progress.updates)
            optimizer.zero_grad(set_to_none=True)
            loss, terms = training_loss(self.task, self.model, batch)
            value = float(loss.detach())
            _check_finite(value, f"the loss of epoch {progress.epoch}")
            loss.backward()  # type: ignore[no-untyped-call]
            if self.config.gradient_clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            optimizer.step()
            share = batch.num_items / train.num_items
            progress.loss_sum += value * share
            for name, term in terms.items():
                progress.term_sums[name] = progress.term_sums.get(name, 0.0) + term * share
            progress.step += 1
            progress.updates += 1
            for callback in self.callbacks:
                callback.on_step(progress.step, len(train))
            if self._stop:
                return False
        return True

    def _close_epoch(self, plan: Plan, started: float) -> None:
        progress = self._progress
        due = progress.epoch % self.config.eval_every == 0 or progress.epoch == self.config.epochs
        scores = plan.validate(self.model) if due else {}
        if "loss" in scores:
            _check_finite(scores["loss"], f"the validation loss of epoch {progress.epoch}")
        if scores or not plan.has_val:
            self._judge(scores)
        seconds = progress.epoch_seconds + time.perf_counter() - started
        record = EpochRecord(
            progress.epoch,
            progress.loss_sum,
            scores,
            seconds,
            progress.learning_rate,
            dict(progress.term_sums),
            ask_task(self.task, "figures") or {},
        )
        progress.history.append(asdict(record))
        progress.seconds += seconds
        ask_task(self.task, "on_epoch_end", progress.epoch)
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.term_sums, progress.epoch_seconds = 0, 0.0, {}, 0.0
        for callback in self.callbacks:
            callback.on_epoch_end(record)

    def _judge(self, figures: Mapping[str, float]) -> None:
        """Keep the weights if they are the best so far, and note progress for early stopping.

        Without figures, because there is nothing to validate on, the weights are kept.
        """
        progress = self._progress
        if not figures:
            self._keep_weights()
            return
        progress.validated_epoch = progress.epoch
        for name, _ in (self.task.monitor, self.task.patience_monitor):
            if name not in figures:
                raise ConfigError(f"Trainer.fit task: it monitors an {unknown_name('figure', name, figures)}")
        name, direction = self.task.monitor
        value, best = figures[name], progress.best_value
        if best is None or value == best or _better(value, best, direction):
            progress.best_value = value
            self._keep_weights()
        name, direction = self.task.patience_monitor
        value, best = figures[name], progress.patience_value
        if best is None or _better(value, best, direction):
            progress.patience_value, progress.patience_epoch = value, progress.epoch

    def _keep_weights(self) -> None:
        self._progress.best_epoch = self._progress.epoch
        self._best = {key: entry.detach().cpu().clone() for key, entry in self.model.state_dict().items()}

    def _out_of_patience(self) -> bool:
        # Epochs without validation prove nothing, so the wait ends at a validated one.
        waited = self._progress.validated_epoch - self._progress.patience_epoch
        return bool(self.config.patience and waited >= self.config.patience)

    def _finished(self) -> bool:
        return self._progress.epoch > self.config.epochs or self._out_of_patience()

    def _save(self, optimizer: torch.optim.Optimizer, *, final: bool) -> None:
        if self.run_dir is None:
            return
        due = self._progress.step == 0 and (self._progress.epoch - 1) % self.config.checkpoint_every == 0
        waited = time.monotonic() - self._saved_at >= self.config.checkpoint_seconds
        if not final and not (due and waited):
            return
        self._progress.peak_memory_mib = self._peak()
        states, random_tensors = random_state()
        groups = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(optimizer),
            "random": random_tensors,
            "task": task_state(self.task),
        }
        tensors = {f"{group}/{key}": value for group, entries in groups.items() for key, value in entries.items()}
        progress = asdict(self._progress) | {"random": states}
        self._saves += 1
        checkpoint = Checkpoint(progress, tensors, self._progress.best_epoch, self._best)
        save_checkpoint(self.run_dir / "checkpoint", checkpoint, number=self._saves)
        self._saved_at = time.monotonic()

    def _restore(self, optimizer: torch.optim.Optimizer) -> None:
        assert self.run_dir is not None
        folder = self.run_dir / "checkpoint"
        found = load_checkpoint(folder)
        if found is None:
            return
        checkpoint, self._saves = found
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "random": {}, "task": {}}
        for key, value in checkpoint.tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = value
        states = checkpoint.progress.pop("random")
        self._progress = LoopState(**checkpoint.progress)
        self._best = checkpoint.best
        load_weights(self.model, groups["model"], folder=folder)
        restore_optimizer(optimizer, groups["optimizer"])
        restore_task(self.task, groups["task"], folder=folder)
        restore_random_state(states, groups["random"])

    def _peak(self) -> float:
        return max(self._progress.peak_memory_mib, peak_memory_mib(self.device))

    def _result(self, plan: Plan) -> FitResult:
        progress = self._progress
        if self._best:
            self.model.load_state_dict(self._best)
        test: dict[str, float] = {}
        finished = self._finished()
        if finished and plan.has_test:
            test = plan.test(self.model)
            _check_finite(test.pop("loss", 0.0), "the test loss")
        items = plan.train.num_items * len(progress.history)
        return FitResult(
            epochs=self.history,
            best_epoch=progress.best_epoch,
            test=test,
            seconds=progress.seconds,
            peak_memory_mib=self._peak(),
            throughput=items / progress.seconds if progress.seconds else 0.0,
            status="done" if finished else "interrupted",
        )


def _better(value: float, best: float, direction: str) -> bool:
    return value > best if direction == "max" else value < best


def _check_finite(loss: float, what: str) -> None:
    if not math.isfinite(loss):
        raise ConfigError(f"Trainer.fit: {what} is {loss}; lower train.learning_rate or set train.gradient_clip")


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
