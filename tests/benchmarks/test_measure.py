from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import torch
from torch import Tensor

from benchmarks._measure import (
    MODES,
    Row,
    Times,
    check_device,
    environment,
    interleaved,
    median_seconds,
    peak_in_fresh_process,
    peak_of,
    summarise,
    write_rows,
)


def row(**changes: object) -> Row:
    values = {
        "op": "op",
        "provider": "p",
        "mode": "both",
        "dtype": "float32",
        "sizes": {"edges": 3},
        "median_ms": 1.0,
        "p20_ms": 0.5,
        "p80_ms": 2.0,
        "peak_mib": None,
        "warmup": 1,
        "rounds": 2,
        **environment(),
    }
    return Row(**{**values, **changes})  # type: ignore[arg-type]


def test_summarise() -> None:
    timing = summarise([0.001 * step for step in range(11)])
    assert tuple(timing) == pytest.approx((5.0, 2.0, 8.0))


def test_times_of_each_mode() -> None:
    times = Times((1.0, 2.0), (10.0, 20.0))
    assert [times.of(mode) for mode in MODES] == [(1.0, 2.0), (10.0, 20.0), (11.0, 22.0)]


def test_interleaved_rotates_the_order_and_drops_the_warmup() -> None:
    calls: list[str] = []
    weight = torch.ones(1, requires_grad=True)

    def step(name: str) -> Tensor:
        calls.append(name)
        return weight.sum()

    times = interleaved({"a": lambda: step("a"), "b": lambda: step("b")}, rounds=3, warmup=1)
    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert {name: (len(t.forward_s), len(t.backward_s)) for name, t in times.items()} == {"a": (3, 3), "b": (3, 3)}
    assert weight.grad == 8


def test_peak_sees_what_the_step_holds() -> None:
    weight = torch.ones(1, requires_grad=True)
    mib = 64

    def step() -> Tensor:
        return (weight * torch.ones(mib * 2**18)).sum()

    assert mib <= peak_of(step) < 10 * mib


def test_a_gpu_has_nothing_left_to_do_when_the_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    weight = torch.ones(1, requires_grad=True)

    def clock() -> float:
        events.append("clock")
        return 0.0

    def step() -> Tensor:
        events.append("step")
        return weight.sum()

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append(f"wait {device}"))
    monkeypatch.setattr("benchmarks._measure.time.perf_counter", clock)
    interleaved({"a": step}, rounds=1, warmup=0, device="cuda")
    assert events == ["wait cuda", "clock", "step", "wait cuda", "clock", "wait cuda", "clock"]
    events.clear()
    median_seconds(step, rounds=1, warmup=1, device="cuda")
    assert events == ["wait cuda", "clock", "step", "wait cuda"] + ["wait cuda", "clock", "step", "wait cuda", "clock"]


def test_peak_on_a_gpu_is_that_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(1, requires_grad=True)
    called: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", called.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10 * 2**20)
    assert peak_of(lambda: weight.sum(), "cuda") == 7.0
    assert called == ["cuda"]


def test_median_is_of_the_measured_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # A round of warm-up reads the clock once, the others twice.
    ticks = iter([0.0, 10.0, 11.0, 20.0, 25.0, 30.0, 32.0])
    monkeypatch.setattr("benchmarks._measure.time.perf_counter", lambda: next(ticks))
    assert median_seconds(lambda: None, rounds=3, warmup=1) == 2.0


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "meta", "gpu"])
def test_device_that_is_not_here(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_device("cpu")
    with pytest.raises(click.BadParameter, match=f"no CUDA device here, got '{device}'"):
        check_device(device)


def test_failing_process_is_shown() -> None:
    with pytest.raises(click.ClickException, match=r"memory of p failed with exit status 1:\n.*hgmm_not_there"):
        peak_in_fresh_process("hgmm_not_there", [], "p")


def test_environment_names_versions_and_commit() -> None:
    place = environment()
    assert place["versions"]["torch"] == torch.__version__
    assert place["threads"] == torch.get_num_threads()
    assert place["utc"].endswith("+00:00")
    assert (place["commit"] is None) == (place["dirty"] is None)


def test_rows_are_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row(), row(provider="q", peak_mib=7.5, extra={"edges_per_s": 2.0}).flat()])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["provider"] for line in lines] == ["p", "q"]
    assert [line["peak_mib"] for line in lines] == [None, 7.5]
    assert [line["edges"] for line in lines] == [3, 3]
    assert lines[1]["edges_per_s"] == 2.0
    assert not {"sizes", "extra"} & set(lines[0])
    assert list(tmp_path.iterdir()) == [path]
