"""Where a YAML or JSON text breaks off, in words that need no knowledge of a parser."""

from __future__ import annotations

import json
import re

import yaml

__all__ = ["syntax_error"]

# What PyYAML says, and what is wrong for somebody who writes a list of settings; the first that fits is taken.
_RULES = (
    (
        r"mapping values are not allowed here",
        "expected one 'key: value' a line; look at the indentation here and the colon of the line before, and put a "
        "value that has a colon into quotes",
    ),
    (r"could not find expected ':'", "expected 'key: value', and there is no ': ' after the key"),
    (r"found character '\\t'", "expected blanks at the beginning of the line, got a tab"),
    (r"expected ',' or '([\]}])'", r"expected ',' or '\1'"),
    (r"found unexpected end of stream", "expected a closing quote before the end"),
    (r"but found '<block mapping start>'", "expected fewer blanks: the line is indented further than its neighbours"),
    (r"but found '<scalar>'", "expected nothing more on this line; a value with quotes inside needs others around it"),
    (r"expected <block end>", "expected a line that is indented like its neighbours"),
    (r"found undefined alias", "expected a word; one that begins with '*' must stand in quotes"),
    (r"found character '(.)' that cannot start", r"expected a word; one that begins with '\1' must stand in quotes"),
    (r"could not determine a constructor for the tag", "expected plain data, got a tag; leave out the word after '!'"),
    (r"expected the node content, but found '<stream end>'", "expected a value before the end"),
    (r"expected the node content", "expected a value"),
    (r"found unhashable key", "expected a word as key, got a list or a mapping"),
)


def syntax_error(error: yaml.YAMLError | ValueError) -> str:
    r"""Say in which line and column a text is no YAML, no JSON or no UTF-8, and what was expected there.

    Examples
    --------
    >>> try:
    ...     yaml.safe_load("train:\n  epochs: @3")
    ... except yaml.YAMLError as error:
    ...     syntax_error(error)
    "line 2, column 11: expected a word; one that begins with '@' must stand in quotes"
    """
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg.lower().replace('expecting', 'expected')}"
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        return f"line {line}, column {column}: expected UTF-8, got the byte 0x{error.object[error.start]:02x}"
    if isinstance(error, ValueError):
        return f"a value looks like a number or a date and is none ({error}); put it into quotes"
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    # A line without its colon is noticed where the next one begins.
    if getattr(error, "context", None) == "while scanning a simple key":
        mark = error.context_mark
    return f"{_place(mark)}: {_in_words(error)}"


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _in_words(error: yaml.YAMLError) -> str:
    said = str(getattr(error, "problem", error))
    words = said
    for pattern, rule in _RULES:
        match = re.search(pattern, said)
        if match:
            words = match.expand(rule)
            break
    # Brackets and quotes that are not closed are noticed far behind the place to repair.
    if re.search("flow|quoted", getattr(error, "context", None) or ""):
        words += f", for what is opened in {_place(error.context_mark)}"
    return words
