from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from hgmm.training.interrupts import Interrupted, stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_once_and_then_all_is_as_before(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    asked: list[bool] = []
    with stop_signals(lambda: asked.append(True)) as state:
        assert state.caught is None
        os.kill(os.getpid(), number)
        assert state.caught == number
        assert asked == [True]
        assert {one: signal.getsignal(one) for one in before} == before
    assert {one: signal.getsignal(one) for one in before} == before


def test_the_second_sigint_acts_at_once() -> None:
    def interrupt_twice() -> None:
        with stop_signals(lambda: None):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    # A shell starts background processes with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt_twice()
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_changed() -> None:
    seen: list[object] = []

    def work() -> None:
        with stop_signals(lambda: None) as state:
            seen.extend([state.caught, signal.getsignal(signal.SIGTERM)])

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, before]


def test_the_message_says_how_to_go_on() -> None:
    error = Interrupted(signal.SIGTERM, Path("runs/x"))
    assert (error.signal, error.run_dir) == (signal.SIGTERM, Path("runs/x"))
    assert str(error).startswith("the run in runs/x was stopped by SIGTERM and its state is saved; go on with")
