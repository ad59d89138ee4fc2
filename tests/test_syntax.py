from __future__ import annotations

import json

import pytest
import yaml

from hgmm.syntax import syntax_error

YAML = [
    ("a: b: c", "line 1, column 5: expected one 'key: value' a line"),
    ("a: 1\nb\nc: 2", "line 2, column 1: expected 'key: value', and there is no ': ' after the key"),
    ("a:\n\tb: 3", "line 2, column 1: expected blanks at the beginning of the line, got a tab"),
    ("a: [1, 2\nb: 3", "line 2, column 2: expected ',' or ']', for what is opened in line 1, column 4"),
    ("a: {b: 1", "line 1, column 9: expected ',' or '}', for what is opened in line 1, column 4"),
    (
        "a: 'b\nc: 2",
        "line 2, column 5: expected a closing quote before the end, for what is opened in line 1, column 4",
    ),
    ("a:\n  b: 2\n c: 3", "line 3, column 2: expected fewer blanks"),
    ("a: 'b' c", "line 1, column 8: expected nothing more on this line"),
    ("- a\nb: 2", "line 2, column 1: expected a line that is indented like its neighbours"),
    ("a: *x", "line 1, column 4: expected a word; one that begins with '*' must stand in quotes"),
    ("a: @x", "line 1, column 4: expected a word; one that begins with '@' must stand in quotes"),
    ("a: !b c", "line 1, column 4: expected plain data, got a tag"),
    ("a: [", "line 1, column 5: expected a value before the end"),
    ("a: [,", "line 1, column 5: expected a value, for what"),
    ("? [a]: 1", "line 1, column 3: expected a word as key"),
    ('a: "\\q"', "line 1, column 6: found unknown escape character 'q'"),
    ("a: \x00", 'unacceptable character #x0000: special characters are not allowed in "<unicode string>", position 3'),
    ("a: 2001-99-99", "a value looks like a number or a date and is none (month must be in 1..12); put it into quotes"),
]


@pytest.mark.parametrize(("text", "words"), YAML)
def test_yaml_says_where_and_what_was_expected(text: str, words: str) -> None:
    with pytest.raises((yaml.YAMLError, ValueError)) as caught:
        yaml.safe_load(text)
    said = syntax_error(caught.value)
    assert said.startswith(words)
    assert "\n" not in said


def test_json_says_where() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads('{"a": 1,\n "b" 2}')
    assert syntax_error(caught.value) == "line 2, column 6: expected ':' delimiter"


def test_bytes_that_are_no_text_are_counted_in_their_line() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"a: 1\nb: \xe4".decode()
    assert syntax_error(caught.value) == "line 2, column 4: expected UTF-8, got the byte 0xe4"
