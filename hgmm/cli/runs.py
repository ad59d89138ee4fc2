"""``hgmm runs``."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from hgmm.cli.console import format_score, make_console, make_table, natural_width, print_table
from hgmm.errors import DataError

__all__ = ["runs"]


_DEFAULT = Path("runs")


def _warn(error: DataError) -> None:
    click.secho("Warning: ", fg="yellow", bold=True, nl=False, err=True)
    click.echo(f"left out: {error}", err=True)


@click.command(short_help="List past runs.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)
def runs(folder: Path | None) -> None:
    """Show the runs whose folders lie in FOLDER (default: runs).

    A run whose record is broken is named and left out.
    """
    from hgmm.cli.results import METRICS, data_words
    from hgmm.training import list_runs

    console = make_console()
    # Before the first run there is no folder yet, which is no mistake of whoever has named none.
    known = folder is not None or _DEFAULT.is_dir()
    folder = folder or _DEFAULT
    found = list_runs(folder, on_broken=_warn) if known else []
    if not found:
        console.print(f"There are no runs in {folder}. Start one with: hgmm train", soft_wrap=True)
        return
    figures = ["micro_f1", "macro_f1", *(["mrr"] if any("mrr" in record.test for _, record in found) else [])]
    scores = tuple(METRICS[key] for key in figures)
    columns = ("run", "data", "variant", "seeds", *scores, "status")
    # A name that is folded cannot be copied into the next command.
    table = make_table(*columns, right=("seeds", *scores), whole=("run", *scores))
    rows = []
    for path, record in found:
        std = record.test_std or {}
        rows.append(
            (
                path.name,
                f"{record.dataset} ({data_words(record.data)})" if record.data else record.dataset,
                record.variant or record.model,
                str(len(record.runs) if record.runs else 1),
                *(format_score(record.test.get(key), std.get(key)) for key in figures),
                record.status,
            )
        )
        table.add_row(*rows[-1])
    if natural_width(console, table) <= console.width:
        print_table(console, table)
        return
    # Whole names and scores leave the other columns of a narrow terminal a letter a line.
    for name, *values in rows:
        console.print(name, style="bold", soft_wrap=True)
        words = ", ".join(f"{column} {value}" for column, value in zip(columns[1:], values, strict=True))
        folded = textwrap.fill(words, console.width - 2, break_on_hyphens=False)
        console.print(textwrap.indent(folded, "  "), soft_wrap=True)
