from __future__ import annotations

import pytest

from hgmm.errors import (
    BackendError,
    ConfigError,
    DataError,
    HgmmError,
    Problem,
    SchemaError,
    ShapeError,
    first_problems,
    raise_problems,
    unknown_name,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (SchemaError, ValueError),
        (ShapeError, ValueError),
        (ConfigError, ValueError),
        (BackendError, RuntimeError),
        (DataError, OSError),
    ],
)
def test_errors_are_also_their_builtin_kin(error: type[HgmmError], builtin: type[Exception]) -> None:
    assert issubclass(error, HgmmError)
    assert issubclass(error, builtin)


def test_no_problem_no_error() -> None:
    raise_problems([], where="nothing")


def test_problems_are_grouped_in_order_of_appearance() -> None:
    problems = [Problem("b", "x", "1"), Problem("a", "y", "2"), Problem("b", "z", "3")]
    with pytest.raises(ConfigError) as caught:
        raise_problems(problems, where="table", error=ConfigError, hint="do this")
    assert str(caught.value) == (
        "table: 3 problems found.\n  b (2):\n    - x: 1\n    - z: 3\n  a (1):\n    - y: 2\ndo this"
    )


def test_one_problem_is_singular() -> None:
    with pytest.raises(DataError, match=r"^here: 1 problem found\.\n  a \(1\):\n    - x: 1$"):
        raise_problems([Problem("a", "x", "1")], where="here")


def test_only_the_first_ten_are_worded_and_the_rest_counted() -> None:
    worded = []

    def word(number: int) -> tuple[str, str]:
        worded.append(number)
        return f"row {number}", "bad"

    problems = first_problems("kind", range(1000), word)
    assert worded == list(range(10))
    with pytest.raises(DataError, match=r"1000 problems found(.|\n)*row 9: bad\n    … and 990 more$"):
        raise_problems(problems, where="here")
    assert first_problems("kind", [], word) == []


def test_counts_add_up_over_sources() -> None:
    problems = [Problem("kind", f"row {number}", "bad") for number in range(12)] + [Problem("kind", "a", "b", count=5)]
    with pytest.raises(DataError, match=r"17 problems found(.|\n)*row 9: bad\n    … and 7 more$"):
        raise_problems(problems, where="here")


def test_problems_show_what_they_are() -> None:
    assert repr(Problem("kind", "where", "what")) == "Problem('kind', 'where', 'what')"


def test_unknown_names_list_the_known_and_suggest() -> None:
    assert unknown_name("model", "hgn-ima", ["hgnn-ima", "gat"]) == (
        "unknown model 'hgn-ima'; known: gat, hgnn-ima. Did you mean 'hgnn-ima'?"
    )
    assert unknown_name("model", "zzz", ["gat"]) == "unknown model 'zzz'; known: gat."
    assert unknown_name("model", None, []) == "unknown model None; known: none."
