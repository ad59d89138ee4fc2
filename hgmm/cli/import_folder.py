"""``hgmm import``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from hgmm.cli.console import make_console
from hgmm.cli.summary import print_summary

__all__ = ["import_folder"]


@click.command("import", short_help="Make a graph of your own tables.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Graph folder to write.")
def import_folder(folder: Path, output: Path) -> None:
    """Check the tables in FOLDER, make a graph of them, and show what is in it.

    FOLDER holds a graph.yaml, or the files of a knowledge graph. All problems are listed at once, and nothing is
    written if there are any. Train on the result with: hgmm train --dataset ./OUTPUT
    """
    from hgmm.datasets import load
    from hgmm.graph import save_graph, summarize

    graph = load(folder)
    save_graph(graph, output)
    console = make_console()
    print_summary(console, summarize(graph))
    console.print(f"\nSaved in {output}. Next: hgmm train --dataset {shlex.quote(_as_folder(output))}", soft_wrap=True)


def _as_folder(path: Path) -> str:
    """Write a path so that ``--dataset`` takes it for a folder, not for a name."""
    return str(path) if len(path.parts) > 1 else f"./{path}"
