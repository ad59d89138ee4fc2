"""The data sets that models of multimodal attributed graphs are tried on: which node has what, said the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hgmm.datasets import load
from hgmm.graph import MultimodalGraph

# Share of the target nodes that have each modality, in schema order.
COVERAGE = {
    "emoji": {"text": 1.0, "image": 1.0, "numeric": 0.0},
    "imdb": {"text": 1.0, "image": 1.0},
    "planted-imbalance": {"text": 1.0, "image": 1.0},
}


@pytest.fixture(scope="module", params=sorted(COVERAGE))
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MultimodalGraph:
    return load(request.param, root=tmp_path_factory.mktemp("empty"))


def test_the_target_has_the_modalities_that_are_said(graph: MultimodalGraph) -> None:
    coverage = graph.present(graph.target).float().mean(0).tolist()
    assert dict(zip(graph.schema.modality_names, coverage, strict=True)) == COVERAGE[graph.name]


def test_every_node_type_has_one_row_a_node_and_finite_features(graph: MultimodalGraph) -> None:
    for ntype in graph.schema.ntypes:
        present = graph.present(ntype)
        assert present.shape == (graph.num_nodes(ntype), graph.schema.num_modalities)
        for name, values in graph.features(ntype).items():
            column = graph.schema.modality_names.index(name)
            assert len(values) == graph.num_nodes(ntype)
            assert torch.isfinite(values).all()
            assert (values[~present[:, column]] == 0).all()


def test_the_target_is_labelled_split_and_reached_by_edges(graph: MultimodalGraph) -> None:
    splits = [graph.split(name) for name in ("train", "val", "test")]
    assert all(len(split) for split in splits)
    assert (graph.labels[torch.cat(splits)] >= 0).all()
    arriving = [etype for etype in graph.schema.canonical_etypes if etype[2] == graph.target]
    degree = sum(graph.g.in_degrees(etype=etype) for etype in arriving)
    assert (degree > 0).float().mean() > 0.9


def test_emoji_keywords_have_a_text_only_and_versions_numbers_only() -> None:
    graph = load("emoji")
    assert graph.present("keyword").all(0).tolist() == [True, False, False]
    assert graph.present("version").all(0).tolist() == [False, False, True]


def test_people_of_imdb_have_a_text_only(tmp_path: Path) -> None:
    graph = load("imdb", root=tmp_path)
    for ntype in ("director", "actor"):
        assert graph.present(ntype).all(0).tolist() == [True, False]


def test_the_real_imdb_files_lack_the_image(real_data: Path) -> None:
    graph = load("imdb", root=real_data)
    assert graph.source.source == "local"
    assert graph.source.absent == ("movie.image",)
    assert graph.schema.modality_names == ("text", "image")
    assert graph.present("movie").all(0).tolist() == [True, False]
    assert not graph.present("movie")[:, 1].any()
