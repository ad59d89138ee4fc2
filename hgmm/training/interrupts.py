"""SIGINT and SIGTERM ask a run to stop, training after its current step; a second signal acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hgmm.errors import HgmmError

__all__ = ["Interrupted", "StopSignals", "interruptible", "stop_signals"]


class Interrupted(HgmmError):  # noqa: N818 - a stop on request is no error
    """A run was stopped by a signal, after it had saved its state.

    Parameters
    ----------
    signal_number : int
        SIGINT or SIGTERM; a command exits with 128 plus this number.
    run_dir : Path
        The run folder, from which the run can be resumed.
    """

    def __init__(self, signal_number: int, run_dir: Path) -> None:
        self.signal = signal.Signals(signal_number)
        self.run_dir = Path(run_dir)
        super().__init__(
            f"the run in {self.run_dir} was stopped by {self.signal.name} and its state is saved; "
            "go on with train_run(run_dir=..., resume=True) or `hgmm train --run-dir ... --resume`"
        )


class StopSignals:
    """Remembers the first signal that came.

    Attributes
    ----------
    caught : int or None
        Its number.
    """

    def __init__(self) -> None:
        self.caught: int | None = None


@contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[StopSignals]:
    """Call `stop` when SIGINT or SIGTERM comes; afterwards, and from the second signal on, all is as before.

    Outside the main thread Python allows no signal handlers, and nothing is changed.
    """
    state = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        state.caught = number
        restore()
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, handle)
    try:
        yield state
    finally:
        restore()


@contextmanager
def interruptible(run_dir: Path) -> Iterator[None]:
    """Raise `Interrupted` at once when SIGINT or SIGTERM comes: for work between the steps, which a resumed run redoes.

    Parameters
    ----------
    run_dir : Path
        The run folder.

    Raises
    ------
    Interrupted
        If a signal came. On its way it is a KeyboardInterrupt, which no handler of errors takes for an error.
    """

    def stop() -> NoReturn:
        raise KeyboardInterrupt

    with stop_signals(stop) as signals:
        try:
            yield
        except KeyboardInterrupt as error:
            if signals.caught is None:
                raise
            raise Interrupted(signals.caught, run_dir) from error
