from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hgmm import datasets
from hgmm.datasets import SourceOptions
from hgmm.errors import ConfigError, DataError, SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.graph.multimodal import DataSource
from hgmm.registry import MODELS
from hgmm.training import RunConfig, RunRecord, load_run, train_run
from hgmm.training.session import load_data
from hgmm.training.trained_run import TrainedRun
from hgmm.typing import NodeOutput
from tests.training.test_conform import part
from tests.training.tiny import CLASSES, TinyClassifier, make_graph

pytestmark = pytest.mark.usefixtures("_tiny_model")
SETTINGS = {"model.name": "tiny", "model.hidden_size": 5, "train.epochs": 4, "train.learning_rate": 0.05}


def run_in(folder: Path, **settings: Any) -> RunRecord:
    config = RunConfig.resolve(None, None, {**SETTINGS, **{k.replace("__", "."): v for k, v in settings.items()}})
    graph = make_graph()
    graph.transforms = {"item": {"text": {"mean": [0.5]}}}
    return train_run(config, run_dir=folder, graph=graph)


@pytest.mark.parametrize("settings", [{}, {"train__batch_size": 32, "train__fanouts": [2]}])
def test_a_loaded_run_gives_the_recorded_scores(tmp_path: Path, settings: dict[str, Any]) -> None:
    record = run_in(tmp_path / "run", **settings)
    run = load_run(tmp_path / "run")
    assert run.classes == CLASSES
    assert run.schema == make_graph().schema
    assert run.config.to_dict() == record.config
    assert run.transforms == {"item": {"text": {"mean": [0.5]}}}
    assert not run.model.training
    assert run.evaluate(make_graph()) == pytest.approx(record.test)
    val = record.epochs[(record.best_epoch or 0) - 1]["val"]
    assert run.evaluate(make_graph(), split="val")["macro_f1"] == pytest.approx(val["macro_f1"])


def test_the_data_of_a_run_is_loaded_without_leaks_again(tmp_path: Path) -> None:
    for name, rows in (("train", "a\tr\tb\nb\tr\ta\na\tr\tb\n"), ("val", "a\tr\tb\n"), ("test", "b\tr\tb\n")):
        (tmp_path / f"{name}.tsv").write_text(rows)
    config = RunConfig.resolve(None, None, {"data.dataset": str(tmp_path), "data.drop_leaks": True})
    graph = load_data(config)
    assert graph.triples is not None
    assert [len(rows) for rows in graph.triples.splits.values()] == [2, 0, 1]
    assert graph.source.note.endswith("leaks dropped: 1 train, 1 val triples")
    run = TrainedRun(tmp_path, torch.nn.Identity(), graph.schema, config, {}, graph.source.to_dict())
    again = run.load_graph()
    assert again.triples is not None
    assert torch.equal(again.triples.train, graph.triples.train)
    assert again.source == graph.source
    taken = run.load_graph(str(tmp_path))
    assert taken.triples is not None
    assert len(taken.triples.train) == 3


def test_predictions_for_new_nodes(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    run = load_run(tmp_path / "run")
    predictions = run.predict(part())
    assert predictions.ids == ["0", "1", "2", "3"]
    assert predictions.names is None
    assert set(predictions.predicted) <= set(CLASSES)
    assert predictions.probabilities.shape == (4, 3)
    assert predictions.probabilities.sum(1) == pytest.approx(np.ones(4), abs=1e-6)
    assert predictions.modality_weights is not None
    assert predictions.modality_weights.shape == (4, 2)
    best = predictions.probabilities.argmax(1)
    assert predictions.predicted == [CLASSES[index] for index in best]
    columns = ["id", "predicted", *(f"probability_{name}" for name in CLASSES), "weight_text", "weight_structure"]
    assert list(predictions.table()) == [*columns, "source"]


def test_predictions_do_not_depend_on_the_other_nodes_order(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    run = load_run(tmp_path / "run")
    graph = make_graph()
    assert np.array_equal(run.predict(graph).probabilities, run.predict(graph).probabilities)


def test_embeddings(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    ids, values = load_run(tmp_path / "run").embed(make_graph())
    assert ids == make_graph().node_ids["item"]
    assert values.shape == (90, 5)
    assert values.dtype == np.float32


def test_without_test_nodes_all_labelled_ones_are_evaluated(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    run = load_run(tmp_path / "run")
    graph = make_graph()
    for name in ("train", "val", "test"):
        del graph.g.nodes["item"].data[f"{name}_mask"]
    hits = sum(
        CLASSES[label] == name for label, name in zip(graph.labels.tolist(), run.predict(graph).predicted, strict=True)
    )
    assert run.evaluate(graph)["accuracy"] == pytest.approx(hits / 90)


def test_its_own_dataset_and_others_come_with_its_transforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"data__root": "data", "data__require_official": True, "data__features": ["text=bert"]}
    run_in(tmp_path / "run", data__dataset="./folder", **settings)
    asked: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> MultimodalGraph:
        asked.append((name, options))
        return make_graph()

    monkeypatch.setattr(datasets, "load", load)
    run = load_run(tmp_path / "run")
    run.load_graph()
    run.load_graph("./other", root="there")
    fitted = {"transforms": run.transforms, "classes": CLASSES}
    assert asked == [
        ("./folder", {"root": "data", "require_official": True, "options": SourceOptions({"text": "bert"}), **fitted}),
        ("./other", {"root": "there", "require_official": False, "options": None, **fitted}),
    ]


def test_a_dataset_that_has_changed_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, changed, grown = make_graph(), make_graph(), make_graph()
    trained.source = DataSource("local", files=("a.csv", "b.csv"), sha256={"a.csv": "0", "b.csv": "1"})
    changed.source = DataSource("local", files=("a.csv", "b.csv"), sha256={"a.csv": "0", "b.csv": "2"})
    grown.source = DataSource("local", files=("a.csv", "c.csv"), sha256={"a.csv": "0", "c.csv": "3"})
    config = RunConfig.resolve(None, None, {**SETTINGS, "data.dataset": "./mine"})
    train_run(config, run_dir=tmp_path / "run", graph=trained)
    run = load_run(tmp_path / "run")
    for graph in (trained, grown):
        monkeypatch.setattr(datasets, "load", lambda *_, found=graph, **__: found)
        assert run.load_graph() is graph
    monkeypatch.setattr(datasets, "load", lambda *_, **__: changed)
    with pytest.raises(DataError, match=r"dataset './mine': changed since .* trained on it: b\.csv; name the dataset"):
        run.load_graph()
    assert run.load_graph("./mine") is changed


def test_what_the_run_dropped_is_dropped_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in(tmp_path / "run", data__drop_modalities=["text", "image"])
    monkeypatch.setattr(datasets, "load", lambda *_, **__: make_graph())
    assert load_run(tmp_path / "run").load_graph().schema.modality_names == ("structure",)


def test_the_runs_own_data_is_corrupted_again_and_other_data_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path / "run", data__corrupt=["text=0.5"])
    monkeypatch.setattr(datasets, "load", lambda *_, **__: make_graph())
    run = load_run(tmp_path / "run")
    assert int(run.load_graph().present("item")[:, 0].sum()) == 45
    assert run.load_graph("./mine").present("item")[:, 0].all()


def broken_version(folder: Path) -> None:
    path = folder / "checkpoint" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 8}))


def change_description(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "checkpoint" / "model.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def no_schema(folder: Path) -> None:
    change_description(folder, lambda data: data.pop("schema"))


def no_mapping(folder: Path) -> None:
    (folder / "checkpoint" / "model.json").write_text("[1]")


def other_size(folder: Path) -> None:
    change_description(folder, lambda data: data["arguments"].update(hidden_size=7))


def no_weights(folder: Path) -> None:
    (folder / "checkpoint" / "state.json").unlink()


def several(folder: Path) -> None:
    (folder / "seed-3").mkdir()


def no_config(folder: Path) -> None:
    (folder / "config.yaml").unlink()


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (broken_version, r"model.json: format_version must be 1, got 8"),
        (no_schema, r"model.json: key 'schema' is missing"),
        (no_mapping, r"model.json: format_version must be 1, got None"),
        (other_size, r"checkpoint: its weights do not fit TinyClassifier \(size mismatch for .*; use the hgmm that"),
        (no_weights, r"run: the run has no weights yet"),
        (several, r"run: it holds several runs; name one of their folders: seed-3"),
        (no_config, r"run: it has no config.yaml"),
    ],
)
def test_folders_that_hold_no_run(tmp_path: Path, damage: Callable[[Path], None], match: str) -> None:
    run_in(tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(DataError, match=match):
        load_run(tmp_path / "run")


def test_a_model_that_is_not_registered_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in(tmp_path / "run")
    monkeypatch.delitem(MODELS._entries, "tiny")
    with pytest.raises(ConfigError, match="unknown model 'tiny'"):
        load_run(tmp_path / "run")


def test_an_option_that_the_model_has_lost(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    change_description(tmp_path / "run", lambda data: data["arguments"].update(depth=7))
    with pytest.raises(ConfigError, match=r"model.depth: unknown option of model 'tiny' 'depth'"):
        load_run(tmp_path / "run")


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"train.device: 'cuda:77' is asked for"):
        load_run(tmp_path / "run", device="cuda:77")
    assert load_run(tmp_path / "run", device="cpu").config.train.device == "cpu"


def test_labels_of_unknown_classes_cannot_be_evaluated(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    run = load_run(tmp_path / "run")
    with pytest.raises(SchemaError, match="2 labels are of classes that the model does not know: pink; known: red"):
        run.evaluate(part(classes=("red", "pink"), labels=[0, 1, 1, -1]))
    assert len(run.predict(part(classes=("red", "pink"), labels=[0, 1, 1, -1])).ids) == 4


@pytest.mark.parametrize(("split", "words"), [(None, "node; give"), ("train", "node in split 'train'; give")])
def test_without_labels_there_is_nothing_to_evaluate(tmp_path: Path, split: str | None, words: str) -> None:
    run_in(tmp_path / "run")
    with pytest.raises(SchemaError, match=f"'new' has no labelled {words} it labels"):
        load_run(tmp_path / "run").evaluate(part(), split=split)


def test_a_model_without_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(TinyClassifier):
        def forward(self, graph: Any, nodes: torch.Tensor | None = None) -> NodeOutput:
            return NodeOutput(super().forward(graph, nodes).logits)

    monkeypatch.setitem(MODELS._entries, "plain", Plain)
    run_in(tmp_path / "run", model__name="plain")
    run = load_run(tmp_path / "run")
    assert run.predict(make_graph()).modality_weights is None
    with pytest.raises(ConfigError, match="model 'plain' gives no embedding"):
        run.embed(make_graph())


def test_a_graph_of_other_numbers(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    run = load_run(tmp_path / "run")
    graph = make_graph()
    graph.transforms = {"item": {"text": {"mean": [0.75]}}}
    with pytest.raises(DataError, match=r"item.text: its numbers mean something else"):
        run.predict(graph)
    assert dataclasses.asdict(run.predict(make_graph()))["source"] == "local"
