from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hgmm.datasets.readers import MARKERS, folder_task, marker, read_dataset_folder
from hgmm.errors import DataError
from hgmm.graph import MultimodalGraph
from hgmm.graph.storage import save_graph
from hgmm.triples import TripleSet


@pytest.mark.parametrize("name", MARKERS)
def test_one_marker_tells_the_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    assert marker(tmp_path) == name


def test_none_or_several_markers_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"entity2id\.txt, train\.tsv, train\.txt, \*EntityTriples\.txt, \*Graph\.pt, .*, and it has none of them",
    ):
        marker(tmp_path)
    for name in ("train.tsv", "entity2id.txt"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"and it has entity2id\.txt, train\.tsv; move the others away"):
        marker(tmp_path)
    with pytest.raises(DataError, match=rf"{tmp_path / 'no'}: there is no such folder"):
        marker(tmp_path / "no")


def test_a_saved_graph_is_read(tmp_path: Path, small_graph: MultimodalGraph) -> None:
    save_graph(small_graph, tmp_path / "saved")
    graph = read_dataset_folder(tmp_path / "saved")
    assert graph.schema == small_graph.schema
    assert torch.equal(graph.labels, small_graph.labels)
    assert folder_task(tmp_path / "saved") == "node-classification"


def test_a_saved_knowledge_graph_serves_link_prediction(tmp_path: Path) -> None:
    rows = torch.tensor([[0, 0, 1]])
    saved = MultimodalGraph.from_triples(TripleSet(rows, rows[:0], rows[:0], ("a", "b"), ("r",)))
    save_graph(saved, tmp_path / "saved")
    assert folder_task(tmp_path / "saved") == "link-prediction"


@pytest.mark.parametrize("content", ["{", "[3]", "{}", '{"schema": 3}'])
def test_a_schema_that_describes_nothing_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "schema.json").write_text(content)
    with pytest.raises(DataError, match=r"schema\.json: describes no saved graph"):
        folder_task(tmp_path)


def test_tables_are_read_with_given_classes(tmp_path: Path) -> None:
    (tmp_path / "item.csv").write_text("id,price,kind\na,1,x\nb,2,y\nc,4,x\n")
    (tmp_path / "like.csv").write_text("one,other\na,b\nb,c\n")
    (tmp_path / "graph.yaml").write_text(
        "target: item\n"
        "nodes: {item: {table: item.csv, id: id, label: kind, modalities: {numeric: {columns: [price]}}}}\n"
        "edges: [{type: [item, like, item], table: like.csv, src: one, dst: other}]\n"
    )
    graph = read_dataset_folder(tmp_path)
    assert graph.schema.classes == ("x", "y")
    again = read_dataset_folder(tmp_path, transforms=graph.transforms, classes=("y", "x"))
    assert again.labels.tolist() == [1, 0, 1]
    assert folder_task(tmp_path) == "node-classification"
