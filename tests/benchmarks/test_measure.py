from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks._measure import MODES, Row, Times, environment, interleaved, peak_of, summarise, write_rows


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


def test_environment_names_versions_and_commit() -> None:
    place = environment()
    assert place["versions"]["torch"] == torch.__version__
    assert place["threads"] == torch.get_num_threads()
    assert place["utc"].endswith("+00:00")
    assert (place["commit"] is None) == (place["dirty"] is None)


def test_rows_are_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row(), row(provider="q", peak_mib=7.5)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["provider"] for line in lines] == ["p", "q"]
    assert [line["peak_mib"] for line in lines] == [None, 7.5]
    assert lines[0]["sizes"] == {"edges": 3}
    assert list(tmp_path.iterdir()) == [path]
