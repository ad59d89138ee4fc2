from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.compare import KEY, main, ratios


def write(path: Path, **medians: float) -> Path:
    rows = [{**dict.fromkeys(KEY, 1), "provider": name, "median_ms": median} for name, median in medians.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_cases_in_both_files_are_compared(tmp_path: Path) -> None:
    before, after = write(tmp_path / "a", x=10, y=4, z=1), write(tmp_path / "b", x=5, y=8)
    assert sorted(ratios(before, after).values()) == [0.5, 2]
    result = CliRunner().invoke(main, [str(before), str(after)])
    assert result.exit_code == 0
    assert "2 cases, geometric mean 1.000, worst 2.000" in result.output


def test_table_shows_what_differs_in_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "rows"
    case = {"op": "cross_modal_attention", "degrees": "uniform", "M": 3, "H": 4, "combine": "product", "median_ms": 2}
    rows = [
        {**case, "provider": name, "mode": mode, "num_edges": edges, "D": D, "dtype": dtype}
        for name, dtype in (("hgmm-cpu-bf16", "bfloat16"), ("official-style", "float32"))
        for mode in ("forward", "backward")
        for edges in (10**6, 10**7)
        for D in (16, 32)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = CliRunner().invoke(main, [str(path), str(path)]).output
    _, header, *lines = output.splitlines()
    assert header.split() == ["provider", "mode", "num_edges", "D", "ratio"]
    assert ["official-style", "backward", "10000000", "16", "1.000"] in [line.split() for line in lines]
    assert "op cross_modal_attention, degrees uniform, M 3, H 4, combine product" in output
    assert max(map(len, output.splitlines())) <= 80


def test_a_slower_case_can_fail(tmp_path: Path) -> None:
    files = [str(write(tmp_path / "a", x=10)), str(write(tmp_path / "b", x=15))]
    assert CliRunner().invoke(main, [*files, "--fail-above", "1.6"]).exit_code == 0
    assert CliRunner().invoke(main, [*files, "--fail-above", "1.4"]).exit_code == 1


def test_files_without_a_common_case(tmp_path: Path) -> None:
    files = [str(write(tmp_path / "a", x=10)), str(write(tmp_path / "b", y=15))]
    result = CliRunner().invoke(main, files)
    assert result.exit_code == 1
    assert "no case in common" in result.output


def test_a_line_that_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"op": 1}\n')
    result = CliRunner().invoke(main, [str(path), str(path)])
    assert result.exit_code == 1
    assert "line 1: expected a row" in result.output
