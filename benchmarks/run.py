"""Time one operator of hgmm beside the same operator composed of other libraries' parts.

    python -m benchmarks.run cross_modal_attention --sizes 1e5-3x4x16 --providers hgmm-cpu,dgl

Before anything is timed, every provider must agree with the reference on a small problem, results and gradients. Then
all of them run in turns in one process, so that a busy machine meets all alike; peak memory comes from a fresh process
each. `--json` writes one line a provider and mode.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks._measure import MODES, Row, Times, environment, interleaved, peak_of, summarise, write_rows
from benchmarks._operators import DEGREES, OPERATORS, PROVIDERS, Case, gather_seconds, make_problem, missing, step
from hgmm.errors import unknown_name

__all__ = ["check_gate", "main", "parse_size"]

BASE = "hgmm-cpu"
DEFAULT_SIZES = "1e5-3x4x16,1e5-3x4x32,1e6-3x4x16,1e6-3x4x32"
LARGE_SIZES = "1e7-3x4x16"
GATE_EDGES = 2_000
# Norm of the error over the norm: float32 sums of some hundreds, and gradients that are stored in bfloat16.
GATE_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
WARMUP = 1


def parse_size(text: str) -> dict[str, int]:
    """Read ``1e6-3x4x16``: edges, modalities, heads, head size."""
    try:
        edges, shape = text.strip().rsplit("-", 1)
        M, H, D = map(int, shape.split("x"))
        num_edges = int(float(edges))
    except ValueError:
        raise click.BadParameter(
            f"expected EDGES-MxHxD, for example 1e6-3x4x16, got {text!r}", param_hint="--sizes"
        ) from None
    if min(num_edges, M, H, D) < 1:
        raise click.BadParameter(f"expected numbers of at least 1, got {text!r}", param_hint="--sizes")
    return {"num_edges": num_edges, "M": M, "H": H, "D": D}


def _dtype(provider: str) -> str:
    return "bfloat16" if provider.endswith("bf16") else "float32"


def _results(provider: str, case: Case, stored: str = "float32") -> list[torch.Tensor]:
    problem = make_problem(case)
    for leaf in (problem.leaves[0], problem.leaves[-1]):
        # Keys and values that bfloat16 holds exactly: rounding them moves results, which is no mistake of a provider.
        leaf.data = leaf.data.to(getattr(torch, stored)).float()
    out, grad = step(provider, problem)()
    torch.autograd.backward(out, grad)
    return [out.detach(), *(x.grad for x in problem.leaves if x.grad is not None)]


def check_gate(providers: list[str], case: Case) -> None:
    """Compare every provider with the reference on a small problem.

    Raises
    ------
    click.ClickException
        Naming the provider, what differs and by how much.
    """
    small = replace(case, num_edges=min(case.num_edges, GATE_EDGES))
    names = ["result", "gradient 1", "gradient 2", "gradient 3", "gradient 4"]
    for provider in providers:
        stored = _dtype(provider)
        limit = GATE_TOLERANCE[stored]
        pairs = zip(names, _results(provider, small, stored), _results("reference", small, stored), strict=False)
        for name, x, y in pairs:
            error = float((x - y).norm() / y.norm())
            if not error <= limit:
                raise click.ClickException(
                    f"{provider} disagrees with the reference: {name} by {error:.2g} of its norm, at most "
                    f"{limit:g} is allowed; nothing was timed"
                )


def _peak_in_fresh_process(provider: str, case: Case) -> float:
    command = [sys.executable, "-m", "benchmarks.run", case.op, "--peak-of", provider, json.dumps(asdict(case))]
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise click.ClickException(
            f"measuring the memory of {provider} failed with exit status {result.returncode}:\n{result.stderr.strip()}"
        )
    return float(result.stdout)


def _peak(provider: str, case: Case) -> float:
    # Thread pools and lazily loaded code belong to the process, not to the step.
    _results(provider, replace(case, num_edges=min(case.num_edges, GATE_EDGES)))
    return peak_of(step(provider, make_problem(case)))


def _best_seconds(ways: Mapping[str, Callable[[], Any]], rounds: int) -> float:
    """Return the smallest median of several ways to do the same."""
    medians = []
    for way in ways.values():
        seconds = []
        for turn in range(rounds + WARMUP):
            start = time.perf_counter()
            way()
            if turn >= WARMUP:
                seconds.append(time.perf_counter() - start)
        medians.append(float(np.median(seconds)))
    return min(medians)


def measure(case: Case, providers: list[str], rounds: int, *, peaks: bool) -> list[dict[str, Any]]:
    """Time the providers on one case and return a row for each of them and each mode."""
    check_gate(providers, case)
    memory = {name: _peak_in_fresh_process(name, case) if peaks else None for name in providers}
    problem = make_problem(case)
    times = interleaved({name: step(name, problem) for name in providers}, rounds=rounds, warmup=WARMUP)
    # Bytes of keys and values, or rows, that each edge must read.
    gathered = case.M * case.H * case.D * 4 * (1 if case.op == "neighbor_mean" else 2)
    seconds = _best_seconds(gather_seconds(problem), rounds)
    bandwidth = case.num_edges * case.M * case.H * case.D * 8 / seconds
    place = environment()
    return [
        _row(case, name, mode, times[name], memory[name], rounds, gathered, bandwidth, place)
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
    gathered: int,
    bandwidth: float,
    place: Mapping[str, Any],
) -> dict[str, Any]:
    timing = summarise(times.of(mode))
    seconds = timing.median_ms / 1e3
    row = Row(
        op=case.op,
        provider=provider,
        mode=mode,
        dtype=_dtype(provider),
        sizes={key: value for key, value in asdict(case).items() if key not in ("op", "device")},
        **timing._asdict(),
        peak_mib=peak if mode == MODES[-1] else None,
        warmup=WARMUP,
        rounds=rounds,
        **{**place, "device": place["device"] if case.device == "cpu" else torch.cuda.get_device_name(case.device)},
    )
    flat = asdict(row)
    flat |= flat.pop("sizes")
    flat["edges_per_s"] = case.num_edges / seconds
    flat["gather_gb_per_s"] = bandwidth / 1e9
    if mode == "forward":
        rate = case.num_edges * gathered / (2 if row.dtype == "bfloat16" else 1) / seconds
        flat["gathered_gb_per_s"] = rate / 1e9
        flat["share_of_gather"] = rate / bandwidth
    return flat


def _table(case: Case, rows: list[dict[str, Any]]) -> Table:
    title = f"{case.op}, {case.num_edges:,} edges, {case.degrees} degrees, M x H x D = {case.M} x {case.H} x {case.D}"
    first = rows[0]
    caption = f"{first['device']}, {first['threads']} threads; random rows: {first['gather_gb_per_s']:.1f} GB/s"
    table = Table(title=title, caption=caption)
    for name in ("provider", "mode"):
        table.add_column(name, no_wrap=True)
    for name in ("median ms", "p20", "p80", "peak MiB", "M edges/s", "of gather", f"/ {BASE}"):
        table.add_column(name, justify="right")
    base = {row["mode"]: row["median_ms"] for row in rows if row["provider"] == BASE}
    for row in rows:
        peak, share = row["peak_mib"], row.get("share_of_gather")
        table.add_row(
            row["provider"],
            row["mode"],
            *(f"{row[key]:,.1f}" for key in ("median_ms", "p20_ms", "p80_ms")),
            "" if peak is None else f"{peak:,.0f}",
            f"{row['edges_per_s'] / 1e6:,.1f}",
            "" if share is None else f"{share:.2f}",
            f"{row['median_ms'] / base[row['mode']]:.2f}" if base else "",
        )
    return table


def _chosen(named: str | None, case: Case, console: Console) -> list[str]:
    if named is None:
        reasons = {name: missing(name, case) for name in PROVIDERS}
        for name, reason in reasons.items():
            if reason is not None:
                console.print(f"skipped: {name} {reason}")
        return [name for name, reason in reasons.items() if reason is None]
    names = [name.strip() for name in named.split(",")]
    for name in names:
        if name not in PROVIDERS:
            raise click.BadParameter(unknown_name("provider", name, PROVIDERS), param_hint="--providers")
        reason = missing(name, case)
        if reason is not None:
            raise click.BadParameter(f"provider {name!r} {reason}", param_hint="--providers")
    return names


@click.command(help=__doc__)
@click.argument("op", type=click.Choice(OPERATORS))
@click.option("--sizes", default=DEFAULT_SIZES, show_default=True, help="Comma-separated EDGES-MxHxD.")
@click.option("--large", is_flag=True, help=f"Also {LARGE_SIZES}.")
@click.option("--degrees", default=",".join(DEGREES), show_default=True, help="Comma-separated.")
@click.option("--providers", "named", help="Comma-separated; default: all that run here.")
@click.option("--combine", default="product", show_default=True, help="Row of cross_modal_attention's table.")
@click.option("--masked", is_flag=True, help="A fifth of the modalities absent.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--no-memory", is_flag=True, help="Leave out peak memory.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-of", nargs=2, hidden=True)
def main(
    op: str,
    sizes: str,
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
    if peak_of is not None:
        provider, case = peak_of
        click.echo(_peak(provider, Case(**json.loads(case))))
        return
    if json_path is not None and not json_path.parent.is_dir():
        raise click.BadParameter(f"folder {str(json_path.parent)!r} does not exist; create it", param_hint="--json")
    names = [name.strip() for name in degrees.split(",")]
    for name in names:
        if name not in DEGREES:
            raise click.BadParameter(unknown_name("degrees", name, DEGREES), param_hint="--degrees")
    parsed = [parse_size(size) for size in (f"{sizes},{LARGE_SIZES}" if large else sizes).split(",")]
    cases = [
        Case(op, degrees=name, combine=combine, masked=masked, device=device, **size)
        for size in parsed
        for name in names
    ]
    console = Console()
    providers = _chosen(named, cases[0], console)
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows += measure(case, providers, rounds, peaks=not no_memory)
        console.print(_table(case, rows[-len(providers) * len(MODES) :]))
        # Written after each case: a long run that is stopped keeps what it has.
        if json_path is not None:
            write_rows(json_path, rows)


if __name__ == "__main__":
    main()
