"""``hgmm doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from hgmm.cli.console import make_console, print_entries
from hgmm.diagnostics import diagnose, is_broken

__all__ = ["doctor"]

_STYLES = {"ok": "green", "note": "yellow", "broken": "bold red"}


@click.command(short_help="Show what works here, and how to repair what does not.")
@click.option("--data-root", type=click.Path(file_okay=False, path_type=Path), help="Folder of the published files.")
def doctor(data_root: Path | None) -> None:
    """Show what is installed and works, and how to repair what does not.

    The exit code is 1 if something is broken.
    """
    console = make_console()
    findings = diagnose(data_root)
    for section in dict.fromkeys(finding.section for finding in findings):
        rows = [(entry.status, entry.name, entry.value) for entry in findings if entry.section == section]
        print_entries(console, rows, title=section, styles=_STYLES)
        console.print()
    if not is_broken(findings):
        console.print("Everything that hgmm needs works.", style="green")
        return
    for finding in findings:
        if finding.status == "broken":
            console.print(f"{finding.name} is broken: {finding.value}\n  {finding.fix}", style="red")
    raise SystemExit(1)
