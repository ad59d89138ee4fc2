from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hgmm.errors import DataError, HgmmError, SchemaError
from hgmm.graph import read_folder

Replace = Callable[[str, str, str], None]


def test_everything_that_the_yaml_says_arrives(shop: Path) -> None:
    graph = read_folder(shop)

    assert graph.name == "shop"
    assert graph.target == "item"
    assert graph.schema.classes == ("hat", "shoe")
    assert graph.node_ids["item"] == ["007", *(f"i{number}" for number in range(1, 9))]
    assert graph.node_ids["user"] == ["7", "8", "9"]
    assert graph.node_names["item"][:4] == ["red shoe", "blue shoe", "green hat", ""]
    assert graph.labels.tolist() == [1, 1, 0, 0, 1, 0, -1, 0, 1]
    assert graph.schema.canonical_etypes == (("user", "buys", "item"), ("item", "bought_by", "user"))
    src, dst = graph.g.edges(order="eid", etype="buys")
    assert src.tolist() == [0, 0, 1, 2, 2]
    assert dst.tolist() == [0, 1, 2, 3, 3]
    assert [ends.tolist() for ends in graph.g.edges(order="eid", etype="bought_by")] == [dst.tolist(), src.tolist()]


def test_modalities_and_presence(shop: Path) -> None:
    graph = read_folder(shop)
    names = graph.schema.modality_names
    present = dict(zip(names, graph.present("item").T.tolist(), strict=True))
    features = graph.features("item")

    assert names == ("numeric", "text", "categorical", "image", "photo", "structure")
    assert present["numeric"] == present["text"] == present["categorical"] == [True] * 3 + [False] + [True] * 5
    assert present["image"] == [True] * 3 + [False] * 6
    assert present["photo"] == [True, False, True, True] + [False] * 5
    assert features["image"][:4].tolist() == [[4, 5], [2, 3], [0, 1], [0, 0]]
    assert features["categorical"][:4].tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]]
    assert torch.equal(features["photo"][0], features["photo"][2])
    assert not torch.equal(features["photo"][0], features["photo"][3])
    assert graph.schema.modalities["item"]["photo"].kind == "image"
    train = features["numeric"][graph.train_idx]
    torch.testing.assert_close(train.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(2))


def test_the_source_lists_files_and_checksums(shop: Path) -> None:
    source = read_folder(shop).source
    assert source.source == "local"
    assert source.files == ("graph.yaml", "item.csv", "image.npy", "image_ids.txt", "user.parquet", "buys.csv")
    assert source.sha256["buys.csv"] == hashlib.sha256((shop / "buys.csv").read_bytes()).hexdigest()


def test_a_split_column_and_a_split_table_give_the_same(shop: Path, replace_in: Replace) -> None:
    fractions = "{train: 0.5, val: 0.25, test: 0.25, seed: 0}"
    table = pd.read_csv(shop / "item.csv", dtype=str, keep_default_na=False)
    table["part"] = ["train", "valid", "test", "", "train", "test", "", "", "val"]
    table.to_csv(shop / "item.csv", index=False)
    replace_in("graph.yaml", fractions, "part")
    by_column = read_folder(shop)
    for name, ids in (("train", ["007", "i4"]), ("val", ["i1", "i8"]), ("test", ["i2", "i5"])):
        (shop / f"{name}.txt").write_text("\n".join(ids) + "\n\n")
    replace_in("graph.yaml", "split: part", "split: {train: train.txt, val: val.txt, test: test.txt}")
    by_list = read_folder(shop)

    assert by_column.train_idx.tolist() == by_list.train_idx.tolist() == [0, 4]
    assert by_column.val_idx.tolist() == by_list.val_idx.tolist() == [1, 8]
    assert by_column.test_idx.tolist() == by_list.test_idx.tolist() == [2, 5]


def test_transforms_of_a_trained_run_are_applied_not_fitted(shop: Path, replace_in: Replace) -> None:
    trained = read_folder(shop)
    replace_in("item.csv", "10,1,red", "1000,1,violet")
    replace_in("item.csv", "007,shoe", "007,hat")
    again = read_folder(shop, transforms=trained.transforms, classes=trained.schema.classes)

    assert again.transforms == trained.transforms
    assert again.schema.classes == trained.schema.classes
    assert torch.equal(again.features("item")["numeric"][1:], trained.features("item")["numeric"][1:])
    mean, std = trained.transforms["item"]["numeric"]["mean"][0], trained.transforms["item"]["numeric"]["std"][0]
    assert again.features("item")["numeric"][0, 0].item() == pytest.approx((1000 - mean) / std)
    assert again.features("item")["categorical"][0].tolist() == [0, 0]
    assert read_folder(shop).transforms != trained.transforms


def test_a_type_or_modality_that_the_trained_run_does_not_know(shop: Path) -> None:
    transforms = read_folder(shop).transforms
    without_user = {"item": transforms["item"]}
    with pytest.raises(SchemaError, match="unknown node type 'user'; known: item"):
        read_folder(shop, transforms=without_user)
    without_photo = {"item": {key: value for key, value in transforms["item"].items() if key != "photo"}, "user": {}}
    with pytest.raises(SchemaError, match="unknown modality 'photo'; known: categorical, image"):
        read_folder(shop, transforms=without_photo)


def test_a_class_that_the_trained_run_does_not_know(shop: Path) -> None:
    with pytest.raises(DataError, match=r"item.csv row 2: unknown class 'shoe'; known: coat, hat"):
        read_folder(shop, classes=["coat", "hat"])


def test_single_missing_numbers_can_become_the_mean(shop: Path, replace_in: Replace) -> None:
    replace_in("item.csv", "20,2", "20,")
    replace_in("graph.yaml", "{columns: [price, weight]}", "{columns: [price, weight], missing: mean}")
    graph = read_folder(shop)
    assert graph.features("item")["numeric"][1, 1] == 0
    assert graph.present("item")[:, 0].tolist() == [True] * 3 + [False] + [True] * 5
    assert graph.transforms["item"]["numeric"]["impute"] is True


def test_holes_in_a_matrix_can_become_the_mean(shop: Path, replace_in: Replace) -> None:
    np.save(shop / "image.npy", np.array([[0, 1], [np.nan, 3], [4, 5]], dtype=np.float32))
    replace_in("graph.yaml", "ids: image_ids.txt}", "ids: image_ids.txt, missing: mean}")
    graph = read_folder(shop)
    train = [row for row in (0, 2) if row in graph.train_idx.tolist()]
    expected = np.mean([{0: 4.0, 2: 0.0}[row] for row in train]) if train else 2.0
    assert graph.features("item")["image"][1, 0].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target: item", "target: thing", r"target: unknown node type 'thing'; known: item, user"),
        ("target: item", "target: [item]", r"graph.yaml target: expected a word, got \['item'\]"),
        (
            "user: {table: user.parquet, id: id}",
            "user: user.parquet",
            r"nodes.user: expected a mapping with table; got",
        ),
        ("user: {table: user.parquet, id: id}", "user: {id: id}", r"graph.yaml nodes.user: 'table' is missing"),
        ("user: {table: user.parquet, id: id}", "user: {table: 5}", r"nodes.user table: expected a word, got 5"),
        ("[user, buys, item]", "[user, item]", r"edges\[1\] type: expected \[source, name, destination\], got \['u"),
        ("src: user, ", "", r"graph.yaml edges\[1\]: 'src' is missing"),
        ("edges:\n  -", "edges:\n  a:", r"graph.yaml edges: expected a list of edge tables, got \{'a'"),
        ("target: item", "targets: item", r"graph.yaml: unknown key 'targets'; known: edges, encoder, name, nodes, t"),
        ("user: {table", "no: {table", r"graph.yaml nodes: expected a word as name, got False; put it in quotes"),
        ("text: {column", "1: {column", r"nodes.item.modalities: expected a word as name, got 1; put it in quotes"),
        ("text: {column: title}", "text: 7", r"modality 'text' of 'item': expected a column, .* got 7"),
    ],
)
def test_wrong_yaml(shop: Path, replace_in: Replace, old: str, new: str, message: str) -> None:
    replace_in("graph.yaml", old, new)
    with pytest.raises(DataError, match=message):
        read_folder(shop)


def test_modalities_that_are_no_mapping(shop: Path) -> None:
    (shop / "graph.yaml").write_text(
        "nodes: {user: {table: user.parquet, modalities: 3}}\n"
        "edges: [{type: [user, likes, user], table: likes.csv, src: a, dst: b}]\n"
    )
    (shop / "likes.csv").write_text("a,b\n0,1\n")
    with pytest.raises(DataError, match=r"nodes.user.modalities: expected a mapping, got 3"):
        read_folder(shop)


def test_nodes_that_are_no_mapping(shop: Path) -> None:
    (shop / "graph.yaml").write_text("nodes: [item]\nedges: [{type: x}]\n")
    with pytest.raises(DataError, match=r"nodes: expected node types with their tables, got \['item'\]") as caught:
        read_folder(shop)
    assert "add at least one" not in str(caught.value)


def test_empty_lists(shop: Path) -> None:
    (shop / "graph.yaml").write_text("nodes: {}\nedges: []\n")
    with pytest.raises(DataError, match="graph 'shop': add at least one node type") as caught:
        read_folder(shop)
    assert "graph 'shop': add at least one edge table" in str(caught.value)


def test_keys_that_stand_twice(shop: Path, replace_in: Replace) -> None:
    replace_in("graph.yaml", "  user: {", "  item: {table: user.parquet, id: id, id: name}\n  user: {")
    with pytest.raises(DataError, match=r"graph.yaml line 15: 'item' stands twice") as caught:
        read_folder(shop)
    assert "graph.yaml line 15: 'id' stands twice" in str(caught.value)


def test_anchors_are_no_repetition(shop: Path, replace_in: Replace) -> None:
    replace_in(
        "graph.yaml", "user: {table: user.parquet, id: id}", "user: &u {table: user.parquet, id: id}\n  buyer: *u"
    )
    assert set(read_folder(shop).schema.ntypes) == {"item", "user", "buyer"}


def test_no_yaml_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"graph\.yaml: there is no such file"):
        read_folder(tmp_path)
    (tmp_path / "graph.yaml").write_text("nodes: [")
    with pytest.raises(DataError, match=r"graph\.yaml, line 1, column 9: expected a value before the end"):
        read_folder(tmp_path)
    (tmp_path / "graph.yaml").write_bytes(b"\xe4")
    with pytest.raises(DataError, match=r"graph\.yaml, line 1, column 1: expected UTF-8, got the byte 0xe4"):
        read_folder(tmp_path)
    (tmp_path / "graph.yaml").write_text("just words")
    with pytest.raises(DataError, match=r"expected the keys edges, encoder, name, nodes, target, got 'just words'"):
        read_folder(tmp_path)


def test_a_yaml_that_cannot_be_opened(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DataError, match=r"graph\.yaml: it cannot be read; Permission denied"):
        read_folder(shop)


def entries(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield from entries(content[key], (*path, key))


@pytest.mark.parametrize("wrong", [5, {"a": 1}])
def test_whatever_stands_in_the_yaml_only_errors_of_hgmm_come_out(shop: Path, wrong: Any) -> None:
    content = yaml.safe_load((shop / "graph.yaml").read_text())
    refused = 0
    for path in entries(content):
        changed = {"graph": copy.deepcopy(content)}
        inner: Any = changed
        *outer, last = ("graph", *path)
        for key in outer:
            inner = inner[key]
        inner[last] = wrong
        (shop / "graph.yaml").write_text(yaml.safe_dump(changed["graph"]))
        try:
            read_folder(shop)
        except HgmmError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("split", ["{train: 0.5, val: 0.25, test: 0.25, seed: 0}", "part"])
@pytest.mark.parametrize("column", ["label", "part"])
def test_new_rows_need_no_column_for_labels_or_split(shop: Path, replace_in: Replace, column: str, split: str) -> None:
    trained = read_folder(shop)
    replace_in("graph.yaml", "{train: 0.5, val: 0.25, test: 0.25, seed: 0}", split)
    table = pd.read_csv(shop / "item.csv", dtype=str).assign(part="test").drop(columns=column)
    table.to_csv(shop / "item.csv", index=False)
    graph = read_folder(shop, transforms=trained.transforms, classes=trained.schema.classes)
    assert graph.schema.classes == ("hat", "shoe")
    assert (graph.labels >= 0).any().item() == (column != "label")
    assert (len(graph.test_idx) > 0) == (column != "label" and split != "part")
    if column == "label":
        with pytest.raises(DataError, match="unknown column 'label'"):
            read_folder(shop)


def test_a_folder_without_labels_can_be_predicted(shop: Path, replace_in: Replace) -> None:
    trained = read_folder(shop)
    replace_in("graph.yaml", "    label: label\n    split: {train: 0.5, val: 0.25, test: 0.25, seed: 0}\n", "")
    graph = read_folder(shop, transforms=trained.transforms, classes=trained.schema.classes)
    assert graph.schema.classes == ("hat", "shoe")
    assert graph.labels.unique().tolist() == [-1]
    assert torch.equal(graph.features("item")["numeric"], trained.features("item")["numeric"])
