from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hgmm.errors import DataError, SchemaError
from hgmm.graph.folder import read_folder
from hgmm.training import configure, load_run, train_run

GRAPH = """\
target: item
nodes:
  item:
    table: item.csv
    id: id
    label: label
    split: {train: 0.5, val: 0.25, test: 0.25, seed: 0}
    modalities:
      numeric: {columns: [price, weight]}
      text: {column: title}
  user: {table: user.csv, id: id}
edges:
  - {type: [user, buys, item], table: buys.csv, src: user, dst: item, reverse: bought_by}
"""


def write_folder(folder: Path, *, items: int = 40, users: int = 8, shift: float = 0.0, prefix: str = "i") -> Path:
    """Write a user's tables: two classes that price and title tell apart."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    label = np.arange(items) % 2
    pd.DataFrame(
        {
            "id": [f"{prefix}{n}" for n in range(items)],
            "label": np.where(label == 1, "dear", "cheap"),
            "price": generator.normal(size=items) + 4 * label + shift,
            "weight": generator.normal(size=items),
            "title": np.where(label == 1, "golden ring", "plastic spoon"),
        }
    ).to_csv(folder / "item.csv", index=False)
    pd.DataFrame({"id": [f"u{n}" for n in range(users)]}).to_csv(folder / "user.csv", index=False)
    buys = {"user": [f"u{n % users}" for n in range(items)], "item": [f"{prefix}{n}" for n in range(items)]}
    pd.DataFrame(buys).to_csv(folder / "buys.csv", index=False)
    (folder / "graph.yaml").write_text(GRAPH)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a run that was trained on it beside it."""
    folder = write_folder(tmp_path_factory.mktemp("own") / "data")
    overrides = {
        "data.dataset": str(folder),
        "model.hidden_size": 16,
        "model.num_heads": 2,
        "train.epochs": 60,
        "train.learning_rate": 0.02,
        "train.device": "cpu",
        "train.num_threads": 1,
    }
    record = train_run(configure(overrides=overrides), run_dir=folder.parent / "run")
    assert record.test["accuracy"] > 0.9
    assert record.data["source"] == "local"
    assert record.variant == "sharp"
    return folder


def test_a_loaded_run_reads_its_own_folder_again(folder: Path) -> None:
    run = load_run(folder.parent / "run")
    assert run.evaluate(run.load_graph())["accuracy"] > 0.9


def test_new_items_are_scaled_as_the_old_ones_were(folder: Path, tmp_path: Path) -> None:
    run = load_run(folder.parent / "run")
    new = write_folder(tmp_path / "new", items=10, shift=0.5, prefix="new")
    graph = run.load_graph(str(new))
    assert graph.transforms == run.transforms
    predictions = run.predict(graph)
    assert predictions.ids[:2] == ["new0", "new1"]
    assert predictions.predicted == ["cheap", "dear"] * 5
    with pytest.raises(DataError, match=r"item\.numeric: its numbers mean something else"):
        run.predict(read_folder(new))


def test_a_new_column_is_not_ignored(folder: Path, tmp_path: Path) -> None:
    new = write_folder(tmp_path / "new")
    text = GRAPH.replace(
        "user: {table: user.csv, id: id}", "user: {table: user.csv, id: id, modalities: {text: {column: id}}}"
    )
    (new / "graph.yaml").write_text(text)
    with pytest.raises(SchemaError, match=r"node type 'user': unknown modality 'text'; known: structure"):
        load_run(folder.parent / "run").predict(read_folder(new))
