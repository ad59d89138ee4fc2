from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hgmm.errors import DataError
from hgmm.graph import MultimodalGraph, load_graph, read_folder, save_graph
from hgmm.triples import TripleSet


def assert_equal(one: MultimodalGraph, other: MultimodalGraph) -> None:
    assert one.schema == other.schema
    assert one.name == other.name
    assert one.source == other.source
    assert one.transforms == other.transforms
    assert one.node_ids == other.node_ids
    assert one.node_names == other.node_names
    for ntype in one.schema.ntypes:
        frame, copy = one.g.nodes[ntype].data, other.g.nodes[ntype].data
        assert set(frame) == set(copy)
        assert all(torch.equal(frame[key], copy[key]) and frame[key].dtype == copy[key].dtype for key in frame)
    for etype in one.schema.canonical_etypes:
        ends, copied = one.g.edges(order="eid", etype=etype), other.g.edges(order="eid", etype=etype)
        assert all(torch.equal(end, copy) for end, copy in zip(ends, copied, strict=True))
        frame, copy = one.g.edges[etype].data, other.g.edges[etype].data
        assert set(frame) == set(copy)
        assert all(torch.equal(frame[key], copy[key]) for key in frame)


def test_a_graph_comes_back_as_it_was(shop: Path, tmp_path: Path) -> None:
    graph = read_folder(shop)
    graph.g.edges["buys"].data["when"] = torch.arange(5)
    graph.g.nodes["user"].data["half"] = torch.ones(3, 2, dtype=torch.float16).t().contiguous().t()
    assert save_graph(graph, tmp_path / "a" / "out") == tmp_path / "a" / "out"
    assert_equal(graph, load_graph(tmp_path / "a" / "out"))
    assert sorted(file.name for file in (tmp_path / "a" / "out").iterdir()) == [
        "names.parquet",
        "schema.json",
        "tensors.safetensors",
    ]


def test_a_knowledge_graph_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = torch.tensor([[0, 0, 1], [1, 1, 2]])
    triples = TripleSet(rows, rows[:1], rows[1:], ("a", "b", "c"), ("likes", "knows"))
    present = {"image": torch.tensor([True, False, True])}
    graph = MultimodalGraph.from_triples(triples, features={"image": torch.ones(3, 2)}, present=present)
    save_graph(graph, tmp_path / "kg")
    again = load_graph(tmp_path / "kg")
    assert_equal(graph, again)
    assert again.triples is not None
    assert again.triples.entity_vocab == ("a", "b", "c")
    assert again.triples.relation_vocab == ("likes", "knows")
    assert all(torch.equal(rows, again.triples.splits[split]) for split, rows in triples.splits.items())


def test_empty_types_relations_and_odd_names(tmp_path: Path, small_graph: MultimodalGraph) -> None:
    empty = MultimodalGraph(
        small_graph.g.subgraph({"item": [], "user": [0]}),
        small_graph.schema,
        node_ids={"user": ["7/ü\n"]},
        name="odd/ünämé",
    )
    save_graph(empty, tmp_path / "out")
    again = load_graph(tmp_path / "out")
    assert again.node_ids == {"item": [], "user": ["7/ü\n"]}
    assert again.name == "odd/ünämé"
    assert again.num_nodes("item") == 0


def test_a_saved_graph_is_replaced_and_nothing_else_is(tmp_path: Path, small_graph: MultimodalGraph) -> None:
    save_graph(small_graph, tmp_path / "out")
    save_graph(small_graph.drop_modalities(["image"]), tmp_path / "out")
    assert "image" not in load_graph(tmp_path / "out").schema.modality_names
    assert [file.name for file in tmp_path.iterdir()] == ["out"]

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    with pytest.raises(DataError, match=r"thesis holds something other than a saved graph; choose another folder"):
        save_graph(small_graph, tmp_path / "thesis")
    with pytest.raises(DataError, match=r"chapter.txt holds something other"):
        save_graph(small_graph, tmp_path / "thesis" / "chapter.txt")
    (tmp_path / "empty").mkdir()
    save_graph(small_graph, tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("precious")
    with pytest.raises(DataError, match=r"empty holds something other than a saved graph"):
        save_graph(small_graph, tmp_path / "empty")
    assert (tmp_path / "empty" / "notes.txt").read_text() == "precious"


def test_a_link_and_the_current_folder_are_places_too(
    tmp_path: Path, small_graph: MultimodalGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_graph(small_graph, tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    save_graph(small_graph.drop_modalities(["image"]), tmp_path / "link")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "out"]
    assert (tmp_path / "link").is_symlink()
    assert "image" not in load_graph(tmp_path / "out").schema.modality_names
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert save_graph(small_graph, ".") == Path()
    assert load_graph(tmp_path / "here").name == "small"


def test_a_place_that_cannot_be_written(tmp_path: Path, small_graph: MultimodalGraph) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out cannot be written \(.*\); choose another folder"):
        save_graph(small_graph, tmp_path / "file" / "out")


def test_a_failure_leaves_the_old_graph(
    tmp_path: Path, small_graph: MultimodalGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_graph(small_graph, tmp_path / "out")
    other = small_graph.drop_modalities(["image"])
    other.transforms["item"] = {"numeric": {"mean": float("nan")}}
    with pytest.raises(ValueError, match="nan"):
        save_graph(other, tmp_path / "out")
    assert "image" in load_graph(tmp_path / "out").schema.modality_names

    rename = Path.rename

    def refuse(self: Path, target: str | os.PathLike[str]) -> Path:
        if self.suffix == ".new":
            raise PermissionError("not now")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DataError, match=r"out cannot be written \(not now\); choose another folder"):
        save_graph(small_graph.drop_modalities(["image"]), tmp_path / "out")
    monkeypatch.undo()
    assert "image" in load_graph(tmp_path / "out").schema.modality_names
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "names.parquet"])
def test_damaged_and_missing_files(tmp_path: Path, small_graph: MultimodalGraph, file: str) -> None:
    save_graph(small_graph, tmp_path / "out")
    (tmp_path / "out" / file).write_bytes(b"rubbish")
    with pytest.raises(DataError, match="the saved graph is incomplete or damaged"):
        load_graph(tmp_path / "out")
    (tmp_path / "out" / file).unlink()
    with pytest.raises(DataError, match=f"the saved graph is incomplete or damaged .*{file}"):
        load_graph(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, r"schema.json: its format must be 'hgmm-graph', got 'other'"),
        ({"edge_data": [[["user", "buys", "item"], "when"]]}, r"incomplete or damaged \('edge.0'"),
        ({"version": 99}, r"schema.json: this hgmm reads version 1, got 99"),
        ({"num_nodes": {"item": 12, "user": 5}}, r"incomplete or damaged \(Expect number"),
        ({"num_nodes": {"item": 12}}, r"incomplete or damaged \(.*user"),
        ({"schema": None}, r"incomplete or damaged \('NoneType' object is not iterable"),
        ({"schema": {"ntypes": ["item"]}}, r"incomplete or damaged \(.*'canonical_etypes' is missing"),
        ({"source": 7}, r"incomplete or damaged \('int' object is not subscriptable"),
        ({"node_data": "x"}, r"incomplete or damaged \(not enough values to unpack"),
        ({"node_data": [["item", "text"]]}, r"incomplete or damaged \(graph 'small'"),
    ],
)
def test_descriptions_that_do_not_fit(
    tmp_path: Path, small_graph: MultimodalGraph, change: dict[str, Any], message: str
) -> None:
    save_graph(small_graph, tmp_path / "out")
    file = tmp_path / "out" / "schema.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=message):
        load_graph(tmp_path / "out")


def test_folders_that_hold_no_graph(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"schema.json: No such file or directory; expected the folder of a saved graph"
    ):
        load_graph(tmp_path)
    (tmp_path / "schema.json").write_text("{")
    with pytest.raises(DataError, match=r"schema.json: it is not JSON \(Expecting"):
        load_graph(tmp_path)
    (tmp_path / "schema.json").write_text("[3]")
    with pytest.raises(DataError, match=r"its format must be 'hgmm-graph', got \[3\]"):
        load_graph(tmp_path)
