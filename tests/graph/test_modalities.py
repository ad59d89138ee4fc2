from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hgmm.errors import Problem
from hgmm.graph.encoders import VectorCache
from hgmm.graph.modalities import MAX_CATEGORIES, NodeRows, make_features
from hgmm.graph.modality_source import ModalitySource, parse_modality
from hgmm.graph.tables import Table
from hgmm.graph.transforms import CategoricalTransform, EncoderTransform, NumericTransform, Transform


def parse(given: Any, name: str = "numeric") -> tuple[ModalitySource | None, list[str]]:
    problems: list[Problem] = []
    return parse_modality(name, given, "m", encoder="builtin", problems=problems), list(map(str, problems))


def make(
    given: Any, frame: pd.DataFrame, root: Path, name: str = "numeric", fitted: Transform | None = None
) -> tuple[Any, list[str]]:
    source, problems = parse(given, name)
    assert source is not None, problems
    ids = np.array([str(number) for number in range(len(frame))], dtype=object)
    rows = NodeRows(Table(frame, "t"), ids, np.ones(len(frame), dtype=bool), root, VectorCache(root / "cache"))
    found: list[Problem] = []
    return make_features(source, rows, fitted, problems=found), list(map(str, found))


@pytest.mark.parametrize(
    ("given", "columns"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ({"column": "a"}, ("a",)), ({"columns": ["a"]}, ("a",))],
)
def test_ways_to_say_columns(given: Any, columns: tuple[str, ...]) -> None:
    source, problems = parse(given)
    assert source == ModalitySource("numeric", "m", "numeric", columns)
    assert not problems


def test_the_kind_is_the_name_if_that_is_one() -> None:
    assert parse({"file": "a.npy"}, "image")[0] == ModalitySource("image", "m", "image", file="a.npy")
    assert parse({"file": "a.npy"}, "audio")[0] == ModalitySource("audio", "m", "other", file="a.npy")
    assert parse({"column": "a", "kind": "text"}, "title")[0] == ModalitySource("title", "m", "text", ("a",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "m: expected a column, a list of columns, a matrix or a mapping, got 7"),
        ([], "m: expected a column, a list of columns, a matrix or a mapping, got []"),
        ({"columns": []}, "m: give one of column, columns, file, array; found none"),
        ({"column": ""}, "m: give one of column, columns, file, array; found none"),
        ({}, "m: give one of column, columns, file, array; found none"),
        ({"column": "a", "file": "b"}, "m: give one of column, columns, file, array; found column and file"),
        (
            {"colum": "a"},
            "m: unknown key 'colum'; known: array, column, columns, encoder, file, ids, key, kind, missing, width",
        ),
        ({"column": 5}, "m: expected a word under `column`, got 5"),
        ({"columns": ["a", 5]}, "m: expected a list of columns, got ['a', 5]"),
        ({"column": "a", "kind": "sound"}, "m: unknown kind 'sound'; known: categorical, image, numeric"),
        ({"column": "a", "missing": "zero"}, "m: unknown value of `missing` 'zero'; known: absent, mean"),
        ({"column": "a", "width": 8}, "m: `width` has no meaning for numeric columns; leave it out"),
        ({"column": "a", "ids": "b"}, "m: `ids` has no meaning for numeric columns; leave it out"),
        ({"file": "a", "encoder": "b"}, "m: `encoder` has no meaning for a matrix; leave it out"),
        (
            {"column": "a", "kind": "text", "missing": "mean"},
            "m: `missing` has no meaning for text columns; leave it out",
        ),
    ],
)
def test_declarations_that_are_wrong(given: Any, message: str) -> None:
    source, problems = parse(given)
    assert source is None
    assert any(problem.startswith(message) for problem in problems), problems


def test_columns_of_an_unknown_kind() -> None:
    message = "m: say what its columns hold with `kind:` numeric, categorical, text, image; found 'other'"
    assert parse("a", "audio") == (None, [message])


def test_several_text_columns_are_joined(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["red", "red shoe", ""], "b": ["shoe", "", None], "c": ["red shoe"] * 3})
    made, problems = make(["a", "b"], frame, tmp_path, "text")
    one, _ = make("c", frame, tmp_path, "text")
    assert not problems
    np.testing.assert_array_equal(made[0].values[:2], one[0].values[:2])
    assert made[0].present.tolist() == [True, True, False]
    assert not made[0].values[2].any()


def test_the_hash_size_is_recorded_and_used_again(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["red", "blue"]})
    (features, transform), _ = make({"column": "a", "width": 16}, frame, tmp_path, "text")
    assert features.values.shape == (2, 16)
    (again, _), problems = make("a", frame, tmp_path, "text", transform)
    assert not problems
    np.testing.assert_array_equal(again.values, features.values)


def test_another_revision_than_the_trained_one(tmp_path: Path) -> None:
    old = EncoderTransform("text", ("a",), "builtin", "0", 256)
    made, problems = make("a", pd.DataFrame({"a": ["x"]}), tmp_path, "text", old)
    assert made is None
    assert problems == ["m: the model was trained on 'builtin' revision 0, here is 1"]


@pytest.mark.parametrize(
    ("given", "name", "frame", "message"),
    [
        (
            {"columns": ["a", "b"]},
            "image",
            {"a": ["x"], "b": ["y"]},
            "m: an image modality has one column of paths, got 2: a, b",
        ),
        ("a", "text", {"a": ["", " "]}, "m: no node has it; fill it or leave it out"),
        ("a", "categorical", {"a": ["", ""]}, "m: no node has it; fill it or leave it out"),
        ("a", "numeric", {"a": [None, None]}, "m: columns without a single number: a; leave them out"),
        (
            {"column": "a", "width": 3},
            "text",
            {"a": ["x"]},
            "m: HashedNgrams width: must be a whole number of at least 8, got 3",
        ),
        (
            {"column": "a", "width": 3},
            "image",
            {"a": ["x"]},
            "m: encoder 'builtin' width: its vectors have 256 numbers, got 3",
        ),
        ({"file": "none.npy"}, "image", {"a": ["x"]}, "none.npy: there is no such file"),
        (
            {"file": "two.npy"},
            "image",
            {"a": ["x"]},
            "two.npy: 2 rows for 1 nodes; name the file of their ids with `ids:`",
        ),
        ({"file": "two.npy", "ids": "ids.txt"}, "image", {"a": ["x"]}, "ids.txt: 1 ids for the 2 rows of two.npy"),
    ],
)
def test_content_that_is_wrong(tmp_path: Path, given: Any, name: str, frame: dict[str, Any], message: str) -> None:
    np.save(tmp_path / "two.npy", np.zeros((2, 2)))
    (tmp_path / "ids.txt").write_text("0\n")
    made, problems = make(given, pd.DataFrame(frame), tmp_path, name)
    assert made is None
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_too_many_categories(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [str(number) for number in range(MAX_CATEGORIES + 1)]})
    made, problems = make("a", frame, tmp_path, "categorical")
    assert made is None
    assert problems == ["m: column 'a' has 1001 categories, at most 1000 do; use `kind: text`"]


def test_a_matrix_without_ids_has_a_row_for_each_node(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.array([[1.0], [2.0]]))
    (features, transform), problems = make({"file": "two.npy"}, pd.DataFrame({"a": ["x", "y"]}), tmp_path, "image")
    assert not problems
    assert features.values.tolist() == [[1], [2]]
    assert features.present.all()
    assert transform.to_dict() == {"type": "matrix", "width": 1, "mean": []}


@pytest.mark.parametrize(
    ("given", "fitted", "found"),
    [
        ({"column": "a", "kind": "numeric"}, EncoderTransform("text", ("a",), "builtin", "1", 256), "EncoderTransform"),
        ({"column": "a", "kind": "categorical"}, NumericTransform(("a",), (0.0,), (1.0,)), "NumericTransform"),
        ({"column": "a", "kind": "text"}, CategoricalTransform(("a",), (("x",),)), "CategoricalTransform"),
        ({"column": "a", "kind": "image"}, EncoderTransform("text", ("a",), "builtin", "1", 256), "EncoderTransform"),
        ({"file": "one.npy"}, NumericTransform((), (), ()), "NumericTransform"),
    ],
)
def test_another_kind_of_transform_than_the_trained_one(
    tmp_path: Path, given: Any, fitted: Transform, found: str
) -> None:
    np.save(tmp_path / "one.npy", np.ones((1, 1)))
    made, problems = make(given, pd.DataFrame({"a": ["1"]}), tmp_path, "x", fitted)
    assert made is None
    assert len(problems) == 1
    assert problems[0].startswith(f"m: the trained model has a {found} here, which does not fit")


@pytest.mark.parametrize("kind", ["numeric", "categorical", "text", "image"])
def test_missing_columns(tmp_path: Path, kind: str) -> None:
    made, problems = make({"column": "b", "kind": kind}, pd.DataFrame({"a": ["1"]}), tmp_path, "x")
    assert made is None
    assert problems == ["t: unknown column 'b'; known: a."]
