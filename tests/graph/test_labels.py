from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hgmm.errors import Problem
from hgmm.graph.labels import read_labels, read_split, stratified_split
from hgmm.graph.tables import Table

IDS = np.array(["a", "b", "c", "d"], dtype=object)
TABLE = Table(
    pd.DataFrame({"label": ["x", "y", "", "x"], "split": ["train", "VAL", None, "test"], "bad": ["tain", "", "", ""]}),
    "t",
)


def labels_of(given: Any, classes: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    problems: list[Problem] = []
    return read_labels(given, TABLE, IDS, Path(), classes=classes, problems=problems), list(map(str, problems))


def split_of(given: Any) -> tuple[dict[str, list[int]], list[str]]:
    problems: list[Problem] = []
    masks = read_split(given, np.array([0, 1, -1, 0]), TABLE, IDS, Path(), problems=problems)
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}, list(map(str, problems))


def test_labels_from_a_column() -> None:
    (labels, classes), problems = labels_of("label")
    assert labels.tolist() == [0, 1, -1, 0]
    assert classes == ("x", "y")
    assert not problems


def test_classes_of_an_earlier_run_keep_their_order() -> None:
    (labels, classes), problems = labels_of("label", ("z", "y", "x"))
    assert labels.tolist() == [2, 1, -1, 2]
    assert classes == ("z", "y", "x")
    assert not problems


def test_labels_from_a_table_of_their_own() -> None:
    frame = pd.DataFrame({"who": ["d", "a"], "what": [1, 2]})
    (labels, classes), problems = labels_of({"table": frame, "id": "who", "column": "what"})
    assert labels.tolist() == [1, -1, -1, 0]
    assert classes == ("1", "2")
    assert not problems


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "label of t: expected a column or a mapping with column, id, table; got 3"),
        ({"table": 3, "id": "a", "column": "b"}, "label of t: expected a file under `table`, got 3"),
        ({"table": "no.csv", "id": "a", "column": "b"}, "no.csv: there is no such file in ."),
        (
            {"table": TABLE.frame, "id": "a", "column": "label"},
            "label of t: unknown column 'a'; known: bad, label, split.",
        ),
        ("bad", "t label: found 1 class: tain; it takes two"),
    ],
)
def test_labels_that_cannot_be_read(given: Any, message: str) -> None:
    assert message in labels_of(given)[1]


def test_an_unknown_key_beside_the_label_table() -> None:
    frame = pd.DataFrame({"who": ["d", "a"], "what": [1, 2]})
    problems = labels_of({"table": frame, "id": "who", "column": "what", "sep": ";"})[1]
    assert problems == ["label of t: unknown key 'sep'; known: column, id, table."]


def test_splits_from_a_column() -> None:
    assert split_of("split") == ({"train": [0], "val": [1], "test": [3]}, [])


def test_splits_from_lists() -> None:
    assert split_of({"train": ["a"], "val": np.array(["b"]), "test": ["d"]})[0] == {
        "train": [0],
        "val": [1],
        "test": [3],
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("bad", "t row 0: unknown split 'tain'; known: test, train, val, valid, validation. Did you mean 'train'?"),
        ("none", "t: unknown column 'none'; known: bad, label, split."),
        (0.5, "split of t: expected a column, fractions, or lists of ids for train, val, test; got 0.5"),
        ({"train": 1.5}, "split of t: train is 1.5; a fraction lies between 0 and 1"),
        (
            {"train": 0.5, "valid": 0.5},
            "split of t: unknown key 'valid'; known: seed, test, train, val. Did you mean 'val'?",
        ),
        ({"train": 0.5, "seed": -1}, "split of t: seed is -1; it must be a whole number of at least 0"),
        ({"seed": 3}, "split of t: every fraction is 0; give one for train and val and test"),
        ({"train": 0.75, "test": 0.5}, "split of t: the fractions add up to 1.25; together they are at most 1"),
        ({"train": ["a"], "dev": ["b"]}, "split of t: unknown split 'dev'; known: test, train, val."),
        (
            {"train": ["a"], "val": 0.5},
            "split 'val' of t: expected a file or a list of ids, got 0.5; fractions and lists do not mix",
        ),
        ({"train": ["z"]}, "split 'train' of t row 1: 'z' is no id of t"),
        ({"train": ["a"], "test": ["a"]}, "t row 0: id 'a' is in train and in test"),
        ({"train": ["c"]}, "t row 2: id 'c' is in train and has no label"),
    ],
)
def test_splits_that_cannot_be_read(given: Any, message: str) -> None:
    assert message in split_of(given)[1]


def test_a_stratified_split_has_the_same_shares_in_every_class() -> None:
    labels = np.repeat([0, 1, 2, -1], [100, 50, 10, 40])
    masks = stratified_split(labels, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=3)
    counts = {name: np.bincount(labels[mask], minlength=3).tolist() for name, mask in masks.items()}
    assert counts == {"train": [60, 30, 6], "val": [20, 10, 2], "test": [20, 10, 2]}
    assert (sum(mask.astype(int) for mask in masks.values()) == (labels >= 0)).all()


def test_a_stratified_split_follows_its_seed() -> None:
    labels = np.arange(60) % 3
    one, same, other = (stratified_split(labels, {"train": 0.5, "test": 0.5}, seed=seed)["train"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_every_class_gets_a_training_node_if_there_is_any() -> None:
    labels = np.array([0] * 50 + [1])
    masks = stratified_split(labels, {"train": 0.1, "val": 0.4, "test": 0.5})
    assert labels[masks["train"]].tolist().count(1) == 1
    assert not stratified_split(labels, {"test": 1.0})["train"].any()


def test_shares_below_one_leave_nodes_out() -> None:
    masks = stratified_split(np.zeros(100, dtype=np.int64), {"train": 0.2, "val": 0.1})
    assert [int(mask.sum()) for mask in masks.values()] == [20, 10, 0]
