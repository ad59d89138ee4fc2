from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks import translational_score as bench
from benchmarks.translational_score import PROVIDERS, Case, Problem, check_gate, main, measure
from hgmm.kernels.translational_score import NORMS

TINY = Case(B=6, K=4, N=9, M=2, D=6, norm="1")
SMALL = ["--batch", "6", "--draws", "4", "--entities", "9", "--width", "6", "--rounds", "1"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*SMALL, *arguments])


@pytest.mark.parametrize("norm", NORMS)
def test_what_pytorch_composes_equals_the_reference(norm: str) -> None:
    check_gate(["torch", "reference"], Case(B=6, K=4, N=9, M=2, D=6, norm=norm))


def test_the_gate_finds_a_wrong_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*x: torch.Tensor | str) -> torch.Tensor:
        out: torch.Tensor = original(*x)
        return out * 1.01

    original = bench._composed
    monkeypatch.setattr(bench, "_composed", wrong)
    with pytest.raises(click.ClickException, match=r"torch disagrees with the reference: result by 0\.01"):
        check_gate(["torch"], TINY)


def test_problem_has_the_documented_sizes() -> None:
    problem = Problem(TINY, "torch")
    assert [tuple(x.shape) for x in (*problem.leaves, *problem.ids)] == [
        (6, 2, 2, 6),
        (9, 2, 6),
        (6, 4),
        (6, 4),
        (2, 4, 2),
    ]
    assert problem.ids[2][0].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_peak_is_that_of_a_fresh_process() -> None:
    *_, both = measure(TINY, ["torch"], 1, peaks=True)
    assert both["peak_mib"] >= 0


def test_rows_and_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = call("--modalities", "1,2", "--providers", "reference,torch", "--no-memory", "--json", str(path))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["P"], row["provider"], row["mode"]) for row in rows] == [
        (P, name, mode) for P in (1, 4) for name in ("reference", "torch") for mode in ("forward", "backward", "both")
    ]
    assert all(row["median_ms"] > 0 and (row["B"], row["K"]) == (6, 4) for row in rows)
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draws", "4,x"], "'4,x'"),
        (["--modalities", "0"], "'0'"),
        (["--norm", "complex", "--width", "7"], "even for complex numbers, got 7"),
        (["--providers", "nobody"], "nobody"),
        (["--device", "nowhere"], "nowhere"),
        (["--json", "absent/rows.jsonl"], "'absent' does not exist"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_providers_are_listed_where_they_cannot_run() -> None:
    assert set(PROVIDERS) >= {"hgmm-cpu", "hgmm-triton", "reference", "torch"}
    if not torch.cuda.is_available():
        assert "does not run on cpu" in call("--providers", "hgmm-triton").output
