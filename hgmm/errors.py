"""Exceptions of hgmm.

Every message has three parts: where and which argument; the rule and what came instead; what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
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
    "near_names",
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


def near_names(name: object, known: Iterable[str]) -> list[str]:
    """Return the names that `name` may have been meant for, the likeliest first; at most three, often none.

    Case, hyphens and underscores do not count. A word of a name stands for it, and so do the initials of its words.

    Examples
    --------
    >>> near_names("Learning-Rat", ["learning_rate", "weight_decay"])
    ['learning_rate']
    >>> near_names("cloth", ["cloth-copurchase", "emoji", "toys"])
    ['cloth-copurchase']
    """
    typed = _letters(str(name))
    scores = {entry: _likeness(typed, entry) for entry in known}
    least = max(_LIKE, max(scores.values(), default=0.0) - _AS_LIKE)
    near = [entry for entry, score in scores.items() if score >= least]
    return sorted(near, key=lambda entry: (-scores[entry], entry))[:_SUGGESTED]


_SUGGESTED = 3
# The ratios of difflib, 2 * (equal letters) / (all letters): where a word begins to look like another, and how much
# less like it than the best suggestion a further one may be.
_LIKE = 0.65
_AS_LIKE = 0.15
_SHORTEST_PART = 4


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _likeness(typed: str, entry: str) -> float:
    words = [word.casefold() for word in re.split(r"[\W_]+", entry) if word]
    letters = "".join(words)
    if typed in {*words, "".join(word[0] for word in words)} or (len(typed) >= _SHORTEST_PART and typed in letters):
        return 1.0
    return SequenceMatcher(None, typed, letters).ratio()


def unknown_name(
    what: str, name: object, known: Iterable[str], *, near: Sequence[str] | None = None, listed_by: str = ""
) -> str:
    """Say that `name` is not one of `known`, suggest what may be meant, and list what is known.

    Parameters
    ----------
    what : str
        Singular noun, for example ``"dataset"``.
    name : object
        What was given.
    known : iterable of str
        The valid names. A long list is left out beside a suggestion.
    near : sequence of str, optional
        What to suggest, where the caller knows better than `near_names`.
    listed_by : str, optional
        The command that lists them; named where the list is left out.

    Examples
    --------
    >>> unknown_name("dataset", "emojy", ["amazon", "emoji"])
    "unknown dataset 'emojy'; known: amazon, emoji. Did you mean 'emoji'?"
    """
    names = sorted(known)
    suggested = [repr(entry) for entry in (near_names(name, names) if near is None else near)[:_SUGGESTED]]
    long = len(names) > _LISTED
    text = f"unknown {what} {name!r}"
    if not (suggested and long):
        text += f"; known: {', '.join(names) if names else 'none'}"
    if not suggested:
        return f"{text}."
    text += f". Did you mean {' or '.join(filter(None, (', '.join(suggested[:-1]), suggested[-1])))}?"
    return f"{text} All of them: {listed_by}." if long and listed_by else text


_LISTED = 12
