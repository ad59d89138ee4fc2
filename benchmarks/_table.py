"""Tables that fit into 80 columns with every figure whole."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

__all__ = ["figure", "make_console", "make_table", "print_table"]


def figure(value: float | None) -> str:
    """Return three digits, or all that are before the point; nothing for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"


def make_console() -> Console:
    """Return a console that takes brackets for what they are."""
    return Console(highlight=False, markup=False, emoji=False)


def make_table(names: Sequence[str], figures: Sequence[str]) -> Table:
    """Return an empty table of columns with `names`, to the left, and `figures`, to the right.

    A line break in a header makes a narrow column of a long one.
    """
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for header in names:
        table.add_column(header, no_wrap=True)
    for header in figures:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def print_table(console: Console, table: Table, *, title: str, caption: str) -> None:
    """Show a table between two lines, which as part of it would be folded to its width."""
    console.print(title, style="bold")
    console.print(table)
    console.print(caption, style="dim")
    console.print()
