from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hgmm.datasets import SourceOptions, info, load
from hgmm.errors import ConfigError, DataError
from tests.datasets.published_folders import DISTINCT, NUM_NODES, features, labels, write_mm_graph, write_mm_links


@pytest.fixture(params=[False, True], ids=["lists", "arrays"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_mm_graph(tmp_path / "ele-fashion", arrays=request.param)
    return tmp_path / "ele-fashion"


def test_a_folder_with_classes_is_read(nodes: Path) -> None:
    graph = load(nodes)
    assert graph.name == "ele-fashion"
    assert graph.schema.widths("node") == {"text": 4, "image": 4}
    whole = torch.from_numpy(features(8, 6))
    assert torch.equal(graph.features("node")["text"], whole[:, :4])
    assert torch.equal(graph.features("node")["image"], whole[:, 4:])
    assert graph.g.num_edges() == 2 * DISTINCT
    assert graph.labels[5] == -1
    assert torch.equal(graph.labels[6:], labels()[6:])
    order = np.random.default_rng(0).permutation(NUM_NODES)
    assert graph.val_idx.tolist() == sorted(set(order[20:30].tolist()) - {5})
    assert graph.source.files == ("nc_edges-nodeid.pt", "labels-w-missing.pt", "split.pt", "clip_feat.pt")
    assert info(nodes).task == "node-classification"


def test_another_encoder_and_column_can_be_chosen(nodes: Path) -> None:
    graph = load(nodes, options=SourceOptions({"joined": "t5vit"}, split_at=5))
    assert graph.schema.widths("node") == {"text": 5, "image": 7}


def test_text_and_image_may_be_files_of_their_own(nodes: Path) -> None:
    graph = load(nodes, options=SourceOptions({"text": "t5vit", "image": "clip"}))
    assert graph.schema.widths("node") == {"text": 12, "image": 8}
    assert load(nodes, options=SourceOptions({"image": "clip"})).source.absent == ("node.text",)


def test_without_features_there_is_structure(nodes: Path) -> None:
    for path in nodes.glob("*_feat.pt"):
        path.unlink()
    assert load(nodes).schema.modality_names == ("structure",)


@pytest.mark.parametrize("name", ["lp-edge-split.pt", "lp-edge-split-random.pt", "lp-edge-split-hard.pt"])
def test_a_folder_with_links_is_read_under_any_of_its_names(tmp_path: Path, name: str) -> None:
    write_mm_links(tmp_path / "books-lp", name)
    graph = load(tmp_path / "books-lp")
    assert graph.triples is not None
    assert graph.triples.train.tolist() == [[n, 0, n + 1] for n in range(20)]
    assert graph.triples.val.tolist() == [[n, 0, n + 30] for n in range(5)]
    assert len(graph.triples.test) == 6
    assert graph.num_nodes("entity") == NUM_NODES
    assert graph.schema.relations == ("linked",)
    assert graph.schema.widths("entity") == {"text": 4, "image": 4}
    assert info(tmp_path / "books-lp").task == "link-prediction"


def test_of_several_link_files_the_plain_one_is_read_or_the_one_named(tmp_path: Path) -> None:
    folder = tmp_path / "books-lp"
    write_mm_links(folder, "lp-edge-split.pt", "lp-edge-split-hard.pt", "lp-edge-split-random.pt")
    first = [
        load(folder, options=options).triples.test[0].tolist() for options in (None, SourceOptions({"split": "ran"}))
    ]
    assert first == [[0, 0, 20], [0, 0, 22]]
    (folder / "lp-edge-split.pt").unlink()
    with pytest.raises(DataError, match=r"split: there are several files: lp-edge-split-hard\.pt, lp-edge-split-rand"):
        load(folder)


def test_links_without_features_count_the_nodes_they_name(tmp_path: Path) -> None:
    write_mm_links(tmp_path / "books-lp", "lp-edge-split.pt")
    for path in (tmp_path / "books-lp").glob("*_feat.pt"):
        path.unlink()
    graph = load(tmp_path / "books-lp")
    assert graph.num_nodes("entity") == 35
    assert graph.source.absent == ("entity.text", "entity.image")


def test_rows_of_linked_nodes_that_are_not_finite_are_absent(tmp_path: Path) -> None:
    write_mm_links(tmp_path / "books-lp", "lp-edge-split.pt")
    values = torch.from_numpy(features(8, 6))
    values[4, 0] = torch.nan
    torch.save(values, tmp_path / "books-lp" / "clip_feat.pt")
    assert load(tmp_path / "books-lp").present("entity")[4].tolist() == [False, False]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("nc_edges-nodeid.pt", [[0, 1, 2]], r"must be rows of two node numbers, got the shape \(1, 3\)"),
        ("nc_edges-nodeid.pt", [[0, 40]], r"node numbers must be from 0 to 39, got 40"),
        ("nc_edges-nodeid.pt", [[0.5, 1.0]], r"must be whole numbers in 2 dimensions, got \(1, 2\) torch\.float64"),
        (
            "split.pt",
            {"train_idx": [0], "val_idx": [1]},
            r"split\.pt: 'test_idx' is missing; found: train_idx, val_idx",
        ),
        ("split.pt", [0, 1], r"split\.pt: 'train_idx' is missing; found: list"),
        ("split.pt", {"train_idx": [-1], "val_idx": [1], "test_idx": [2]}, r"node numbers must be .* 39, got -1"),
        ("clip_feat.pt", [[1, 2]], r"clip_feat\.pt: must be a matrix of features, got \(1, 2\) torch\.int64"),
        ("clip_feat.pt", torch.zeros(3, 2), r"clip_feat\.pt: must have one row for each of the 40 nodes, got 3"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, file: str, content: object, message: str) -> None:
    write_mm_graph(tmp_path / "x")
    torch.save(content, tmp_path / "x" / file)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": {}, "valid": {}}, r"lp-edge-split\.pt: 'test' is missing; found: train, valid"),
        ({key: {"source_node": [0]} for key in ("train", "valid", "test")}, r"train: 'target_node' is missing; fetch"),
        (
            {key: {"source_node": [0], "target_node": [1, 2]} for key in ("train", "valid", "test")},
            r"train: as many targets as sources, got 2 and 1",
        ),
        (
            {key: {"source_node": [0], "target_node": [40]} for key in ("train", "valid", "test")},
            r"node numbers must be from 0 to 39, got 40",
        ),
    ],
)
def test_wrong_links_are_named(tmp_path: Path, content: object, message: str) -> None:
    write_mm_links(tmp_path / "x", "lp-edge-split.pt")
    torch.save(content, tmp_path / "x" / "lp-edge-split.pt")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x")


def test_text_and_image_of_links_have_equally_many_rows(tmp_path: Path) -> None:
    write_mm_links(tmp_path / "x", "lp-edge-split.pt")
    torch.save(torch.zeros(7, 4), tmp_path / "x" / "t5vit_feat.pt")
    with pytest.raises(DataError, match=r"text and image must have equally many rows, got \[7, 40\]"):
        load(tmp_path / "x", options=SourceOptions({"text": "t5vit", "image": "clip"}))


@pytest.mark.parametrize("file", ["labels-w-missing.pt", "split.pt"])
def test_every_file_of_the_graph_is_needed(nodes: Path, file: str) -> None:
    (nodes / file).unlink()
    with pytest.raises(DataError, match=rf"{file}: there is no such file, and the graph cannot be read without it"):
        load(nodes)


def test_the_split_is_published(nodes: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.shots: MM-Graph publishes its splits, got 3; leave it out"):
        load(nodes, options=SourceOptions(shots=3))


def test_features_that_are_no_tensor_at_all_are_named(nodes: Path) -> None:
    torch.save({"a": torch.zeros(40, 4)}, nodes / "clip_feat.pt")
    with pytest.raises(DataError, match=r"clip_feat\.pt: must be a matrix of features, got a dict"):
        load(nodes)
