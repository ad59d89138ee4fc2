from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from benchmarks import _operators, run
from benchmarks._operators import OPERATORS, Case, make_problem, missing
from benchmarks._operators import step as provider_step

TINY = Case("cross_modal_attention", 60, "power", 3, 2, 8)
KEYS = {"op", "provider", "mode", "num_edges", "degrees", "M", "H", "D", "dtype"}
KEYS |= {"median_ms", "p20_ms", "p80_ms", "peak_mib", "device", "threads", "versions", "commit", "utc"}


def invoke(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(run.main, list(arguments))


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize("op", OPERATORS)
def test_every_provider_agrees_with_the_reference(op: str, combine: str) -> None:
    case = replace(TINY, op=op, combine=combine)
    names = [name for name in _operators.PROVIDERS if missing(name, case) is None]
    assert {"reference", "dgl"} <= set(names)
    run.check_gate(names, case)


@pytest.mark.parametrize("op", OPERATORS)
def test_an_operator_writes_its_rows(op: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = invoke(
        op, "--sizes", "60-2x2x8", "--providers", "reference,dgl", "--rounds", "1", "--no-memory", "--json", str(path)
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["provider"], row["mode"]) for row in rows if row["degrees"] == "uniform"] == [
        (provider, mode) for provider in ("reference", "dgl") for mode in ("forward", "backward", "both")
    ]
    assert all(set(row) >= KEYS for row in rows)
    assert {row["degrees"] for row in rows} == {"uniform", "power"}
    assert all(row["share_of_gather"] > 0 for row in rows if row["mode"] == "forward")


def test_peak_memory_comes_from_a_process_of_its_own() -> None:
    (*_, both) = run.measure(replace(TINY, op="neighbor_mean"), ["reference"], 1, peaks=True)
    assert both["mode"] == "both"
    assert both["peak_mib"] >= 0


def test_nothing_is_timed_if_a_provider_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = run.step

    def wrong(provider: str, problem: _operators.Problem) -> object:
        inner = right(provider, problem)
        return inner if provider == "reference" else lambda: (inner()[0] * 2, problem.grad)

    monkeypatch.setattr(run, "step", wrong)
    with pytest.raises(click.ClickException, match=r"dgl disagrees with the reference: result by 1 of its norm"):
        run.check_gate(["dgl"], TINY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--providers", "cuda"), "unknown provider 'cuda'"),
        (("--providers", "hgmm-triton"), "provider 'hgmm-triton' does not run on cpu"),
        (("--providers", "pyg"), "provider 'pyg'"),
        (("--sizes", "many"), "expected EDGES-MxHxD, for example 1e6-3x4x16, got 'many'"),
        (("--sizes", "10-0x1x8"), "at least 1, got '10-0x1x8'"),
        (("--degrees", "flat"), "unknown degrees 'flat'"),
        (("--json", "no/such/folder/rows.jsonl"), "'no/such/folder' does not exist"),
    ],
)
def test_what_cannot_be_run_is_exit_2(arguments: tuple[str, ...], message: str) -> None:
    result = invoke("cross_modal_attention", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_problems_are_the_same_for_the_same_seed() -> None:
    first, second = make_problem(TINY), make_problem(TINY)
    assert all(map(torch.equal, first.leaves, second.leaves))
    assert all(map(torch.equal, first.csc, second.csc))


def test_a_mask_takes_out_the_providers_without_one() -> None:
    masked = replace(TINY, masked=True)
    assert missing("dgl", masked) == "has no presence mask"
    problem = make_problem(masked)
    assert problem.present is not None
    out, _ = provider_step("reference", problem)()
    assert out.isfinite().all()
