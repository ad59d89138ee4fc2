"""What one sees while a run trains: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.text import Text

from hgmm.cli.console import can_redraw, format_score

if TYPE_CHECKING:
    from hgmm.graph import MultimodalGraph
    from hgmm.training import Trainer
    from hgmm.training.progress import EpochRecord, FitResult

__all__ = ["LiveView", "PlainLines", "make_view", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
# Of a line without a terminal: its width, and the least time between two.
_LINE_WIDTH = 100
_SECONDS_IF_BETTER = 5.0
_SECONDS = 30.0


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Draw a curve with one block character a column.

    Parameters
    ----------
    values : sequence of float
        The curve; each column shows the mean of its share. Values that are not finite are left blank.
    width : int, optional
        Most columns to use.

    Examples
    --------
    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    columns = min(width, len(values))
    edges = [len(values) * number // columns for number in range(columns + 1)] if columns else [0]
    means = [math.fsum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return " " * columns
    low, span = min(finite), max(finite) - min(finite)
    top = len(_BARS) - 1
    return "".join(
        (_BARS[round((mean - low) / span * top)] if span else _BARS[0]) if math.isfinite(mean) else " "
        for mean in means
    )


class _View:
    """What both views know: the title of the current run, its validation curve and its best epoch.

    Parameters
    ----------
    console : Console
        Where to write.
    title : str
        What is trained, without the seed.
    runs : int, optional
        How many runs will follow each other.
    """

    def __init__(self, console: Console, *, title: str, runs: int = 1) -> None:
        self._console = console
        self._what = title
        self._runs = runs
        self._run = 0
        self._begin("", epochs=1, monitor="", mode="max")

    def _begin(self, title: str, *, epochs: int, monitor: str, mode: str) -> None:
        self._title = title
        self._epochs = epochs
        self._monitor = monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._curve: list[float] = []
        self._best: tuple[int, float] | None = None

    def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
        """Take over what the run is; a resumed run brings the epochs that it has behind it."""
        self._run += 1
        title = f"{self._what} · seed {trainer.config.seed}"
        if self._runs > 1:
            title += f" (run {self._run} of {self._runs})"
        if trainer.history:
            title += f", resumed after epoch {trainer.history[-1].epoch}"
        if graph.source.source == "synthetic":
            title += " · SYNTHETIC data"
        monitor, mode = trainer.task.monitor
        self._begin(title, epochs=trainer.config.epochs, monitor=monitor, mode=mode)
        for record in trainer.history:
            self._add(record)

    def _add(self, record: EpochRecord) -> None:
        value = record.val.get(self._monitor)
        if value is None:
            return
        self._curve.append(value)
        # A later epoch wins a tie, as in the training loop.
        if self._best is None or self._sign * value >= self._sign * self._best[1]:
            self._best = (record.epoch, value)

    def _describe_best(self) -> str:
        return "" if self._best is None else f"best {format_score(self._best[1])} at epoch {self._best[0]}"


class LiveView(_View):
    """Progress bar, time left, losses, the validation curve and the best epoch, redrawn in place on a terminal.

    Parameters
    ----------
    console, title, runs
        As in `make_view`.
    """

    def __init__(self, console: Console, *, title: str, runs: int = 1) -> None:
        super().__init__(console, title=title, runs=runs)
        self._record: EpochRecord | None = None
        self._live: Live | Status | None = None

    def wait(self, what: str) -> None:
        """Say what is being waited for, until the first epoch or an error."""
        self._live = self._console.status(f"{what} …")
        self._live.start()

    def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
        """Start to draw."""
        super().on_fit_start(trainer, graph)
        self.close()
        self._record = trainer.history[-1] if trainer.history else None
        self._progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=_WIDTH),
            TimeElapsedColumn(),
            TextColumn("at most"),
            TimeRemainingColumn(),
            TextColumn("left {task.fields[step]}"),
            console=self._console,
        )
        self._task = self._progress.add_task("train", total=self._epochs, completed=len(trainer.history), step="")
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=8, transient=True)
        self._live.start()

    def on_step(self, step: int, num_steps: int) -> None:
        """Show the place inside an epoch."""
        self._progress.update(self._task, step=f"(step {step}/{num_steps})" if num_steps > 1 else "")

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Draw an epoch."""
        self._add(record)
        self._record = record
        self._progress.update(self._task, completed=record.epoch, step="")

    def on_fit_end(self, result: FitResult) -> None:
        """Take the view off the screen; the final table follows."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, also after an error; harmless if it was given back before."""
        if self._live is not None:
            self._live.stop()

    def _render(self) -> Group:
        lines: list[Any] = [Text(self._title, style="bold"), self._progress]
        if self._record is not None:
            lines.append(Text(_losses(self._record)))
        if self._curve:
            curve = Text(f"validation {self._monitor} {format_score(self._curve[-1])}  ")
            curve.append(sparkline(self._curve), style="cyan")
            lines.append(curve.append(f"  {self._describe_best()}"))
        if self._record is not None:
            lines += [Text(line) for line in _figures(self._record)]
        return Group(*lines)


class PlainLines(_View):
    """A line now and then, for logs and pipes: the first epoch, the last, and between them what is news.

    Parameters
    ----------
    console, title, runs
        As in `make_view`.
    """

    def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
        """Say what is trained."""
        super().on_fit_start(trainer, graph)
        self._unsaid: EpochRecord | None = None
        self._said_at = -math.inf
        self._console.print(self._title, soft_wrap=True)

    def wait(self, what: str) -> None:
        """Say nothing: what a log waits for it cannot take back."""

    def on_step(self, step: int, num_steps: int) -> None:
        """Say nothing: a step is too small for a line."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Write a line if it is time for one: sooner for a better epoch, later as a sign of life."""
        self._add(record)
        self._unsaid = record
        improved = self._best is not None and self._best[0] == record.epoch
        waited = time.monotonic() - self._said_at
        if waited >= (_SECONDS_IF_BETTER if improved else _SECONDS) or record.epoch == self._epochs:
            self._say(record)

    def on_fit_end(self, result: FitResult) -> None:
        """Write the line of the last epoch, if patience or a signal has ended the run there."""
        if self._unsaid is not None:
            self._say(self._unsaid)

    def close(self) -> None:
        """Do nothing: there is no screen to give back."""

    def _say(self, record: EpochRecord) -> None:
        words = [f"epoch {record.epoch}/{self._epochs}", f"loss {record.loss:.4f}"]
        if self._curve:
            words += [f"{self._monitor} {format_score(self._curve[-1])}", f"({self._describe_best()})"]
        words.append(f"{record.seconds:.2f} s")
        terms = record.terms if len(record.terms) > 1 else {}
        # The rest is in the run's record; a log shows as much of it as fits.
        for word in (*(f"{name} {value:.4f}" for name, value in terms.items()), *_figures(record)):
            if len("  ".join([*words, word])) <= _LINE_WIDTH:
                words.append(word)
        self._console.print("  ".join(words), soft_wrap=True)
        self._unsaid, self._said_at = None, time.monotonic()


def make_view(console: Console, *, title: str, runs: int = 1) -> LiveView | PlainLines:
    """Return the live view on a terminal, plain lines without one.

    Parameters
    ----------
    console : Console
        Where to write.
    title : str
        What is trained, without the seed.
    runs : int, optional
        How many runs will follow each other.
    """
    view = LiveView if can_redraw(console) else PlainLines
    return view(console, title=title, runs=runs)


def _losses(record: EpochRecord) -> str:
    terms = "  ".join(f"{name} {value:.4f}" for name, value in record.terms.items())
    text = f"loss {record.loss:.4f}"
    if len(record.terms) > 1:
        text += f" ({terms})"
    return text


def _figures(record: EpochRecord) -> list[str]:
    """Return a line for each group of figures of an epoch, short enough to stand below the validation curve."""
    return [
        f"{group.replace('_', ' ')}: " + "  ".join(f"{name.replace('_', ' ')} {x:.2f}" for name, x in figures.items())
        for group, figures in record.figures.items()
    ]
