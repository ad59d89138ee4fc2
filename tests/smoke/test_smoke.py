"""The few tests that also run with the oldest DGL: import, build, sample, train two epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from packaging.version import Version

from hgmm import datasets
from hgmm.dgl_compat import DGL_RANGE, dgl, notes
from hgmm.diagnostics import diagnose
from hgmm.graph import MultimodalGraph, load_graph, relation_csc, save_graph
from hgmm.models import HGNNIMA
from hgmm.training import NodeClassificationTask, TrainConfig, Trainer, configure, load_run, train_run

SMALL = {"model.hidden_size": 8, "model.num_heads": 2, "train.epochs": 2}


def test_dgl_is_in_range_and_needs_help_only_where_expected() -> None:
    version = Version(dgl.__version__.split("+")[0])
    assert DGL_RANGE[0] <= version < DGL_RANGE[1]
    assert notes == [] or Version("2.0") <= version < Version("2.4")


def test_doctor_finds_nothing_broken() -> None:
    assert [finding for finding in diagnose() if finding.status == "broken"] == []


def test_a_graph_is_built_stored_and_loaded(small_graph: MultimodalGraph, tmp_path: Path) -> None:
    save_graph(small_graph, tmp_path / "graph")
    loaded = load_graph(tmp_path / "graph")
    assert loaded.schema == small_graph.schema
    for etype in loaded.schema.canonical_etypes:
        for ours, theirs in zip(relation_csc(loaded.g, etype), relation_csc(small_graph.g, etype), strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(loaded.features("item")["text"], small_graph.features("item")["text"])


def test_blocks_with_all_neighbours_give_the_result_of_the_whole_graph(small_graph: MultimodalGraph) -> None:
    torch.manual_seed(0)
    model = HGNNIMA(small_graph.schema, hidden_size=8, num_heads=2).eval()
    nodes = small_graph.train_idx
    sampler = dgl.dataloading.NeighborSampler([-1, -1])
    _, output_nodes, blocks = sampler.sample(small_graph.g, {"item": nodes})
    sampled = model(blocks).logits
    whole = model(small_graph.g, output_nodes["item"]).logits
    torch.testing.assert_close(sampled, whole)


@pytest.mark.parametrize("batch_size", [0, 4])
def test_two_epochs_train(small_graph: MultimodalGraph, batch_size: int) -> None:
    config = TrainConfig(epochs=2, batch_size=batch_size, fanouts=(2, 2) if batch_size else (), num_threads=1)
    model = HGNNIMA(small_graph.schema, hidden_size=8, num_heads=2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    result = Trainer(model, NodeClassificationTask(), config).fit(small_graph)
    assert [record.epoch for record in result.epochs] == [1, 2]
    assert 0 <= result.test["accuracy"] <= 1
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_run_on_emoji_can_be_loaded_and_predicts(tmp_path: Path) -> None:
    record = train_run(configure(overrides=SMALL), run_dir=tmp_path / "run")
    assert record.status == "done"
    graph = datasets.load("emoji")
    predictions = load_run(tmp_path / "run").predict(graph)
    assert predictions.ids == graph.node_ids["emoji"]
    assert set(predictions.predicted) <= set(graph.schema.classes)
