from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, DataError, SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.training import Callback, EpochRecord, FitResult, NodeClassificationTask, TrainConfig, Trainer
from hgmm.training.checkpoint import load_checkpoint
from hgmm.training.schedule import Schedule
from hgmm.training.trainer import seed_everything
from hgmm.typing import NodeOutput
from tests.training.tiny import TinyClassifier

FULL = TrainConfig(epochs=8, learning_rate=0.05, device="cpu", checkpoint_seconds=0.0, scheduler="one-cycle")
SAMPLED = dataclasses.replace(FULL, epochs=3, batch_size=8, fanouts=(2,))
CONFIGS = {"full": FULL, "sampled": SAMPLED}


def make(graph: MultimodalGraph, config: TrainConfig, **arguments: Any) -> Trainer:
    seed_everything(config.seed)
    return Trainer(TinyClassifier(graph.schema), NodeClassificationTask(), config, **arguments)


def without_times(result: FitResult) -> dict[str, Any]:
    data = dataclasses.asdict(result)
    for name in ("seconds", "peak_memory_mib", "throughput"):
        del data[name]
    for epoch in data["epochs"]:
        del epoch["seconds"]
    return data


def equal_weights(left: nn.Module, right: nn.Module) -> bool:
    there = right.state_dict()
    return all(torch.equal(value, there[name]) for name, value in left.state_dict().items())


@pytest.mark.parametrize("name", CONFIGS)
def test_it_learns(graph: MultimodalGraph, name: str) -> None:
    trainer = make(graph, dataclasses.replace(CONFIGS[name], epochs=30))
    result = trainer.fit(graph)
    assert result.status == "done"
    assert len(result.epochs) == 30
    assert result.epochs[-1].loss < 0.6 * result.epochs[0].loss
    assert result.test["micro_f1"] > 0.5
    assert set(result.test) == {"accuracy", "micro_f1", "macro_f1"}
    assert set(result.epochs[0].val) == {"accuracy", "micro_f1", "macro_f1", "loss"}
    assert result.throughput == pytest.approx(30 * 30 / result.seconds)
    assert result.peak_memory_mib > 1
    assert result.epochs[0].terms["cross_entropy"] == pytest.approx(result.epochs[0].loss)


@pytest.mark.parametrize(("name", "steps"), [("full", 1), ("sampled", 4)])
def test_the_schedule_moves_with_every_step(graph: MultimodalGraph, name: str, steps: int) -> None:
    config = dataclasses.replace(CONFIGS[name], scheduler="one-cycle")
    schedule = Schedule("one-cycle", config.learning_rate, config.epochs * steps, config.scheduler_warmup)
    rates = [record.learning_rate for record in make(graph, config).fit(graph).epochs]
    assert rates == [schedule.learning_rate(epoch * steps - 1) for epoch in range(1, config.epochs + 1)]


class OwnText(nn.Module):
    """A linear classifier of the nodes' own text."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, graph: Any, nodes: Tensor | None = None) -> NodeOutput:
        text = (graph if nodes is not None else graph[0]).dstnodes["item"].data["text"]
        return NodeOutput(self.linear(text if nodes is None else text[nodes]))


def test_the_loss_of_an_epoch_is_a_mean_over_nodes_however_they_are_batched(graph: MultimodalGraph) -> None:
    model, still = OwnText(), dataclasses.replace(SAMPLED, epochs=1, learning_rate=1e-12)
    losses = [
        Trainer(model, NodeClassificationTask(), dataclasses.replace(still, batch_size=size)).fit(graph).epochs[0]
        for size in (0, 8, 30)
    ]
    assert [record.loss for record in losses] == pytest.approx([losses[0].loss] * 3, rel=1e-5)
    assert [record.val["loss"] for record in losses] == pytest.approx([losses[0].val["loss"]] * 3, rel=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_same_seed_same_result_and_another_seed_another(graph: MultimodalGraph, name: str) -> None:
    # Two threads on a busy machine wait for each other at every step, so the steps are few.
    config = dataclasses.replace(CONFIGS[name], num_threads=2, epochs=2)
    first, second, other = (make(graph, dataclasses.replace(config, seed=seed)) for seed in (0, 0, 1))
    results = [without_times(trainer.fit(graph)) for trainer in (first, second, other)]
    assert results[0] == results[1]
    assert equal_weights(first.model, second.model)
    assert results[0] != results[2]
    assert not equal_weights(first.model, other.model)


class StopAt(Callback):
    """Ask for a stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
        self.trainer = trainer

    def on_step(self, step: int, num_steps: int) -> None:
        self.left -= 1
        if not self.left:
            self.trainer.request_stop()


@pytest.mark.parametrize(("name", "steps"), [("full", 1), ("full", 4), ("sampled", 1), ("sampled", 4), ("sampled", 6)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    graph: MultimodalGraph, tmp_path: Path, name: str, steps: int
) -> None:
    whole = make(graph, CONFIGS[name])
    expected = without_times(whole.fit(graph))
    first = make(graph, CONFIGS[name], run_dir=tmp_path, callbacks=[StopAt(steps)])
    stopped = first.fit(graph)
    assert stopped.status == "interrupted"
    assert stopped.test == {}
    assert len(stopped.epochs) == (steps - 1 if name == "full" else (steps - 1) // 4)
    seed_everything(99)
    second = Trainer(TinyClassifier(graph.schema), NodeClassificationTask(), CONFIGS[name], run_dir=tmp_path)
    assert without_times(second.fit(graph, resume=True)) == expected
    assert equal_weights(second.model, whole.model)


@pytest.mark.parametrize("every", [1, 3])
def test_resuming_repeats_what_came_after_the_checkpoint(graph: MultimodalGraph, tmp_path: Path, every: int) -> None:
    config = dataclasses.replace(FULL, checkpoint_every=every)

    class Break(Callback):
        def on_epoch_end(self, record: EpochRecord) -> None:
            if record.epoch == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(graph, config, run_dir=tmp_path, callbacks=[Break()]).fit(graph)
    again = make(graph, config, run_dir=tmp_path)
    resumed_after: list[int] = []

    class Note(Callback):
        def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
            resumed_after.append(len(trainer.history))

    again.callbacks = (Note(),)
    assert without_times(again.fit(graph, resume=True)) == without_times(make(graph, config).fit(graph))
    assert resumed_after == [5 if every == 1 else 3]


def test_a_finished_run_resumes_to_the_same(graph: MultimodalGraph, tmp_path: Path) -> None:
    first = make(graph, FULL, run_dir=tmp_path).fit(graph)
    assert without_times(make(graph, FULL, run_dir=tmp_path).fit(graph, resume=True)) == without_times(first)


def test_checkpoints_are_not_more_frequent_than_asked(
    graph: MultimodalGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr("hgmm.training.trainer.save_checkpoint", lambda *_, number: numbers.append(number))
    make(graph, dataclasses.replace(FULL, checkpoint_seconds=3600.0), run_dir=tmp_path).fit(graph)
    assert numbers == [1]
    make(graph, dataclasses.replace(FULL, checkpoint_every=4), run_dir=tmp_path).fit(graph)
    assert numbers == [1, 1, 2]


class Scripted(nn.Module):
    """Predicts right for as many validation nodes as a script says; its weight counts the training steps."""

    def __init__(self, graph: MultimodalGraph, hits: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.hits = hits
        self.graph = graph

    def forward(self, graph: Any, nodes: Tensor) -> NodeOutput:
        label = self.graph.labels[nodes]
        if self.training:
            self.steps += 1
        chosen = label.clone()
        chosen[self.hits[int(self.steps) - 1] :] = (label[self.hits[int(self.steps) - 1] :] + 1) % 3
        return NodeOutput(nn.functional.one_hot(chosen, 3).float() + self.weight)


def scripted(graph: MultimodalGraph, hits: list[int], task: NodeClassificationTask, **config: Any) -> FitResult:
    trainer = Trainer(Scripted(graph, hits), task, TrainConfig(epochs=len(hits), device="cpu", **config))
    result = trainer.fit(graph)
    assert int(trainer.model.get_buffer("steps")) == result.best_epoch == trainer.best_epoch
    return result


def test_the_best_epoch_is_kept_and_a_later_one_wins_a_tie(graph: MultimodalGraph) -> None:
    result = scripted(graph, [3, 9, 5, 9, 2], NodeClassificationTask(monitor="accuracy"))
    assert result.best_epoch == 4
    assert result.test["accuracy"] == pytest.approx(9 / 30)


def test_a_loss_is_best_where_it_is_lowest(graph: MultimodalGraph) -> None:
    assert scripted(graph, [3, 9, 5, 8, 2], NodeClassificationTask(monitor="loss")).best_epoch == 2


def test_patience_counts_epochs_without_a_strictly_better_value(graph: MultimodalGraph) -> None:
    result = scripted(graph, [3, 9, 9, 9, 20, 20], NodeClassificationTask(monitor="accuracy"), patience=2)
    assert len(result.epochs) == 4
    assert result.status == "done"
    assert result.best_epoch == 4


def test_no_patience_never_stops(graph: MultimodalGraph) -> None:
    assert len(scripted(graph, [9, 1, 1, 1, 1], NodeClassificationTask(), patience=0).epochs) == 5


def test_patience_may_watch_another_figure(graph: MultimodalGraph) -> None:
    task = NodeClassificationTask(monitor="accuracy", patience_monitor="loss")
    result = scripted(graph, [9, 8, 8, 8, 8, 8], task, patience=3)
    assert (len(result.epochs), result.best_epoch) == (4, 1)


def test_evaluation_may_be_rarer(graph: MultimodalGraph) -> None:
    result = scripted(graph, [9, 8, 7, 6, 5], NodeClassificationTask(), eval_every=2)
    assert [bool(record.val) for record in result.epochs] == [False, True, False, True, True]
    assert result.best_epoch == 2


def test_the_wait_ends_only_where_there_was_a_validation(graph: MultimodalGraph) -> None:
    result = scripted(graph, [1, 5, 1, 9, 1, 9, 1, 9, 1, 9], NodeClassificationTask(), patience=1, eval_every=2)
    assert (len(result.epochs), result.best_epoch) == (6, 6)


def test_without_validation_nodes_the_last_weights_are_kept(graph: MultimodalGraph) -> None:
    graph.g.nodes["item"].data["val_mask"] = torch.zeros(90, dtype=torch.bool)
    result = scripted(graph, [9, 8, 7], NodeClassificationTask(), patience=1)
    assert result.best_epoch == 3
    assert result.epochs[0].val == {}


def test_without_test_nodes_there_is_no_test(graph: MultimodalGraph) -> None:
    graph.g.nodes["item"].data["test_mask"] = torch.zeros(90, dtype=torch.bool)
    assert make(graph, FULL).fit(graph).test == {}


def test_the_gradient_is_clipped(graph: MultimodalGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = nn.utils.clip_grad_norm_
    norms: list[float] = []

    def spy(parameters: Any, limit: float) -> Tensor:
        listed = list(parameters)
        before: Tensor = clip(listed, limit)
        norms.append(float(torch.stack([entry.grad.norm() for entry in listed if entry.grad is not None]).norm()))
        return before

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spy)
    make(graph, dataclasses.replace(FULL, gradient_clip=1e-3)).fit(graph)
    assert len(norms) == 8
    assert all(norm == pytest.approx(1e-3, rel=1e-2) for norm in norms)


def test_callbacks_are_told_everything_in_order(graph: MultimodalGraph) -> None:
    heard: list[Any] = []

    class Listener(Callback):
        def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
            heard.append(("start", trainer.config.epochs, graph.name))

        def on_step(self, step: int, num_steps: int) -> None:
            heard.append((step, num_steps))

        def on_epoch_end(self, record: EpochRecord) -> None:
            heard.append(record.epoch)

        def on_fit_end(self, result: FitResult) -> None:
            heard.append(result.status)

    make(graph, dataclasses.replace(SAMPLED, epochs=2, batch_size=16), callbacks=[Listener()]).fit(graph)
    assert heard == [("start", 2, "tiny"), (1, 2), (2, 2), 1, (1, 2), (2, 2), 2, "done"]


class TaskWithState(NodeClassificationTask):
    """Counts epochs in a tensor, as a task that weighs its terms by their history would."""

    def __init__(self) -> None:
        super().__init__()
        self.count = torch.zeros(())
        self.heard: list[str] = []

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.count = state["count"]

    def on_epoch_start(self, epoch: int) -> None:
        self.heard.append(f"start {epoch}")

    def on_epoch_end(self, epoch: int) -> None:
        self.count = self.count + 1
        self.heard.append(f"end {epoch}")


def test_the_state_of_a_task_travels(graph: MultimodalGraph, tmp_path: Path) -> None:
    def fit(task: TaskWithState, *callbacks: Callback, resume: bool = False) -> None:
        seed_everything(0)
        model = TinyClassifier(graph.schema)
        Trainer(model, task, FULL, run_dir=tmp_path, callbacks=callbacks).fit(graph, resume=resume)

    first, second = TaskWithState(), TaskWithState()
    fit(first, StopAt(3))
    assert first.heard == ["start 1", "end 1", "start 2", "end 2", "start 3"]
    fit(second, resume=True)
    assert float(second.count) == 8.0
    assert second.heard[:2] == ["end 3", "start 4"]


def test_threads_are_as_asked_and_then_as_before(graph: MultimodalGraph) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    class Look(Callback):
        def on_epoch_end(self, record: EpochRecord) -> None:
            seen.append(torch.get_num_threads())

    make(graph, dataclasses.replace(FULL, epochs=1, num_threads=before + 1), callbacks=[Look()]).fit(graph)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_old_weights_do_not_get_into_a_new_run(graph: MultimodalGraph, tmp_path: Path) -> None:
    first = make(graph, dataclasses.replace(FULL, epochs=1, seed=1), run_dir=tmp_path)
    first.fit(graph)
    with pytest.raises(ConfigError, match=r"has a checkpoint, got False; resume it or choose another run_dir"):
        make(graph, FULL, run_dir=tmp_path).fit(graph)
    (tmp_path / "checkpoint" / "state.json").unlink()
    second = make(graph, dataclasses.replace(FULL, epochs=1), run_dir=tmp_path)
    assert second.fit(graph, resume=True).best_epoch == first.best_epoch
    found = load_checkpoint(tmp_path / "checkpoint")
    assert found is not None
    assert all(torch.equal(value, found[0].best[name]) for name, value in second.model.state_dict().items())


class Diverging(Callback):
    """Spoils the weights after a step, as the last update of an epoch may."""

    def __init__(self, step: int) -> None:
        self.left = step

    def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
        self.model = trainer.model

    def on_step(self, step: int, num_steps: int) -> None:
        self.left -= 1
        if not self.left:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.fill_(float("nan"))


def test_weights_that_are_no_numbers_are_never_the_best(graph: MultimodalGraph, tmp_path: Path) -> None:
    trainer = make(graph, FULL, run_dir=tmp_path, callbacks=[Diverging(3)])
    with pytest.raises(ConfigError, match=r"the validation loss of epoch 3 is nan; lower train.learning_rate"):
        trainer.fit(graph)
    assert len(trainer.history) == 2
    found = load_checkpoint(tmp_path / "checkpoint")
    assert found is not None
    assert found[0].best_epoch in (1, 2)
    assert all(value.isfinite().all() for value in found[0].best.values())


def diverge_unseen(graph: MultimodalGraph, tmp_path: Path) -> None:
    graph.g.nodes["item"].data["val_mask"] = torch.zeros(90, dtype=torch.bool)
    make(graph, FULL, callbacks=[Diverging(8)]).fit(graph)


class Misspelt(NodeClassificationTask):
    def __init__(self) -> None:
        super().__init__()
        self.monitor = ("micro_f", "max")


def no_such_figure(graph: MultimodalGraph, tmp_path: Path) -> None:
    Trainer(TinyClassifier(graph.schema), Misspelt(), FULL).fit(graph)


def other_model(graph: MultimodalGraph, tmp_path: Path) -> None:
    make(graph, FULL, run_dir=tmp_path).fit(graph)
    Trainer(OwnText(), NodeClassificationTask(), FULL, run_dir=tmp_path).fit(graph, resume=True)


def no_train(graph: MultimodalGraph, tmp_path: Path) -> None:
    graph.g.nodes["item"].data["train_mask"] = torch.zeros(90, dtype=torch.bool)
    make(graph, FULL).fit(graph)


def diverge(graph: MultimodalGraph, tmp_path: Path) -> None:
    trainer = make(graph, FULL)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("inf"))
    trainer.fit(graph)


@pytest.mark.parametrize(
    ("act", "error", "match"),
    [
        (no_train, SchemaError, r"graph: 'tiny' has no training node; give it a split"),
        (diverge, ConfigError, r"the loss of epoch 1 is nan; lower train.learning_rate"),
        (diverge_unseen, ConfigError, r"the test loss is nan; lower train.learning_rate"),
        (other_model, DataError, r"checkpoint: its weights do not fit OwnText \(.*; use the hgmm that wrote them"),
        (no_such_figure, ConfigError, r"task: it monitors an unknown figure 'micro_f'; known: accuracy, loss"),
        (lambda graph, _: make(graph, FULL).fit(graph, resume=True), ConfigError, r"resume: .*run_dir, got None"),
        (
            lambda graph, _: make(graph, dataclasses.replace(FULL, device="cuda:99")),
            ConfigError,
            r"train.device: 'cuda:99' is asked for and torch sees \d GPUs",
        ),
    ],
)
def test_errors(
    graph: MultimodalGraph,
    tmp_path: Path,
    act: Callable[[MultimodalGraph, Path], object],
    error: type[Exception],
    match: str,
) -> None:
    with pytest.raises(error, match=match):
        act(graph, tmp_path)
