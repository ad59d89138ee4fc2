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
    near_names,
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


def test_a_long_list_gives_way_to_good_suggestions() -> None:
    known = [f"name{number}" for number in range(20)] + ["emoji"]
    assert unknown_name("dataset", "emojy", known) == "unknown dataset 'emojy'. Did you mean 'emoji'?"
    assert unknown_name("dataset", "emojy", known, listed_by="hgmm list").endswith("'emoji'? All of them: hgmm list.")
    assert "known: emoji, name0, name1, " in unknown_name("dataset", "zzz", known, listed_by="hgmm list")
    assert unknown_name("dataset", "name", known).endswith("Did you mean 'name0', 'name1' or 'name10'?")
    assert unknown_name("key", "b", ["a"], near=["x.b"]) == "unknown key 'b'; known: a. Did you mean 'x.b'?"


DATASETS = ("amazon", "amazon-1", "amazon-2", "books-lp", "cloth-copurchase", "emoji", "imdb", "movies", "reddit-m")
KEYS = ("batch_size", "epochs", "learning_rate", "patience", "scheduler_warmup", "seed", "weight_decay")
VARIANTS = ("modal2_align", "modal2_missing", "modal3_align", "poster", "sharp")


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("emojy", DATASETS, ["emoji"]),
        ("IMBD", DATASETS, ["imdb"]),
        ("amazn", DATASETS, ["amazon", "amazon-1", "amazon-2"]),
        ("amazon1", DATASETS, ["amazon-1", "amazon", "amazon-2"]),
        ("cloth", DATASETS, ["cloth-copurchase"]),
        ("reddit", DATASETS, ["reddit-m"]),
        ("mine", DATASETS, []),
        ("hgnnima", ("graph-mnl", "hgnn-ima"), ["hgnn-ima"]),
        ("GraphMNL", ("graph-mnl", "hgnn-ima"), ["graph-mnl"]),
        ("gcn", ("graph-mnl", "hgnn-ima"), []),
        ("shrp", VARIANTS, ["sharp"]),
        ("modal2", VARIANTS, ["modal2_align", "modal2_missing"]),
        ("modal3_aling", VARIANTS, ["modal3_align", "modal2_align"]),
        ("learning-rate", KEYS, ["learning_rate"]),
        ("lr", KEYS, ["learning_rate"]),
        ("warmup", KEYS, ["scheduler_warmup"]),
        ("epoch", KEYS, ["epochs"]),
        ("optimizer", KEYS, []),
        ("", KEYS, []),
        ("x", (), []),
    ],
)
def test_near_names(name: str, known: tuple[str, ...], near: list[str]) -> None:
    assert near_names(name, known) == near
