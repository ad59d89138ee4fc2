"""One epoch of HGNN-IMA, forward and backward over the full graph: hgmm beside the style of the released code.

    python -m benchmarks.epoch --dataset synthetic --edges 1e4,1e5,1e6 --json rows.jsonl
    python -m benchmarks.epoch --dataset amazon

All providers get the same graph, features and weights; nothing is timed before they give the same loss in float64. The
step is the training step without the optimiser: dropout on, batch normalisation in training mode, the mean of the fused
and the modalities' cross-entropies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource
from rich.console import Console

from benchmarks._epoch import (
    BASELINE,
    CANONICAL_ETYPES,
    DATASETS,
    DEGREES,
    GATE_EDGES,
    PROVIDERS,
    EpochConfig,
    Problem,
    chosen_backend,
    gate_losses,
    initial_weights,
    make_problem,
    make_step,
)
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
    peak_in_fresh_process,
    peak_of,
    summarise,
)
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm.errors import HgmmError
from hgmm.settings import prefer_large_pages

__all__ = ["OP", "main", "parse_edges"]

OP = "hgnn_ima_epoch"
WARMUP = 1
GATE_TOLERANCE = 1e-9
# The inputs, which the peak leaves out, are small beside what a step keeps.
MEMORY_MARGIN = 1.25
SYNTHETIC_ONLY = ("edges", "modalities", "degrees", "in_size", "classes")


def parse_edges(text: str) -> list[int]:
    """Read ``1e4,300000``: numbers of edges, ascending."""
    least = len(CANONICAL_ETYPES)
    try:
        numbers = sorted({int(float(number)) for number in text.split(",")})
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"expected numbers separated by commas, for example 1e4,1e5, got {text!r}", param_hint="--edges"
        ) from None
    if numbers[0] < least:
        raise click.BadParameter(f"expected at least {least} edges, one a relation, got {text!r}", param_hint="--edges")
    return numbers


def _check_gate(names: list[str], config: EpochConfig) -> None:
    # The baseline takes part even where it is not timed: one provider alone would agree with itself.
    losses = gate_losses(list(dict.fromkeys([*names, BASELINE])), config)
    expected = losses[BASELINE]
    wrong = [f"{name} {loss!r}" for name, loss in losses.items() if not abs(loss - expected) <= GATE_TOLERANCE]
    if wrong:
        raise click.ClickException(
            f"providers disagree on the loss in float64: {BASELINE} {expected!r}, {', '.join(wrong)}; nothing was timed"
        )


def _peak(name: str, config: EpochConfig) -> float:
    # Thread pools and lazily loaded code belong to the process, not to the step.
    small = replace(config, dataset=DATASETS[0], edges=GATE_EDGES)
    tiny = make_problem(small)
    torch.autograd.backward(make_step(name, tiny, initial_weights(tiny, small), small)())
    problem = make_problem(config)
    return peak_of(make_step(name, problem, initial_weights(problem, config), config), config.device)


def _measure(names: list[str], config: EpochConfig, rounds: int) -> list[Row]:
    """Measure the providers on one graph and return a row for each of them and each mode."""
    memory = {}
    for name in names:
        arguments = ["--peak-of", name, json.dumps(asdict(config))]
        memory[name] = peak_in_fresh_process("benchmarks.epoch", arguments, name)
    problem = make_problem(config)
    weights = initial_weights(problem, config)
    steps = {name: make_step(name, problem, weights, config) for name in names}
    times = interleaved(steps, rounds=rounds, warmup=WARMUP, device=config.device)
    return _rows(times, memory, problem, config, rounds)


def _rows(
    times: Mapping[str, Times], memory: Mapping[str, float], problem: Problem, config: EpochConfig, rounds: int
) -> list[Row]:
    place, sizes = environment(config.device), problem.sizes(config)
    rows = []
    for name, measured in times.items():
        for mode in MODES:
            timing = summarise(measured.of(mode))
            row = Row(
                op=OP,
                provider=name,
                mode=mode,
                dtype="float32",
                sizes=sizes,
                **timing._asdict(),
                peak_mib=memory[name] if mode == MODES[-1] else None,
                warmup=WARMUP,
                rounds=rounds,
                **place,
                extra={
                    "backend": chosen_backend(name, config.device),
                    "edges_per_s": sizes["num_edges"] / (timing.median_ms / 1e3),
                },
            )
            rows.append(row)
    return rows


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print the rows of one graph as a table."""
    first = rows[0]
    source = "" if first["dataset"] == DATASETS[0] else f" ({first['source']})"
    title = f"epoch on {first['dataset']}{source}: {first['num_edges']:,} edges, {first['num_nodes']:,} nodes, "
    title += f"degrees {first['degrees']}, {first['M']} modalities of width {first['in_size']}, "
    title += f"{first['layers']} layers of {first['H']} x {first['D']}, {first['variant']}"
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    figures = ["median\nms", "p20\nms", "p80\nms", "peak\nMiB", "Medges\n/s", "times\nfaster", "memory\nshare"]
    baseline = {row["mode"]: row for row in rows if row["provider"] == BASELINE}
    table = make_table(["provider", "mode"], figures if baseline else figures[:-2])
    for row in rows:
        cells = [row["median_ms"], row["p20_ms"], row["p80_ms"], row["peak_mib"], row["edges_per_s"] / 1e6]
        cells += _ratios(row, baseline[row["mode"]]) if baseline else []
        table.add_row(row["provider"] if row["mode"] == MODES[0] else "", row["mode"], *map(figure, cells))
    print_table(console, table, title=title, caption=f"{first['device']}, {first['threads']} threads, {versions}")


def _ratios(row: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[float | None]:
    peak, whole = row["peak_mib"], baseline["peak_mib"]
    return [baseline["median_ms"] / row["median_ms"], peak / whole if peak is not None and whole else None]


def _configs(edges: str, options: Mapping[str, Any]) -> list[EpochConfig]:
    if options["hidden"] % options["heads"]:
        raise click.BadParameter(
            f"must be a multiple of --heads {options['heads']}, got {options['hidden']}", param_hint="--hidden"
        )
    dataset = options["dataset"]
    if dataset == DATASETS[0]:
        return [EpochConfig(edges=number, **options) for number in parse_edges(edges)]
    source = click.get_current_context().get_parameter_source
    given = [f"--{name.replace('_', '-')}" for name in SYNTHETIC_ONLY if source(name) is not ParameterSource.DEFAULT]
    if given:
        raise click.BadParameter(
            f"{dataset} brings its own graph and features; leave out {', '.join(given)}", param_hint="--dataset"
        )
    return [EpochConfig(**options)]


def _measure_all(
    configs: list[EpochConfig], names: list[str], rounds: int, console: Console
) -> Iterator[list[dict[str, Any]]]:
    forecast = Forecast(MEMORY_MARGIN)
    for config in configs:
        where = f"skipped at {config.edges:,} edges"
        fitting = forecast.fitting(names, config.edges, free_mib(config.device), console=console, where=where)
        if not fitting:
            continue
        rows = [row.flat() for row in _measure(fitting, config, rounds)]
        for row in rows:
            forecast.learn(row["provider"], config.edges, row["peak_mib"] or 0.0)
        show(console, rows)
        yield rows


@click.command(help=__doc__)
@click.option("--dataset", type=click.Choice(DATASETS), default=DATASETS[0], show_default=True)
@click.option("--edges", default="1e5", show_default=True, help="Of the synthetic graph; comma-separated.")
@click.option("--hidden", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--heads", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--layers", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--modalities", type=click.IntRange(2, 3), default=2, show_default=True)
@click.option("--degrees", type=click.Choice(DEGREES), default=DEGREES[0], show_default=True)
@click.option("--in-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--classes", type=click.IntRange(min=2), default=3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the published files.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--providers", "named", help="Comma-separated; default: all that run here.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@click.option("--peak-of", nargs=2, hidden=True)
def main(
    edges: str,
    rounds: int,
    named: str | None,
    json_path: Path | None,
    peak_of: tuple[str, str] | None,
    **options: Any,
) -> None:
    prefer_large_pages()
    if peak_of is not None:
        name, config = peak_of
        click.echo(_peak(name, EpochConfig(**json.loads(config))))
        return
    check_folder(json_path)
    check_device(options["device"])
    configs = _configs(edges, options)
    console = make_console()
    device = options["device"]
    names = choose_providers(named, PROVIDERS, lambda name: PROVIDERS[name].missing(device), console)
    try:
        _check_gate(names, configs[0])
        collect(_measure_all(configs, names, rounds, console), json_path)
    except HgmmError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
