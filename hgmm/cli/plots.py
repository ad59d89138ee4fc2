"""Curves of what was trained, put into the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from hgmm.training import RunRecord

__all__ = ["FOLDER", "leave_plots"]

FOLDER = "plots"


def leave_plots(console: Console, record: RunRecord, run_dir: Path) -> None:
    """Draw the curves of a run, or of each of several, into its folder, and say where they are or what is missing."""
    from hgmm.files import write_bytes
    from hgmm.report import draw_plots, plots_installed
    from hgmm.training import RunRecord

    if not plots_installed():
        console.print("plots: none, for matplotlib is not installed (pip install 'hgmm[plots]')", soft_wrap=True)
        return
    folders = [run_dir / entry["path"] for entry in record.runs] if record.runs else [run_dir]
    for folder in folders:
        for name, content in draw_plots(RunRecord.load(folder)).items():
            write_bytes(folder / FOLDER / name, content)
    console.print(f"plots: {', '.join(str(folder / FOLDER) for folder in folders)}", soft_wrap=True)
