from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from benchmarks import _layers, _operators, run
from benchmarks._layers import LAYERS
from benchmarks._measure import MODES, Forecast
from benchmarks._operators import HALF, OPERATORS, Case, Trial
from benchmarks._table import figure, make_console

TINY = Case("cross_modal_attention", 60, "power", 3, 2, 8)
KEYS = {"op", "provider", "mode", "num_edges", "degrees", "M", "H", "D", "dtype"}
KEYS |= {"median_ms", "p20_ms", "p80_ms", "peak_mib", "device", "threads", "large_pages", "versions", "commit", "utc"}
needs_kernels = pytest.mark.skipif(
    _operators.missing_backend("cpu", "cross_modal_attention", "cpu") is not None,
    reason="the compiled kernels are not built",
)


def invoke(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(run.main, list(arguments))


def here(case: Case) -> list[str]:
    return [name for name in run.PROVIDERS if run._kind(case.op).missing(name, case) is None]


@pytest.mark.parametrize("M", [1, 2, 3])
@pytest.mark.parametrize("combine", ["product", "sum", "b1"])
@pytest.mark.parametrize("op", OPERATORS + LAYERS)
def test_every_provider_agrees_with_the_reference(op: str, combine: str, M: int) -> None:
    case = replace(TINY, op=op, combine=combine, M=M)
    names = here(case)
    others = {"official-style"} if op in LAYERS else set() if combine == "b1" else {"dgl"}
    assert others | {"reference"} <= set(names)
    run.check_gate(names, case)


@pytest.mark.parametrize("op", LAYERS)
@pytest.mark.parametrize("change", [{"masked": True}, {"combine": "sharp"}])
def test_layers_without_the_baseline_agree_with_the_reference(op: str, change: dict[str, Any]) -> None:
    case = replace(TINY, op=op, **change)
    assert "official-style" not in here(case)
    run.check_gate(here(case), case)


def test_the_layers_of_both_formulations_name_the_same_parameters() -> None:
    problem = _layers.make_problem(replace(TINY, op="cross_modal_conv"))
    ours, theirs = (run._results(name, problem.case, "float32")[1] for name in ("reference", "official-style"))
    assert set(ours) == set(theirs)
    assert {"h", "k.weight", "modal.2", "node", "message", "prior", "skip", "norm.bias"} < set(ours)


@pytest.mark.parametrize("op", OPERATORS + LAYERS)
def test_an_operator_writes_its_rows(op: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    other = "official-style" if op in LAYERS else "dgl"
    result = invoke(
        op, "--sizes", "60-2x2x8", "--providers", f"reference,{other}", "--rounds", "1", "--no-memory", "--json",
        str(path),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["provider"], row["mode"]) for row in rows if row["degrees"] == "uniform"] == [
        (provider, mode) for provider in ("reference", other) for mode in MODES
    ]
    assert all(set(row) >= KEYS for row in rows)
    assert not any("cast_ms" in row for row in rows)
    assert {row["degrees"] for row in rows} == {"uniform", "power"}
    for row in rows:
        if row["mode"] == "forward":
            assert row["share_of_gather"] == pytest.approx(row["gathered_gb_per_s"] / row["gather_gb_per_s"])


def test_peak_memory_comes_from_a_process_of_its_own() -> None:
    (*_, both) = run.measure(replace(TINY, op="neighbor_mean"), ["reference"], 1, peaks=True)
    assert both["mode"] == "both"
    assert both["peak_mib"] >= 0


@needs_kernels
def test_half_storage_is_there_before_the_step_and_its_cost_is_a_field() -> None:
    problem = _operators.make_problem(TINY)
    trial = _operators.trial(HALF, problem)
    out, grad = trial.step()
    torch.autograd.backward(out, grad)
    # The float32 originals take no part.
    assert [leaf.grad is None for leaf in problem.leaves] == [True, False, False, True]
    assert set(trial.gradients()) == {"k", "q_node", "q_modal", "v"}
    rows = run.measure(TINY, ["hgmm-cpu", HALF], 1, peaks=False)
    assert all(("cast_ms" in row) == (row["provider"] == HALF) for row in rows)
    assert all(row["cast_ms"] > 0 for row in rows if row["provider"] == HALF)
    assert not any(
        "cast_ms" in row for row in run.measure(replace(TINY, op="cross_modal_conv"), [HALF], 1, peaks=False)
    )


@pytest.mark.parametrize(("op", "other"), [("cross_modal_attention", "dgl"), ("cross_modal_conv", "official-style")])
@pytest.mark.parametrize("what", ["result", "gradient of"])
def test_nothing_is_timed_if_a_provider_is_wrong(
    op: str, other: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = run._kind(op)
    right = kind.trial

    def wrong(provider: str, problem: Any) -> Trial:
        trial = right(provider, problem)
        if provider == "reference":
            return trial
        if what == "result":
            return Trial(lambda: (trial.step()[0] * 2, problem.grad), trial.gradients)
        return Trial(trial.step, lambda: {name: x * 1.001 for name, x in trial.gradients().items()})

    monkeypatch.setattr(kind, "trial", wrong)
    with pytest.raises(click.ClickException, match=rf"{other} disagrees with the reference: {what}.* of its norm"):
        run.check_gate([other], replace(TINY, op=op))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--providers", "cuda"), "unknown provider 'cuda'"),
        (("--providers", "hgmm-triton"), "provider 'hgmm-triton' does not run on cpu"),
        (("--providers", "pyg"), "provider 'pyg'"),
        (("--providers", "official-style"), "provider 'official-style' is a whole layer"),
        (("--sizes", "many"), "expected EDGES-MxHxD, for example 1e6-3x4x16, got 'many'"),
        (("--sizes", "inf-1x1x8"), "got 'inf-1x1x8'"),
        (("--sizes", "10-0x1x8"), "at least 1, got '10-0x1x8'"),
        (("--sizes", "10-1x1x8", "--all-sizes"), "takes the place of --sizes"),
        (("--degrees", "flat"), "unknown degrees 'flat'"),
        (("--device", "tpu"), "got 'tpu'"),
        (("--json", "no/such/folder/rows.jsonl"), "'no/such/folder' does not exist"),
    ],
)
def test_what_cannot_be_run_is_exit_2(arguments: tuple[str, ...], message: str) -> None:
    result = invoke("cross_modal_attention", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("provider", "change", "reason"),
    [
        ("official-style", {"masked": True}, "has no presence mask"),
        ("official-style", {"combine": "sharp"}, "has no combine=sharp, only product, sum, b1"),
        ("official-style", {"device": "cuda"}, "DGL from PyPI has no CUDA"),
        ("hgmm-cpu", {"device": "cuda"}, "does not run on cuda"),
        ("dgl", {}, "has no counterpart of this layer"),
    ],
)
def test_what_a_layer_is_not_compared_with(provider: str, change: dict[str, Any], reason: str) -> None:
    assert _layers.missing(provider, replace(TINY, op="cross_modal_conv", **change)) == reason


def sizes(*arguments: str) -> list[tuple[int, ...]]:
    """Return what the command would measure."""
    seen: list[tuple[int, ...]] = []

    def note(case: Case, *_: Any, **__: Any) -> list[dict[str, Any]]:
        seen.append((case.num_edges, case.M, case.H, case.D))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure", note)
        patch.setattr(run, "show", lambda *_: None)
        result = invoke("neighbor_mean", "--degrees", "uniform", "--providers", "reference", *arguments)
    assert result.exit_code == 0, result.output
    return seen


def test_all_sizes_are_the_whole_matrix() -> None:
    shapes = [(m, *heads) for m in (1, 2, 3) for heads in ((4, 16), (8, 8), (4, 32))]
    assert sizes("--all-sizes") == [(edges, *shape) for edges in (10**5, 10**6) for shape in shapes]
    assert sizes("--all-sizes", "--large")[18:] == [(10**7, *shape) for shape in shapes]
    assert sizes() == [(edges, 3, 4, size) for edges in (10**5, 10**6) for size in (16, 32)]
    assert sizes("--large") == [*sizes(), (10**7, 3, 4, 16)]


def test_a_case_that_would_not_fit_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, list[str]]] = []

    def note(case: Case, providers: list[str], *_: Any, **__: Any) -> list[dict[str, Any]]:
        measured.append((case.num_edges, providers))
        return [{"provider": name, "peak_mib": 300.0 * len(name)} for name in providers]

    monkeypatch.setattr(run, "measure", note)
    monkeypatch.setattr(run, "show", lambda *_: None)
    monkeypatch.setattr(run, "free_mib", lambda _: 30_000.0)
    result = invoke(
        "neighbor_mean", "--sizes", "100-1x1x8,1000-1x1x8", "--degrees", "power", "--providers", "dgl,reference"
    )
    assert result.exit_code == 0, result.output
    assert measured == [(100, ["dgl", "reference"]), (1000, ["dgl"])]
    assert "reference would need about 53 GiB, and 29 are free" in " ".join(result.output.split())


def test_forecast_says_nothing_of_small_peaks() -> None:
    forecast = Forecast(2.0)
    forecast.learn("p", 10, 255.0)
    assert forecast.reason("p", 1e9, 1.0) is None
    forecast.learn("p", 10, 1024.0)
    assert forecast.reason("p", 10, 2048.0) is None
    assert forecast.reason("p", 20, 2048.0) == "would need about 4 GiB, and 2 are free"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.004, "0.00"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (169.4, "169"),
        (98765.4, "98,765"),
    ],
)
def test_figures_have_no_needless_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize("op", OPERATORS + LAYERS)
def test_every_figure_of_the_table_is_whole_in_80_columns(
    op: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    case = Case(op, 10**7, "uniform", 3, 4, 32)
    shared = {"device": "Processor", "threads": 2, "gather_gb_per_s": 40.0, "edges_per_s": 1234.5e6}
    figures = {"median_ms": 198_765.4, "p20_ms": 187_654.3, "p80_ms": 234_567.8, "peak_mib": 23_456.7}
    forward = {"gathered_gb_per_s": 12.34, "share_of_gather": 0.56}
    rows = [
        {**shared, **figures, "provider": name, "mode": mode, **(forward if mode == "forward" else {})}
        for name in ("hgmm-cpu", HALF, "official-style")
        for mode in MODES
    ]
    run.show(make_console(), case, rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    forward_line = next(line for line in lines if "official-style" in line)
    assert forward_line.split() == [
        "official-style", "forward", "198,765", "187,654", "234,568", "23,457", "1,234", "12.3", "0.56", "1.00",
    ]  # fmt: skip


@pytest.mark.parametrize("op", OPERATORS)
def test_problems_are_the_same_for_the_same_seed(op: str) -> None:
    first, second = (_operators.make_problem(replace(TINY, op=op)) for _ in range(2))
    assert all(map(torch.equal, first.leaves, second.leaves))
    assert all(map(torch.equal, first.csc, second.csc))


def test_layer_problems_are_the_same_for_the_same_seed() -> None:
    first, second = (_layers.make_problem(replace(TINY, op="cross_modal_conv")) for _ in range(2))
    assert torch.equal(first.h, second.h)
    assert all(map(torch.equal, first.weights.parameters(), second.weights.parameters()))


def test_stored_rounds_keys_and_values_alone() -> None:
    plain, rounded = (_operators.make_problem(TINY, stored) for stored in (torch.float32, torch.bfloat16))
    same = [torch.equal(a, b) for a, b in zip(plain.leaves, rounded.leaves, strict=True)]
    assert same == [False, True, True, False]
    assert torch.equal(rounded.leaves[0], plain.leaves[0].bfloat16().float())


def test_a_mask_takes_out_the_providers_without_one() -> None:
    masked = replace(TINY, masked=True)
    assert _operators.missing("dgl", masked) == "has no presence mask"
    problem = _operators.make_problem(masked)
    assert problem.present is not None
    out, _ = _operators.trial("reference", problem).step()
    assert out.isfinite().all()
