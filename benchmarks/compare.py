"""Compare two files of rows that `benchmarks.run` has written: the ratio of medians, case by case.

python -m benchmarks.compare before.jsonl after.jsonl
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

__all__ = ["KEY", "main", "ratios", "read_rows"]

KEY = ("op", "provider", "mode", "dtype", "num_edges", "degrees", "M", "H", "D", "combine", "masked")


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
                f"{path}, line {number}: expected a row of benchmarks.run with median_ms, got {line[:60]!r} ({error})"
            ) from error
    return rows


def ratios(before: Path, after: Path) -> dict[tuple[Any, ...], float]:
    """Return the time after over the time before, for the cases that both files have."""
    old, new = read_rows(before), read_rows(after)
    return {key: new[key]["median_ms"] / old[key]["median_ms"] for key in old if key in new}


@click.command(help=__doc__)
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--fail-above", type=float, help="Exit with 1 if any case takes more than this times as long.")
def main(before: Path, after: Path, fail_above: float | None) -> None:
    found = ratios(before, after)
    if not found:
        raise click.ClickException(f"{before} and {after} have no case in common; compare runs of the same sizes")
    table = Table(title="time after / time before")
    for name in KEY[:-2]:
        table.add_column(name, no_wrap=True)
    table.add_column("ratio", justify="right")
    for key, ratio in sorted(found.items(), key=lambda item: item[1]):
        table.add_row(*map(str, key[:-2]), f"{ratio:.3f}")
    console = Console()
    console.print(table)
    mean = math.exp(sum(map(math.log, found.values())) / len(found))
    console.print(f"{len(found)} cases, geometric mean {mean:.3f}, worst {max(found.values()):.3f}")
    if fail_above is not None and max(found.values()) > fail_above:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
