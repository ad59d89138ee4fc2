"""Compare two files of rows of `benchmarks.run` or `benchmarks.epoch`: the ratio of medians, case by case.

python -m benchmarks.compare before.jsonl after.jsonl
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks._table import make_console, make_table, print_table

__all__ = ["KEY", "main", "ratios", "read_rows"]

KEY: tuple[str, ...] = ("op", "provider", "mode", "dtype", "num_edges", "degrees", "M", "H", "D", "combine", "masked")
# What `benchmarks.epoch` varies besides.
KEY += ("dataset", "source", "variant", "layers", "in_size", "classes", "seed")


def read_rows(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Read JSON Lines; of several rows of one case the last counts.

    Raises
    ------
    click.ClickException
        Naming file and line that is no row.
    """
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[tuple(row.get(key) for key in KEY)] = {"median_ms": float(row["median_ms"]), **row}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise click.ClickException(
                f"{path}, line {number}: expected a row of a benchmark with median_ms, got {line[:60]!r} ({error})"
            ) from error
    return rows


def ratios(before: Path, after: Path) -> dict[tuple[Any, ...], float]:
    """Return the time after over the time before, for the cases that both files have."""
    old, new = read_rows(before), read_rows(after)
    return {key: new[key]["median_ms"] / old[key]["median_ms"] for key in old if key in new}


def _show(console: Console, found: dict[tuple[Any, ...], float]) -> None:
    """Show the ratios by what differs between the cases, and what all have in common."""
    columns = dict(zip(KEY, zip(*found, strict=True), strict=True))
    # A provider has one dtype.
    varied = [name for name in KEY if len(set(columns[name])) > 1 and name != "dtype"]
    same = [
        f"{name} {values[0]}" for name, values in columns.items() if len(set(values)) == 1 and values[0] is not None
    ]
    table = make_table(varied, ["ratio"])
    for key, ratio in sorted(found.items(), key=lambda item: item[1]):
        case = dict(zip(KEY, key, strict=True))
        table.add_row(*(str(case[name]) for name in varied), f"{ratio:.3f}")
    print_table(console, table, title="time after / time before", caption=", ".join(same))


@click.command(help=__doc__)
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--fail-above", type=float, help="Exit with 1 if any case takes more than this times as long.")
def main(before: Path, after: Path, fail_above: float | None) -> None:
    found = ratios(before, after)
    if not found:
        raise click.ClickException(f"{before} and {after} have no case in common; compare runs of the same sizes")
    console = make_console()
    _show(console, found)
    mean = math.exp(sum(map(math.log, found.values())) / len(found))
    console.print(f"{len(found)} cases, geometric mean {mean:.3f}, worst {max(found.values()):.3f}")
    if fail_above is not None and max(found.values()) > fail_above:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
