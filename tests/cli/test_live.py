from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hgmm.cli.live import LiveView, PlainLines, make_view, sparkline
from hgmm.graph import DataSource
from hgmm.training.progress import EpochRecord, FitResult

GRAPH: Any = SimpleNamespace(source=DataSource("local"))
RESULT = FitResult([], 1, {}, 0.0, 0.0, 0.0, "done")


def trainer(epochs: int, *, mode: str = "max", history: tuple[EpochRecord, ...] = (), seed: int = 0) -> Any:
    config = SimpleNamespace(epochs=epochs, seed=seed)
    return SimpleNamespace(history=list(history), config=config, task=SimpleNamespace(monitor=("micro_f1", mode)))


def record(epoch: int, value: float | None, loss: float = 0.5) -> EpochRecord:
    val = {} if value is None else {"micro_f1": value}
    return EpochRecord(epoch, loss, val, 0.25, 1e-3, {"cross_entropy": loss, "missing_attention": 0.125})


def plain(started: Any, *, runs: int = 1) -> tuple[PlainLines, io.StringIO]:
    out = io.StringIO()
    view = PlainLines(Console(file=out, width=200, markup=False), title="emoji", runs=runs)
    view.on_fit_start(started, GRAPH)
    return view, out


def live(started: Any) -> tuple[LiveView, io.StringIO]:
    out = io.StringIO()
    view = LiveView(Console(file=out, width=120, force_terminal=True, color_system=None), title="emoji")
    view.on_fit_start(started, GRAPH)
    return view, out


def test_sparkline_scales_to_its_extremes() -> None:
    assert sparkline([0.0, 1.0, 0.5]) == "▁█▅"


def test_sparkline_of_a_constant_is_flat() -> None:
    assert sparkline([0.3, 0.3]) == "▁▁"


def test_sparkline_averages_what_does_not_fit() -> None:
    assert sparkline([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], width=3) == "▁▅█"


def test_sparkline_leaves_out_what_is_not_finite() -> None:
    assert sparkline([0.0, float("nan"), 1.0]) == "▁ █"
    assert sparkline([float("inf")]) == " "


def test_sparkline_of_nothing_is_empty() -> None:
    assert sparkline([]) == ""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hgmm.cli.live.time", clock)
    return clock


def test_plain_lines_show_the_first_epoch_the_last_and_at_times_a_better_one(clock: Clock) -> None:
    view, out = plain(trainer(epochs=40))
    for epoch in range(1, 41):
        clock.now += 2.0
        view.on_step(1, 1)
        # Better up to epoch 12, and never again.
        view.on_epoch_end(record(epoch, min(epoch, 12) / 100 - epoch / 10_000))
    view.on_fit_end(RESULT)
    view.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "emoji · seed 0"
    assert [line.split()[1] for line in lines[1:]] == [f"{n}/40" for n in (1, 4, 7, 10, 25, 40)]
    assert lines[-1] == (
        "epoch 40/40  loss 0.5000  micro_f1 0.1160  (best 0.1188 at epoch 12)  0.25 s  cross_entropy 0.5000"
    )


def test_plain_lines_of_a_fast_run_are_the_first_and_the_last(clock: Clock) -> None:
    view, out = plain(trainer(epochs=40))
    for epoch in range(1, 41):
        view.on_epoch_end(record(epoch, epoch / 100))
    view.on_fit_end(RESULT)
    assert [line.split()[1] for line in out.getvalue().splitlines()[1:]] == ["1/40", "40/40"]


def test_plain_lines_show_where_patience_has_ended_a_run(clock: Clock) -> None:
    view, out = plain(trainer(epochs=40))
    for epoch in range(1, 6):
        view.on_epoch_end(record(epoch, 0.5))
    view.on_fit_end(RESULT)
    view.on_fit_end(RESULT)
    assert [line.split()[1] for line in out.getvalue().splitlines()[1:]] == ["1/40", "5/40"]


def test_plain_lines_are_at_most_100_columns_wide() -> None:
    view, out = plain(trainer(epochs=100_000))
    long = {f"term_{n}": 0.5 for n in range(9)}
    view.on_epoch_end(dataclasses.replace(record(1, 0.5), terms=long, figures=FIGURES))
    (line,) = out.getvalue().splitlines()[1:]
    assert 80 < len(line) <= 100
    assert line.startswith("epoch 1/100000  loss 0.5000  micro_f1 0.5000  (best 0.5000 at epoch 1)  0.25 s  term_0 0.5")


def test_the_later_of_two_equal_epochs_is_best() -> None:
    view, out = plain(trainer(epochs=3))
    for epoch, value in ((1, 0.5), (2, 0.5), (3, 0.4)):
        view.on_epoch_end(record(epoch, value))
    assert "micro_f1 0.4000  (best 0.5000 at epoch 2)  0.25 s" in out.getvalue().splitlines()[-1]


def test_lower_is_better_for_a_loss() -> None:
    view, out = plain(trainer(epochs=2, mode="min"))
    for epoch, value in ((1, 0.5), (2, 0.9)):
        view.on_epoch_end(record(epoch, value))
    assert "(best 0.5000 at epoch 1)" in out.getvalue().splitlines()[-1]


def test_an_epoch_without_validation_shows_the_last_one() -> None:
    view, out = plain(trainer(epochs=2))
    view.on_epoch_end(record(1, None))
    view.on_epoch_end(record(2, 0.25))
    _, first, second = out.getvalue().splitlines()
    assert "micro_f1" not in first
    assert "micro_f1 0.2500" in second


def test_plain_lines_say_that_a_run_is_resumed() -> None:
    view, out = plain(trainer(epochs=9, history=(record(1, 0.75), record(2, 0.5))))
    view.on_epoch_end(record(9, 0.25))
    lines = out.getvalue().splitlines()
    assert lines[0] == "emoji · seed 0, resumed after epoch 2"
    assert "(best 0.7500 at epoch 1)" in lines[1]


def test_each_of_several_runs_starts_anew() -> None:
    view, out = plain(trainer(epochs=1), runs=2)
    view.on_epoch_end(record(1, 0.75))
    view.on_fit_start(trainer(epochs=1, seed=1), GRAPH)
    view.on_epoch_end(record(1, 0.25))
    lines = out.getvalue().splitlines()
    assert lines[0] == "emoji · seed 0 (run 1 of 2)"
    assert lines[2] == "emoji · seed 1 (run 2 of 2)"
    assert "(best 0.2500 at epoch 1)" in lines[3]


def test_the_title_says_that_data_is_synthetic() -> None:
    view, out = plain(trainer(epochs=1))
    view.on_fit_start(trainer(epochs=1), SimpleNamespace(source=DataSource("synthetic")))
    assert out.getvalue().splitlines() == ["emoji · seed 0", "emoji · seed 0 · SYNTHETIC data"]


def test_live_view_shows_progress_losses_and_curve() -> None:
    view, out = live(trainer(epochs=10, history=(record(1, 0.25),)))
    view.on_step(2, 7)
    view.on_epoch_end(record(2, 0.75, loss=0.125))
    view.on_step(3, 7)
    view.on_fit_end(RESULT)
    shown = out.getvalue()
    assert "emoji · seed 0, resumed after epoch 1" in shown
    assert "2/10" in shown
    assert "(step 3/7)" in shown
    assert "loss 0.1250 (cross_entropy 0.1250  missing_attention 0.1250)" in shown
    assert "validation micro_f1 0.7500  ▁█  best 0.7500 at epoch 2" in shown


def test_live_view_draws_run_after_run() -> None:
    view, out = live(trainer(epochs=1))
    view.on_epoch_end(record(1, 0.75))
    view.on_fit_start(trainer(epochs=1, seed=1), GRAPH)
    view.close()
    view.close()
    assert "emoji · seed 1" in out.getvalue()


@pytest.mark.parametrize(("terminal", "kind"), [(True, LiveView), (False, PlainLines)])
def test_make_view_looks_at_the_terminal(terminal: bool, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_view(Console(file=io.StringIO(), force_terminal=terminal), title="t")) is kind


def test_make_view_writes_lines_to_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_view(Console(file=io.StringIO(), force_terminal=True), title="t"), PlainLines)


FIGURES = {"transfer": {"gate": 0.25, "dominant_accuracy": 0.875}, "branch_accuracy": {"raw:text": 0.5}}


def test_figures_stand_on_a_line_of_their_own() -> None:
    view, out = live(trainer(epochs=10))
    view.on_epoch_end(dataclasses.replace(record(1, 0.5), figures=FIGURES))
    view.on_fit_end(RESULT)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert "transfer: gate 0.25  dominant accuracy 0.88" in lines
    assert "branch accuracy: raw:text 0.50" in lines


def test_plain_lines_have_the_figures_that_fit() -> None:
    view, out = plain(trainer(epochs=10))
    view.on_epoch_end(dataclasses.replace(record(1, 0.5), terms={"cross_entropy": 0.5}, figures={"gate": {"x": 0.5}}))
    assert "(best 0.5000 at epoch 1)  0.25 s  gate: x 0.50" in out.getvalue()


def test_waiting_is_shown_on_a_terminal_until_the_first_epoch() -> None:
    out = io.StringIO()
    view = LiveView(Console(file=out, width=120, force_terminal=True, color_system=None), title="emoji")
    view.wait("Reading emoji")
    view.on_fit_start(trainer(epochs=1), GRAPH)
    assert "Reading emoji …" in out.getvalue()
    view.on_epoch_end(record(1, 0.5))
    view.on_fit_end(RESULT)
    lines, out = plain(trainer(epochs=1))
    lines.wait("Reading emoji")
    assert "Reading" not in out.getvalue()
