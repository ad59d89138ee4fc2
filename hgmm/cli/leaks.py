"""The leak report of a knowledge graph, as text."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from hgmm.triples import LeakReport

__all__ = ["print_leaks"]


def print_leaks(console: Console, name: str, data_root: Path | None, *, drop: bool) -> None:
    """Load a knowledge graph and say which of its triples leak; with `drop`, also what is left without them."""
    from hgmm.datasets import load
    from hgmm.errors import DataError
    from hgmm.registry import DATASETS

    try:
        triples = load(name, root=data_root).triples
    except DataError as error:
        if name not in DATASETS:
            raise
        # The description of a data set helps before its files or its package are there.
        console.print(f"\nIts triples cannot be read yet: {error}", soft_wrap=True)
        return
    if triples is None:
        return
    report = triples.report()
    console.print(f"\nTriples: {_sizes(report)}", soft_wrap=True)
    for finding in report.leaks() or ["none is repeated, and none stands in two splits"]:
        console.print(f"  {finding}", soft_wrap=True)
    for finding in report.unseen():
        console.print(f"  {finding}", soft_wrap=True)
    if drop:
        console.print(f"Without leaks: {_sizes(triples.drop_leaks().report())}", soft_wrap=True)
    elif report.has_leaks:
        command = f"hgmm train --dataset {shlex.quote(name)} --drop-leaks"
        console.print(f"Train without the leaks: {command}", soft_wrap=True)


def _sizes(report: LeakReport) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in report.sizes.items())
