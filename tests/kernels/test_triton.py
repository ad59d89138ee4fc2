"""Availability, shares of rows, launches and what the compiler makes of the kernels."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.kernels import OPERATORS, _triton, neighbor_mean
from hgmm.settings import using_backend
from tests.kernels.cases import Case, generator
from tests.kernels.on_triton import DEVICE, relation_there

pytestmark = pytest.mark.usefixtures("triton")
REPOSITORY = Path(__file__).resolve().parents[2]
ARCHITECTURES = (80, 90, 100)


@pytest.fixture
def _no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("_no_cuda")
def test_the_interpreter_needs_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert _triton.missing_reason() is None
    assert _triton.device_reasons(torch.zeros(1)) == ["tensors are on cpu"]
    monkeypatch.setenv("HGMM_BACKEND", "triton")
    assert _triton.device_reasons(torch.zeros(1)) == []
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert _triton.missing_reason() == "torch sees no CUDA device"
    assert _triton.device_reasons(torch.zeros(1)) == ["tensors are on cpu"]


@pytest.mark.parametrize(
    ("version", "message"), [(None, "Triton is not installed"), ("3.1.0", r"Triton 3\.1\.0 is too old: 3\.2 is needed")]
)
def test_a_triton_that_is_missing_or_old_is_said_once_where_there_is_a_gpu(
    version: str | None, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(_triton.metadata, "version", found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    _triton._log_missing.cache_clear()
    with caplog.at_level(logging.WARNING, logger="hgmm.kernels"):
        reasons = {_triton.missing_reason() for _ in range(3)}
    (reason,) = reasons
    assert reason is not None
    assert re.match(message, reason)
    assert caplog.messages == [f"{reason}; on CUDA the operators run on the reference"]


def rows_of(degrees: Tensor, work: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    from hgmm.kernels import _triton_rows

    monkeypatch.setattr(_triton_rows, "RUN_WORK", work)
    monkeypatch.setattr(_triton_rows, "LONGEST_ROW", longest)
    return _triton_rows.rows_of(torch.nn.functional.pad(degrees.cumsum(0), (1, 0)).to(DEVICE))


def test_the_example_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(torch.tensor([2, 1300, 1]), 10_000, 512, monkeypatch)
    assert rows.runs.tolist() == [0, 3]
    assert rows.part_row.tolist() == [1, 1, 1]
    assert rows.part_begin.tolist() == [2, 514, 1026]
    assert rows.part_end.tolist() == [514, 1026, 1302]
    assert (rows.split_row.tolist(), rows.split_ptr.tolist()) == ([1], [0, 3])


@pytest.mark.parametrize("longest", [1, 7, 10**6])
@pytest.mark.parametrize("work", [1, 5, 64])
@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_every_edge_has_one_program(num_rows: int, work: int, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    degrees = torch.randint(0, 12, (num_rows,), generator=generator(num_rows + work))
    rows = rows_of(degrees, work, longest, monkeypatch)
    assert rows.runs[0] == 0
    assert rows.runs[-1] == num_rows
    covered = torch.zeros(int(degrees.sum()), dtype=torch.int64)
    written = torch.zeros(num_rows, dtype=torch.int64)
    for first, last in zip(rows.runs[:-1].tolist(), rows.runs[1:].tolist(), strict=True):
        short = [r for r in range(first, last) if rows.indptr[r + 1] - rows.indptr[r] <= longest]
        assert sum(int(degrees[r]) + 1 for r in range(first, last)) <= work + int(degrees.max()) + 1
        for r in short:
            covered[rows.indptr[r] : rows.indptr[r + 1]] += 1
            written[r] += 1
    for row, begin, end in zip(rows.part_row, rows.part_begin, rows.part_end, strict=True):
        assert rows.indptr[row] <= begin < end <= rows.indptr[row + 1]
        assert end - begin <= longest
        covered[begin:end] += 1
    written[rows.split_row.cpu()] += 1
    assert bool((covered == 1).all())
    assert bool((written == 1).all())


def test_shares_are_kept_while_the_row_pointers_live_and_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from hgmm.kernels import _triton_rows

    spread = []
    monkeypatch.setattr(
        _triton_rows, "_spread", lambda *args, old=_triton_rows._spread: spread.append(args) or old(*args)
    )
    indptr = torch.tensor([0, 2, 3], device=DEVICE)
    kept = len(_triton_rows._rows)
    for _ in range(2):
        assert _triton_rows.rows_of(indptr).num_runs == 1
    assert len(spread) == 1
    indptr[1] = 1
    _triton_rows.rows_of(indptr)
    assert len(spread) == 2
    del indptr
    spread.clear()
    assert len(_triton_rows._rows) == kept


def test_mixed_index_dtypes_run_as_they_are_so_that_rows_are_spread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from hgmm.kernels import _triton_rows

    spread = []
    original = _triton_rows._spread
    monkeypatch.setattr(_triton_rows, "_spread", lambda *x: spread.append(x) or original(*x))
    csc = relation_there(Case((0, 1, 2), (0, 1, 1), 3, 2))
    mixed = csc._replace(indptr=csc.indptr.int(), indices_t=csc.indices_t.int())
    x = torch.randn(3, 1, 2, generator=generator(1)).to(DEVICE).requires_grad_()
    with using_backend("triton"):
        expected = neighbor_mean(csc, x)
        spread.clear()
        found = [neighbor_mean(mixed, x) for _ in range(2)]
    assert len(spread) == 1
    assert all(torch.equal(y, expected) for y in found)
    (grad,), (other,) = (torch.autograd.grad(y.sum(), x) for y in (found[0], expected))
    assert torch.equal(grad, other)


def test_index_tensors_made_in_inference_mode_are_spread_anew() -> None:
    from hgmm.kernels import _triton_rows

    with torch.inference_mode():
        indptr = torch.tensor([0, 1], device=DEVICE)
        assert _triton_rows.rows_of(indptr).num_runs == 1
        indptr += torch.tensor([0, _triton_rows.RUN_WORK], device=DEVICE)
        assert _triton_rows.rows_of(indptr).num_runs == 2


@pytest.mark.parametrize("many", [True, False])
def test_the_best_tile_is_found_once_for_many_programs(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    from hgmm.kernels import _triton_rows
    from hgmm.kernels.neighbor_mean import triton_kernels

    timed = []

    def bench(call: Any, quantiles: Any) -> list[float]:
        call()
        timed.append(len(timed))
        # The second tile is the fastest.
        return [abs(len(timed) - 2.0)] * 3

    real = triton.autotune
    monkeypatch.setattr(triton, "autotune", lambda **options: real(**options, do_bench=bench))
    monkeypatch.setattr(_triton_rows, "_takes_default", lambda: False)
    monkeypatch.setattr(_triton_rows, "FEWEST_TO_TUNE", 1 if many else 2)
    _triton_rows._tuned.cache_clear()
    csc = relation_there(TWO)
    x = torch.randn(2, 1, 40, generator=generator()).to(DEVICE)
    for _ in range(2):
        out, _ = triton_kernels.forward(csc, x, None, None, False)
        torch.testing.assert_close(out[0], x.sum(0))
    assert len(timed) == (len(_triton_rows._tiles(64, False)) if many else 0)
    assert len(_triton_rows._tiles(64, False)) > 2
    _triton_rows._tuned.cache_clear()


TWO = Case((0, 1), (0, 0), 2, 1)


def test_long_vectors_are_shared_by_more_warps() -> None:
    from hgmm.kernels import _triton_rows

    assert _triton_rows._tiles(128, False)[0] == (8, 2)
    assert _triton_rows._tiles(4096, False)[0] == (1, 4)
    assert _triton_rows._tiles(1 << 20, True) == ((1, 8),)


def test_two_floats_hold_a_double() -> None:
    from hgmm.kernels._triton_rows import two_floats

    high, low = two_floats(1 / 0.7)
    assert high == float(torch.tensor(1 / 0.7, dtype=torch.float32))
    assert high + float(torch.tensor(low, dtype=torch.float32)) == pytest.approx(1 / 0.7, rel=1e-14)


def compile_all(*arguments: str, folder: Path) -> list[dict[str, Any]]:
    """Compile the kernels in a process of its own: in this one they are interpreted."""
    rows = folder / "rows.jsonl"
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "error", "-m", "benchmarks.triton_resources", "--default-only"]
    result = subprocess.run(
        [*command, "--json", str(rows), *arguments],
        cwd=REPOSITORY,
        env=environment | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return [json.loads(line) for line in rows.read_text().splitlines()]


@pytest.mark.parametrize("op", OPERATORS)
def test_kernels_compile_ahead_of_time_without_spills_or_atomics(op: str, tmp_path: Path) -> None:
    architectures = [part for arch in ARCHITECTURES for part in ("--arch", str(arch))]
    rows = compile_all("--op", op, "--shape", "3x4x32", *architectures, folder=tmp_path)
    assert {row["arch"] for row in rows} == set(ARCHITECTURES)
    for row in rows:
        assert (row["spills"], row["stack_bytes"], row["atomics"]) == (0, 0, 0), row
        assert row["registers"] <= 255
        if not row["kernel"].endswith("parts"):
            assert row["load_bits"] == 128, row


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shape", ["1x8x8", "2x8x8", "3x4x16", "3x4x32", "8x4x64", "3x3x31"])
@pytest.mark.parametrize("op", OPERATORS)
def test_every_row_and_shape_compiles_ahead_of_time(op: str, shape: str, tmp_path: Path) -> None:
    combines = ("product", "sum", "b1", "poster", "sharp") if op == "cross_modal_attention" else ("product",)
    for combine in combines:
        assert compile_all("--op", op, "--shape", shape, "--combine", combine, "--arch", "90", folder=tmp_path)
