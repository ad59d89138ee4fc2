"""``hgmm doctor``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from hgmm.cli.console import make_console, make_table, print_table
from hgmm.diagnostics import diagnose, is_broken

__all__ = ["doctor"]

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "broken": ("broken", "bold red")}


@click.command(short_help="Show what works here, and how to repair what does not.")
@click.option("--data-root", type=click.Path(file_okay=False, path_type=Path), help="Folder of the published files.")
def doctor(data_root: Path | None) -> None:
    """Show what is installed and works, and how to repair what does not.

    The exit code is 1 if something is broken.
    """
    console = make_console()
    findings = diagnose(data_root)
    for section in dict.fromkeys(finding.section for finding in findings):
        table = make_table("", "", "")
        for finding in findings:
            if finding.section == section:
                table.add_row(Text(*_MARKS[finding.status]), finding.name, finding.value)
        print_table(console, table, title=section)
        console.print()
    if not is_broken(findings):
        console.print("Everything that hgmm needs works.", style="green")
        return
    for finding in findings:
        if finding.status == "broken":
            console.print(f"{finding.name} is broken: {finding.value}\n  {finding.fix}", style="red")
    raise SystemExit(1)
