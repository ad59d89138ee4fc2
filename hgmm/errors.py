"""Exceptions of hgmm.

Every message has three parts: where and which argument; the rule and what came instead; what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TypeVar

__all__ = [
    "SHOWN_PER_KIND",
    "BackendError",
    "ConfigError",
    "DataError",
    "HgmmError",
    "Problem",
    "SchemaError",
    "ShapeError",
    "first_problems",
    "raise_problems",
    "unknown_name",
]

T = TypeVar("T")

SHOWN_PER_KIND = 10
"""Findings of one kind that a message spells out; a caller need not word more than these."""


class HgmmError(Exception):
    """Base class of every error that hgmm raises on purpose."""


class SchemaError(HgmmError, ValueError):
    """A graph, its modalities or its types do not fit the schema."""


class ShapeError(HgmmError, ValueError):
    """A tensor has the wrong shape, dtype or device."""


class ConfigError(HgmmError, ValueError):
    """An option is unknown, out of range, or does not fit the others."""


class BackendError(HgmmError, RuntimeError):
    """No kernel implementation, or not the requested one, can run the given input."""


class DataError(HgmmError, OSError):
    """A file is missing, unreadable, or its content breaks the rules of its format."""


class Problem:
    """One finding of a validation that collects all findings before it raises.

    Parameters
    ----------
    kind : str
        What rule is broken, for example ``"unknown id"``; findings are grouped by it.
    where : str
        File and row, or node type and column, for example ``"buys.csv row 7"``.
    what : str
        The offending value and, where it helps, what to do.
    count : int, optional
        How many findings this one stands for: 1, or more if the caller does not spell out the others of its kind.
    """

    __slots__ = ("count", "kind", "what", "where")

    def __init__(self, kind: str, where: str, what: str, *, count: int = 1) -> None:
        self.kind = kind
        self.where = where
        self.what = what
        self.count = count

    def __repr__(self) -> str:
        return f"Problem({self.kind!r}, {self.where!r}, {self.what!r})"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def first_problems(kind: str, findings: Sequence[T], word: Callable[[T], tuple[str, str]]) -> list[Problem]:
    """Word the first findings of a kind and count the rest, so that a million bad cells cost no million strings.

    Parameters
    ----------
    kind : str
        Kind of the problems.
    findings : sequence
        All findings.
    word : callable
        Turns a finding into (where, what).

    Returns
    -------
    list of Problem
        At most ten; the last one counts for all that follow it.
    """
    shown = [Problem(kind, *word(finding)) for finding in findings[:SHOWN_PER_KIND]]
    if shown:
        shown[-1].count += len(findings) - len(shown)
    return shown


def raise_problems(
    problems: Iterable[Problem],
    *,
    where: str,
    error: type[HgmmError] = DataError,
    hint: str = "",
) -> None:
    """Raise one error that lists all problems, grouped by kind; return quietly if there are none.

    Parameters
    ----------
    problems : iterable of Problem
        The findings, in the order in which they shall be shown.
    where : str
        What was checked; opens the message.
    error : type, optional
        The class to raise. Default: `DataError`.
    hint : str, optional
        What the user can do; closes the message.

    Raises
    ------
    HgmmError
        Of class `error`, if `problems` is not empty. At most ten findings of each kind are shown.
    """
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    if not groups:
        return
    totals = {kind: sum(problem.count for problem in found) for kind, found in groups.items()}
    total = sum(totals.values())
    lines = [f"{where}: {total} problem{'s' if total != 1 else ''} found."]
    for kind, found in groups.items():
        lines.append(f"  {kind} ({totals[kind]}):")
        lines += [f"    - {problem}" for problem in found[:SHOWN_PER_KIND]]
        hidden = totals[kind] - min(len(found), SHOWN_PER_KIND)
        if hidden:
            lines.append(f"    … and {hidden} more")
    if hint:
        lines.append(hint)
    raise error("\n".join(lines))


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Say that `name` is not one of `known`, list these, and suggest the nearest.

    Examples
    --------
    >>> unknown_name("dataset", "emojy", ["amazon", "emoji"])
    "unknown dataset 'emojy'; known: amazon, emoji. Did you mean 'emoji'?"
    """
    names = sorted(known)
    text = f"unknown {what} {name!r}; known: {', '.join(names) if names else 'none'}."
    near = get_close_matches(str(name), names, n=1)
    return f"{text} Did you mean {near[0]!r}?" if near else text
