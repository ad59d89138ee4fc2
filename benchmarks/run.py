"""Time one operator or layer of hgmm beside the same composed of other libraries' parts.

    python -m benchmarks.run cross_modal_attention --sizes 1e5-3x4x16 --providers hgmm-cpu,dgl

Before anything is timed, every provider must agree with the reference on a small problem, results and gradients. Then
all of them run in turns in one process, so that a busy machine meets all alike; peak memory comes from a fresh process
each. `--json` writes one line a provider and mode.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource
from rich.console import Console

from benchmarks import _layers, _operators
from benchmarks._layers import LAYERS
from benchmarks._measure import (
    MODES,
    Forecast,
    Row,
    Times,
    check_device,
    check_folder,
    choose_providers,
    collect,
    environment,
    free_mib,
    interleaved,
    median_seconds,
    peak_in_fresh_process,
    peak_of,
    summarise,
)
from benchmarks._operators import BACKENDS, DEGREES, HALF, OPERATORS, Case, Trial, casts, gathers
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm.errors import unknown_name
from hgmm.settings import prefer_large_pages

__all__ = ["PROVIDERS", "check_gate", "main", "measure", "parse_size"]

PROVIDERS = (*BACKENDS, "dgl", "pyg", "official-style")
# The ratio of the table is to the first of these that runs.
BASES = ("hgmm-cpu", "hgmm-triton")
DEFAULT_SIZES = "1e5-3x4x16,1e5-3x4x32,1e6-3x4x16,1e6-3x4x32"
LARGE_SIZES = "1e7-3x4x16"
ALL_EDGES = ("1e5", "1e6")
LARGE_EDGES = ("1e7",)
ALL_SHAPES = tuple(f"{m}x{heads}" for m, heads in product((1, 2, 3), ("4x16", "8x8", "4x32")))
GATE_EDGES = 2_000
# Norm of the error over the norm: float32 sums of some hundreds, and gradients that are stored in bfloat16.
GATE_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
# A gradient that is zero but for rounding (one modality leaves its inter-modal softmax nothing to decide) is compared
# with this share of the largest.
GATE_FLOOR = 1e-3
WARMUP = 1
# The inputs, which the peak leaves out, are about as large as what the leanest provider needs on top.
MEMORY_MARGIN = 2.0


def parse_size(text: str) -> dict[str, int]:
    """Read ``1e6-3x4x16``: edges, modalities, heads, head size."""
    try:
        edges, shape = text.strip().rsplit("-", 1)
        M, H, D = map(int, shape.split("x"))
        num_edges = int(float(edges))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"expected EDGES-MxHxD, for example 1e6-3x4x16, got {text!r}", param_hint="--sizes"
        ) from None
    if min(num_edges, M, H, D) < 1:
        raise click.BadParameter(f"expected numbers of at least 1, got {text!r}", param_hint="--sizes")
    return {"num_edges": num_edges, "M": M, "H": H, "D": D}


def _kind(op: str) -> Any:
    """Return the module that makes problems of an operator or a layer and lets providers run them."""
    return _layers if op in LAYERS else _operators


def _dtype(provider: str) -> str:
    return "bfloat16" if provider == HALF else "float32"


def _trials(providers: list[str], case: Case, stored: str = "float32") -> tuple[Any, dict[str, Trial]]:
    kind = _kind(case.op)
    problem = kind.make_problem(case, getattr(torch, stored))
    return problem, {name: kind.trial(name, problem) for name in providers}


def _results(provider: str, case: Case, stored: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trial = _trials([provider], case, stored)[1][provider]
    out, grad = trial.step()
    torch.autograd.backward(out, grad)
    return out.detach(), trial.gradients()


def _errors(provider: str, case: Case) -> Iterator[tuple[str, float]]:
    """Yield the norm of the error over the norm, for the result and each gradient."""
    # What bfloat16 holds exactly for both: rounding moves results, which is no mistake of a provider.
    (out, found), (expected_out, expected) = (
        _results(name, case, _dtype(provider)) for name in (provider, "reference")
    )
    yield "result", float((out - expected_out).norm() / expected_out.norm())
    floor = GATE_FLOOR * max(float(grad.norm()) for grad in expected.values())
    for name, grad in expected.items():
        yield f"gradient of {name}", float((found[name] - grad).norm()) / max(float(grad.norm()), floor)


def check_gate(providers: list[str], case: Case) -> None:
    """Compare every provider with the reference on a small problem.

    Raises
    ------
    click.ClickException
        Naming the provider, what differs and by how much.
    """
    small = replace(case, num_edges=min(case.num_edges, GATE_EDGES))
    for provider in providers:
        limit = GATE_TOLERANCE[_dtype(provider)]
        for name, error in _errors(provider, small):
            if not error <= limit:
                raise click.ClickException(
                    f"{provider} disagrees with the reference: {name} by {error:.2g} of its norm, at most "
                    f"{limit:g} is allowed; nothing was timed"
                )


def _peak(provider: str, case: Case) -> float:
    # Thread pools and lazily loaded code belong to the process, not to the step.
    _results(provider, replace(case, num_edges=min(case.num_edges, GATE_EDGES)), "float32")
    return peak_of(_trials([provider], case)[1][provider].step, case.device)


def measure(case: Case, providers: list[str], rounds: int, *, peaks: bool) -> list[dict[str, Any]]:
    """Time the providers on one case and return a row for each of them and each mode."""
    check_gate(providers, case)
    memory = {}
    for name in providers if peaks else []:
        arguments = [case.op, "--peak-of", name, json.dumps(asdict(case))]
        memory[name] = peak_in_fresh_process("benchmarks.run", arguments, name)
    clock: dict[str, Any] = {"rounds": rounds, "warmup": WARMUP, "device": case.device}
    problem, trials = _trials(providers, case)
    times = interleaved({name: trial.step for name, trial in trials.items()}, **clock)
    seconds = min(median_seconds(way, **clock) for way in gathers(case, problem.csc))
    bandwidth = case.num_edges * case.M * case.H * case.D * 8 / seconds
    # A layer stores them itself, within its time.
    wanted = HALF in providers and case.op in OPERATORS
    cast_ms = {mode: 1e3 * median_seconds(cast, **clock) for mode, cast in casts(problem).items()} if wanted else {}
    place = environment(case.device)
    return [
        _row(case, name, mode, times[name], memory.get(name), rounds, bandwidth, place).flat()
        | ({"cast_ms": cast_ms[mode]} if name == HALF and cast_ms else {})
        for name in providers
        for mode in MODES
    ]


def _row(
    case: Case,
    provider: str,
    mode: str,
    times: Times,
    peak: float | None,
    rounds: int,
    bandwidth: float,
    place: Mapping[str, Any],
) -> Row:
    timing = summarise(times.of(mode))
    dtype = _dtype(provider)
    edges_per_s = case.num_edges / (timing.median_ms / 1e3)
    extra = {"edges_per_s": edges_per_s, "gather_gb_per_s": bandwidth / 1e9}
    if mode == MODES[0]:
        # Of keys and values, or rows, that each edge must read.
        numbers = case.M * case.H * case.D * (1 if case.op == "neighbor_mean" else 2)
        rate = edges_per_s * numbers * (2 if dtype == "bfloat16" else 4)
        extra |= {"gathered_gb_per_s": rate / 1e9, "share_of_gather": rate / bandwidth}
    return Row(
        op=case.op,
        provider=provider,
        mode=mode,
        dtype=dtype,
        sizes={key: value for key, value in asdict(case).items() if key not in ("op", "device")},
        **timing._asdict(),
        peak_mib=peak if mode == MODES[-1] else None,
        warmup=WARMUP,
        rounds=rounds,
        **place,
        extra=extra,
    )


def show(console: Console, case: Case, rows: list[dict[str, Any]]) -> None:
    """Print the rows of one case as a table."""
    title = f"{case.op}, {case.num_edges:,} edges, {case.degrees} degrees, M x H x D = {case.M} x {case.H} x {case.D}"
    first = rows[0]
    base = next((name for name in BASES if any(row["provider"] == name for row in rows)), None)
    caption = f"{first['device']}, {first['threads']} threads; random rows: {first['gather_gb_per_s']:.1f} GB/s"
    caption += f"; base: {base}" if base else ""
    figures = ["median\nms", "p20\nms", "p80\nms", "peak\nMiB", "Medges\n/s", "GB/s", "of\ngather", "/ base"]
    table = make_table(["provider", "mode"], figures if base else figures[:-1])
    medians = {row["mode"]: row["median_ms"] for row in rows if row["provider"] == base}
    for row in rows:
        cells = [row["median_ms"], row["p20_ms"], row["p80_ms"], row["peak_mib"], row["edges_per_s"] / 1e6]
        cells += [row.get("gathered_gb_per_s"), row.get("share_of_gather")]
        cells += [row["median_ms"] / medians[row["mode"]]] if base else []
        name = row["provider"] if row["mode"] == MODES[0] else ""
        table.add_row(name, row["mode"], *map(figure, cells))
    print_table(console, table, title=title, caption=caption)


def _sizes(sizes: str, *, all_sizes: bool, large: bool) -> list[dict[str, int]]:
    if not all_sizes:
        return [parse_size(size) for size in (f"{sizes},{LARGE_SIZES}" if large else sizes).split(",")]
    if click.get_current_context().get_parameter_source("sizes") is not ParameterSource.DEFAULT:
        raise click.BadParameter("takes the place of --sizes; leave one of them out", param_hint="--all-sizes")
    edges = ALL_EDGES + LARGE_EDGES if large else ALL_EDGES
    return [parse_size(f"{number}-{shape}") for number, shape in product(edges, ALL_SHAPES)]


def _measure_all(
    cases: list[Case], providers: list[str], rounds: int, *, peaks: bool, console: Console
) -> Iterator[list[dict[str, Any]]]:
    forecast = Forecast(MEMORY_MARGIN)
    for case in cases:
        size = case.num_edges * case.M * case.H * case.D
        where = f"skipped at {case.num_edges:,} edges, {case.M} x {case.H} x {case.D}"
        fitting = forecast.fitting(providers, size, free_mib(case.device), console=console, where=where)
        if fitting:
            rows = measure(case, fitting, rounds, peaks=peaks)
            for row in rows:
                forecast.learn(row["provider"], size, row["peak_mib"] or 0.0)
            show(console, case, rows)
            yield rows


@click.command(help=__doc__)
@click.argument("op", type=click.Choice(OPERATORS + LAYERS))
@click.option("--sizes", default=DEFAULT_SIZES, show_default=True, help="Comma-separated EDGES-MxHxD.")
@click.option(
    "--all-sizes", is_flag=True, help=f"All of {', '.join(ALL_EDGES)} edges with {', '.join(ALL_SHAPES)} instead."
)
@click.option("--large", is_flag=True, help=f"Also {LARGE_SIZES}, or all shapes with {', '.join(LARGE_EDGES)} edges.")
@click.option("--degrees", default=",".join(DEGREES), show_default=True, help="Comma-separated.")
@click.option("--providers", "named", help="Comma-separated; default: all that run here.")
@click.option("--combine", default="product", show_default=True, help="Row of cross_modal_attention's table.")
@click.option("--masked", is_flag=True, help="A fifth of the modalities absent.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--no-memory", is_flag=True, help="Leave out peak memory.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-of", nargs=2, hidden=True)
def main(
    op: str,
    sizes: str,
    all_sizes: bool,
    large: bool,
    degrees: str,
    named: str | None,
    combine: str,
    masked: bool,
    device: str,
    rounds: int,
    no_memory: bool,
    json_path: Path | None,
    peak_of: tuple[str, str] | None,
) -> None:
    prefer_large_pages()
    if peak_of is not None:
        provider, case = peak_of
        click.echo(_peak(provider, Case(**json.loads(case))))
        return
    check_folder(json_path)
    check_device(device)
    names = [name.strip() for name in degrees.split(",")]
    for name in names:
        if name not in DEGREES:
            raise click.BadParameter(unknown_name("degrees", name, DEGREES), param_hint="--degrees")
    cases = [
        Case(op, degrees=name, combine=combine, masked=masked, device=device, **size)
        for size in _sizes(sizes, all_sizes=all_sizes, large=large)
        for name in names
    ]
    console = make_console()
    providers = choose_providers(named, PROVIDERS, partial(_kind(op).missing, case=cases[0]), console)
    collect(_measure_all(cases, providers, rounds, peaks=not no_memory, console=console), json_path)


if __name__ == "__main__":
    main()
