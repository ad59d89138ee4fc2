"""Series of training runs that are compared seed by seed: what is missing is run, what is there is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

import click
from rich.progress import Progress
from scipy import stats

from benchmarks._measure import environment, write_rows
from hgmm.errors import HgmmError, unknown_name
from hgmm.training import parse_setting

__all__ = [
    "Comparison",
    "Job",
    "Rows",
    "chosen_names",
    "chosen_options",
    "chosen_seeds",
    "compare",
    "read_runs",
    "run_key",
    "run_missing",
]


class Job(Protocol):
    """One run of a series."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells runs apart: `run_key` of its row."""
        ...


def run_key(data: str, arm: str, seed: int, settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells runs apart."""
    return (data, arm, seed, json.dumps(settings, sort_keys=True))


@dataclass(frozen=True)
class Comparison:
    """Paired differences ``b - a`` of one figure over the seeds that both arms have."""

    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean difference; nan without seeds."""
        return fmean(self.differences) if self.differences else math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean; nan for less than two seeds."""
        n = len(self.differences)
        return stdev(self.differences) / math.sqrt(n) if n > 1 else math.nan

    @property
    def p_value(self) -> float:
        """Of a paired two-sided t-test; 1 if nothing differs, nan for less than two seeds."""
        if len(self.differences) > 1 and not any(self.differences):
            return 1.0
        t = self.mean / self.standard_error if self.standard_error else math.copysign(math.inf, self.mean)
        return float(2 * stats.t.sf(abs(t), len(self.differences) - 1)) if len(self.differences) > 1 else math.nan


# By data and arm, by seed the row.
Rows = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]


def compare(rows: Rows, data: str, arm: str, base: str, name: str) -> Comparison:
    """Subtract an arm's figure `name` from another's, seed by seed."""
    ours, theirs = rows.get((data, arm), {}), rows.get((data, base), {})
    return Comparison(tuple(ours[seed][name] - theirs[seed][name] for seed in sorted(ours.keys() & theirs.keys())))


def read_runs(path: Path | None) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Read the rows of earlier runs; none if there is no file.

    Raises
    ------
    click.ClickException
        Naming file and line that is no row.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    if path is None or not path.exists():
        return rows
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[run_key(row["data"], row["arm"], row["seed"], row["settings"])] = row
        except (ValueError, KeyError, TypeError) as error:
            raise click.ClickException(
                f"{path}, line {number}: expected a row of this benchmark, got {line[:60]!r} ({error}); "
                "name another file"
            ) from error
    return rows


def run_missing(
    train: Callable[[Any], dict[str, Any]], jobs: Sequence[Job], path: Path | None, workers: int
) -> Iterable[dict[str, Any]]:
    """Return the rows of all jobs; those that `path` lacks are trained in other processes and written one by one."""
    done = read_runs(path)
    missing = [job for job in jobs if job.key not in done]
    place = environment()
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, Progress(transient=True) as progress:
        bar = progress.add_task("runs", total=len(missing))
        futures = {pool.submit(train, job): job for job in missing}
        try:
            for future in as_completed(futures):
                done[futures[future].key] = {**future.result(), **place, "threads": 1}
                progress.advance(bar)
                if path is not None:
                    write_rows(path, done.values())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [done[job.key] for job in jobs]


def chosen_names(text: str | None, known: Iterable[str], what: str) -> list[str]:
    """Return the names of a comma-separated list, or all that are known."""
    names = list(known) if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise click.BadParameter(unknown_name(what, name, known), param_hint=f"--{what}")
    return names


def chosen_seeds(text: str) -> range:
    """Return the seeds ``FIRST-LAST``."""
    first, _, last = text.partition("-")
    try:
        seeds = range(int(first), int(last or first) + 1)
    except ValueError:
        seeds = range(0)
    if not seeds:
        raise click.BadParameter(f"expected FIRST-LAST, for example 5-14, got {text!r}", param_hint="--seeds")
    return seeds


def chosen_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the settings ``KEY=VALUE``."""
    try:
        return dict(map(parse_setting, pairs))
    except HgmmError as error:
        raise click.BadParameter(str(error), param_hint="--set") from error
