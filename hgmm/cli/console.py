"""What all commands share when they write to the terminal."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = [
    "can_redraw",
    "format_score",
    "make_console",
    "make_table",
    "natural_width",
    "print_entries",
    "print_note",
    "print_table",
    "print_text",
    "waiting",
]

_LOG_WIDTH = 160
_UNBOUNDED = 10_000
_TEXT_WIDTH = 80
_LEAST_TEXT = 24
_GAP = 2


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that neither colours numbers by itself nor reads markup out of the user's names."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # A log or a pipe has no width; Rich would take 80 and fold paths and names.
        console.width = _LOG_WIDTH
    return console


def can_redraw(console: Console) -> bool:
    """Say whether what is on the screen can be drawn anew in place."""
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Say on a terminal what is being waited for, until it is done; a log needs no such line."""
    if not can_redraw(console):
        yield
        return
    with console.status(f"{what} …"):
        yield


def make_table(*columns: str, right: tuple[str, ...] = (), whole: tuple[str, ...] = ()) -> Table:
    """Return an empty table; the columns named in `right` hold numbers, those in `whole` are the last to be folded."""
    table = Table(show_header=any(columns), header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in whole
        )
    return table


def natural_width(console: Console, table: Table) -> int:
    """Return the columns that a table takes if nothing in it is folded."""
    return console.measure(table, options=console.options.update(max_width=_UNBOUNDED)).maximum


def print_table(console: Console, table: Table, *, title: str = "") -> None:
    """Show a table below its title; a title that is part of the table would be folded to its width."""
    if title:
        console.print(title, style="bold")
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    # Rich fills every line up to the table's width, which a log keeps and a comparison of two logs shows.
    for line in captured.get().splitlines():
        console.print(line.rstrip(), soft_wrap=True)


def print_entries(
    console: Console, rows: Sequence[tuple[str, ...]], *, title: str = "", styles: Mapping[str, str] | None = None
) -> None:
    """Show rows in columns, the last of which is text that goes on below itself, with all its words whole.

    Parameters
    ----------
    console : Console
        Where to write; 80 columns of it, or the width of a terminal.
    rows : sequence of tuple of str
        Equally many cells each.
    title : str, optional
        Goes above.
    styles : mapping of str to str, optional
        How to show a first cell of this text.
    """
    if title:
        console.print(title, style="bold")
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(widths) + _GAP * len(widths)
    room = max(_LEAST_TEXT, (console.width if console.is_terminal else _TEXT_WIDTH) - indent)
    for *cells, text in rows:
        head = "".join(cell.ljust(width + _GAP) for cell, width in zip(cells, widths, strict=True))
        # A path or an address that is broken cannot be copied.
        first, *more = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        line = Text(head + first)
        line.stylize((styles or {}).get(cells[0], ""), 0, len(cells[0]))
        console.print(line, soft_wrap=True)
        for rest in more:
            console.print(Text(" " * indent + rest), soft_wrap=True)


def print_text(console: Console, text: str) -> None:
    """Show a paragraph as wide as `print_entries`."""
    width = console.width if console.is_terminal else _TEXT_WIDTH
    console.print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False), soft_wrap=True)


def print_note(console: Console, text: str, *, title: str) -> None:
    """Show a sentence that the reader of the following results must not miss."""
    console.print(Panel(text, title=title, title_align="left", border_style="yellow", expand=False))


def format_score(value: float | None, std: float | None = None) -> str:
    """Write a score with four digits after the point, and its standard deviation over runs if there is one.

    Examples
    --------
    >>> format_score(0.87651, 0.0042)
    '0.8765 ± 0.0042'
    >>> format_score(None)
    '-'
    """
    if value is None:
        return "-"
    return f"{value:.4f}" if std is None else f"{value:.4f} ± {std:.4f}"
