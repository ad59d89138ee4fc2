from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hgmm.datasets import SourceOptions, info, load, magb_split
from hgmm.datasets.attributed import undirected
from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, DataError
from tests.datasets.published_folders import (
    CLASSES,
    DISTINCT,
    EDGES,
    NUM_NODES,
    features,
    labels,
    write_graph,
    write_magb,
    write_openmag,
)


@pytest.fixture
def magb(tmp_path: Path) -> Path:
    write_magb(tmp_path / "Grocery")
    return tmp_path / "Grocery"


def reference_split(labels: np.ndarray, shots: int | None) -> tuple[list[int], list[int], list[int]]:
    """Draw with numpy's global generator, as the published code does."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(42)  # noqa: NPY002
    order = np.random.permutation(len(labels))  # noqa: NPY002
    train: list[int] = []
    if shots is None:
        n_train, n_val = int(len(labels) * 0.6), int(len(labels) * 0.2)
        parts = order[:n_train], order[n_train : n_train + n_val], order[n_train + n_val :]
    else:
        for label in np.unique(labels):
            members = np.where(labels == label)[0]
            np.random.shuffle(members)  # noqa: NPY002
            train.extend(members[:shots])
        rest = np.setdiff1d(order, train)
        np.random.shuffle(rest)  # noqa: NPY002
        n_val = int(len(rest) * 0.2)
        parts = np.array(train), rest[:n_val], rest[n_val:]
    np.random.set_state(state)  # noqa: NPY002
    return tuple(part.tolist() for part in parts)  # type: ignore[return-value]


@pytest.mark.parametrize("shots", [None, 3])
@pytest.mark.parametrize("num_nodes", [40, 16672])
def test_the_split_is_that_of_the_published_code(num_nodes: int, shots: int | None) -> None:
    label = np.random.default_rng(0).integers(0, 7, num_nodes)
    split = magb_split(label, shots=shots)
    assert [split[name].tolist() for name in ("train", "val", "test")] == list(reference_split(label, shots))


def test_the_first_numbers_of_the_split_are_known() -> None:
    # The legacy stream is frozen, so these are the same on every machine and with every NumPy.
    assert magb_split(np.zeros(10, dtype=np.int64))["train"].tolist() == [8, 1, 5, 0, 7, 2]


def test_a_folder_of_magb_is_read(magb: Path) -> None:
    graph = load(magb)
    assert graph.name == "Grocery"
    assert graph.schema.widths("node") == {"text": 6, "image": 5}
    assert torch.equal(graph.features("node")["text"], torch.from_numpy(features(6, 1)))
    assert torch.equal(graph.features("node")["image"], torch.from_numpy(features(5, 3)))
    assert graph.schema.classes == CLASSES
    assert torch.equal(graph.labels, labels())
    expected = magb_split(labels().numpy())
    for name, nodes in expected.items():
        assert graph.split(name).tolist() == sorted(nodes.tolist())
    assert graph.source.source == "local"
    assert set(graph.source.files) == set(graph.source.sha256)
    assert set(graph.source.files) == {
        "GroceryGraph.pt",
        "Grocery.csv",
        "TextFeature/GroceryS_roberta_base_256_mean.npy",
        "ImageFeature/GroceryS_openai_clip-vit-large-patch14.npy",
    }
    assert graph.source.absent == ()
    assert info(magb).task == "node-classification"


def test_edges_go_both_ways_once_and_never_to_the_node_itself(magb: Path) -> None:
    graph = load(magb)
    src, dst = graph.g.edges()
    pairs = list(zip(src.tolist(), dst.tolist(), strict=True))
    assert len(pairs) == len(set(pairs)) == 2 * DISTINCT
    assert set(pairs) == {pair for a, b in EDGES.tolist() if a != b for pair in ((a, b), (b, a))}


@pytest.mark.parametrize("num_nodes", [0, 3])
def test_no_edges_stay_none(num_nodes: int) -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert all(not len(ends) for ends in undirected(nothing, nothing, num_nodes=num_nodes))


def test_other_encoders_can_be_chosen(magb: Path) -> None:
    graph = load(magb, options=SourceOptions({"text": "Llama_3.2_1B", "image": "swinv2"}))
    assert graph.schema.widths("node") == {"text": 8, "image": 7}
    assert graph.features("node")["text"].dtype == torch.float32
    assert graph.schema.modalities["node"]["text"].source == "GroceryS_Llama_3.2_1B_Instruct_256_mean.npy"


def test_a_joined_file_is_split_at_a_column(magb: Path) -> None:
    graph = load(magb, options=SourceOptions({"joined": "LLAMA8B_CLIP"}, split_at=6))
    whole = torch.from_numpy(features(9, 5))
    assert torch.equal(graph.features("node")["text"], whole[:, :6])
    assert torch.equal(graph.features("node")["image"], whole[:, 6:])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (SourceOptions({"joined": "LLAMA"}), ConfigError, r"LLAMA8B_CLIP\.npy has 9 columns, which have no middle"),
        (SourceOptions({"joined": "LLAMA"}, 9), ConfigError, r"must be from 1 to 8 for .*CLIP\.npy, got 9"),
        (SourceOptions(split_at=3), ConfigError, r"only a joined file is split, got 3 without one; add joined=NAME"),
        (SourceOptions({"joined": "Gemma"}), DataError, r"joined: no file has 'Gemma' in its name; there are: Groc"),
        (SourceOptions({"text": "GroceryS"}), DataError, r"text: 'GroceryS' fits several files: GroceryS_Llama"),
    ],
)
def test_a_choice_that_does_not_fit_is_named(
    magb: Path, options: SourceOptions, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(magb, options=options)


def test_few_shots_train_as_many_of_each_class(magb: Path) -> None:
    graph = load(magb, options=SourceOptions(shots=2))
    assert torch.bincount(graph.labels[graph.train_idx]).tolist() == [2, 2, 2, 2]
    assert len(graph.val_idx) == int(0.2 * (NUM_NODES - 8))


def test_a_folder_of_openmag_is_read(tmp_path: Path) -> None:
    write_openmag(tmp_path / "RedditS")
    graph = load(tmp_path / "RedditS")
    assert graph.schema.widths("node") == {"text": 6, "image": 5}
    assert graph.schema.classes == ("0", "1", "2", "3")


def test_masks_of_the_graph_win_over_the_drawn_split(tmp_path: Path) -> None:
    rows = torch.arange(NUM_NODES)
    masks = {"train_mask": rows < 10, "val_mask": (rows >= 10) & (rows < 15), "test_mask": rows >= 15}
    write_openmag(tmp_path / "books", **masks)
    graph = load(tmp_path / "books")
    assert graph.train_idx.tolist() == list(range(10))
    assert graph.val_idx.tolist() == list(range(10, 15))


def test_rows_that_are_not_finite_are_absent(magb: Path) -> None:
    path = magb / "ImageFeature" / "GroceryS_openai_clip-vit-large-patch14.npy"
    values = np.load(path)
    values[3, 2], values[7, 0] = np.nan, np.inf
    np.save(path, values)
    graph = load(magb)
    assert (~graph.present("node")[:, 1]).nonzero().flatten().tolist() == [3, 7]
    assert (graph.features("node")["image"][[3, 7]] == 0).all()
    assert graph.source.note == "image of 2 nodes is not finite and treated as absent"


def test_an_absent_modality_is_listed_and_stays_on_the_axis(magb: Path) -> None:
    for path in (magb / "ImageFeature").iterdir():
        path.unlink()
    graph = load(magb)
    assert graph.source.absent == ("node.image",)
    assert graph.source.note == "no feature file, treated as absent: image"
    assert graph.schema.modality_names == ("text", "image")
    assert not graph.present("node")[:, 1].any()


def test_without_features_there_is_structure(tmp_path: Path) -> None:
    write_graph(tmp_path / "Toys" / "ToysGraph.pt")
    graph = load(tmp_path / "Toys")
    assert graph.schema.modality_names == ("structure",)
    assert graph.source.absent == ("node.text", "node.image")


@pytest.mark.parametrize("change", ["shorter", "other labels", "two names", "no names"])
def test_a_table_that_gives_no_names_leaves_numbers(magb: Path, change: str) -> None:
    table = pd.read_csv(magb / "Grocery.csv")
    if change == "shorter":
        table = table[:-1]
    elif change == "other labels":
        table["label"] = table["label"].to_numpy()[::-1]
    elif change == "two names":
        table.loc[0, "second_category"] = "Sweets"
    else:
        table = table.drop(columns="second_category")
    table.to_csv(magb / "Grocery.csv", index=False)
    graph = load(magb)
    assert graph.schema.classes == ("0", "1", "2", "3")
    assert "Grocery.csv" not in graph.source.files


def test_a_table_that_is_none_is_named(magb: Path) -> None:
    (magb / "Grocery.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"Grocery\.csv: cannot be read as a table \(No columns to parse"):
        load(magb)


def test_a_graph_needs_labels(tmp_path: Path) -> None:
    (tmp_path / "X").mkdir()
    dgl.save_graphs(str(tmp_path / "X" / "XGraph.pt"), [dgl.graph(EDGES.unbind(1))])
    with pytest.raises(DataError, match=r"XGraph\.pt: must hold the labels as node data 'label', got none"):
        load(tmp_path / "X")


def test_a_folder_holds_one_graph(magb: Path) -> None:
    write_graph(magb / "GroceryOldGraph.pt")
    with pytest.raises(
        DataError, match=r"must hold one \*Graph\.pt, found GroceryGraph\.pt, GroceryOldGraph\.pt; move"
    ):
        load(magb)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((39, 3)), r"must have one row for each of the 40 nodes, got 39"),
        (np.array([["a"]] * 40), r"must be a matrix of numbers, got shape \(40, 1\)"),
    ],
)
def test_features_belong_to_the_nodes(magb: Path, values: np.ndarray, message: str) -> None:
    np.save(magb / "TextFeature" / "GroceryS_roberta_base_256_mean.npy", values)
    with pytest.raises(DataError, match=rf"roberta_base_256_mean\.npy: {message}"):
        load(magb)


def test_pickled_features_are_refused(magb: Path) -> None:
    path = magb / "TextFeature" / "GroceryS_roberta_base_256_mean.npy"
    np.save(path, np.array([{"a": 1}] * NUM_NODES, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"roberta_base_256_mean\.npy: cannot be read as numpy data \(Object arrays"):
        load(magb)


def test_folders_of_other_kinds_offer_no_choice(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tr\tb\n")
    with pytest.raises(ConfigError, match=r"a folder with train\.tsv offers no choice of files, got text=a; leave it"):
        load(tmp_path, options=SourceOptions({"text": "a"}))
