"""Tables of what is in a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from hgmm.cli.console import make_table, print_note, print_table

if TYPE_CHECKING:
    from hgmm.graph import GraphSummary

__all__ = ["print_summary"]

_SPLITS = ("train", "val", "test")


def print_summary(console: Console, summary: GraphSummary) -> None:
    """Show node types, modality coverage, relations with degrees, classes with splits, and homophily."""
    if summary.note:
        print_note(console, summary.note, title="About the data")
    _print_nodes(console, summary)
    _print_edges(console, summary)
    if summary.target is not None:
        _print_classes(console, summary)
    if summary.homophily:
        _print_homophily(console, summary)


def _print_nodes(console: Console, summary: GraphSummary) -> None:
    numbers = ("nodes", "isolated", "width", "coverage")
    table = make_table("type", "nodes", "isolated", "modality", "kind", "width", "coverage", "from", right=numbers)
    for node in summary.nodes:
        head = (node.ntype, f"{node.count:,}", f"{node.isolated:,}")
        for modality in node.modalities:
            coverage = f"{modality.coverage_percent:.1f} %"
            table.add_row(*head, modality.name, modality.kind, f"{modality.width:,}", coverage, modality.source)
            head = ("", "", "")
    print_table(console, table, title=f"Nodes of {summary.name}")


def _print_edges(console: Console, summary: GraphSummary) -> None:
    from hgmm.graph.summary import QUANTILES

    names = ["min", *(f"{100 * share:.0f} %" for share in QUANTILES[1:-1]), "max"]
    table = make_table("relation", "edges", "degree", *names, right=("edges", *names))
    for edge in summary.edges:
        head = (" → ".join(edge.canonical_etype), f"{edge.count:,}")
        for name, degrees in (("out", edge.out_degree), ("in", edge.in_degree)):
            table.add_row(*head, name, *(f"{degree:,}" for degree in degrees))
            head = ("", "")
    print_table(console, table, title="\nRelations, with quantiles of the degrees")


def _print_classes(console: Console, summary: GraphSummary) -> None:
    numbers = ("nodes", "share", *_SPLITS)
    table = make_table("class", *numbers, right=numbers)
    labelled = sum(entry.count for entry in summary.classes)
    for entry in summary.classes:
        share = f"{100 * entry.count / labelled:.1f} %" if labelled else ""
        table.add_row(entry.name, *_thousands([entry.count]), share, *_thousands([entry.train, entry.val, entry.test]))
    sizes = [summary.splits[split] for split in _SPLITS]
    table.add_row("all", *_thousands([labelled]), "", *_thousands(sizes))
    if summary.unlabelled:
        table.add_row("without label", *_thousands([summary.unlabelled]))
    print_table(console, table, title=f"\nClasses of {summary.target}")


def _print_homophily(console: Console, summary: GraphSummary) -> None:
    table = make_table("relation", "pairs of", "pairs", "same class", right=("pairs", "same class"))
    for entry in summary.homophily:
        pairs = "connected nodes" if entry.hops == 1 else "nodes with a common neighbour"
        table.add_row(" → ".join(entry.canonical_etype), pairs, f"{entry.pairs:,}", f"{100 * entry.ratio:.1f} %")
    if summary.chance is not None:
        table.add_row("any", "nodes drawn at random", "", f"{100 * summary.chance:.1f} %")
    print_table(console, table, title="\nHomophily")


def _thousands(numbers: Sequence[int]) -> list[str]:
    return [f"{number:,}" for number in numbers]
