from __future__ import annotations

import numpy as np
import pytest
import torch

from hgmm.datasets import check_published, info, load, synthetic
from hgmm.datasets.synthetic import RELIABILITY_SUFFIX
from hgmm.errors import ConfigError, DataError
from hgmm.graph import MultimodalGraph

EDGES = {("item", "like", "item"): 80}


def uneven(**options: object) -> MultimodalGraph:
    defaults = {"classes": 3, "reliability": 1.0, "imbalance": 0.5, "noise": 0.0}
    widths = {"item": {"text": 6, "image": 4}}
    return synthetic({"item": 600}, EDGES, widths, **(defaults | options))  # type: ignore[arg-type]


def misleading(graph: MultimodalGraph, modality: str) -> torch.Tensor:
    return graph.g.nodes["item"].data[modality + RELIABILITY_SUFFIX] < 0.5


def test_the_registered_graph_has_its_published_statistics() -> None:
    graph = load("planted-imbalance")
    check_published(graph, info("planted-imbalance"))
    assert graph.name == "planted-imbalance"
    assert graph.source.source == "synthetic"
    with pytest.raises(DataError, match="dataset planted-imbalance: its data is generated and never official"):
        load("planted-imbalance", require_official=True)


def test_at_most_one_modality_misleads_and_then_the_other_is_right() -> None:
    graph = uneven()
    text, image = misleading(graph, "text"), misleading(graph, "image")
    assert not (text & image).any()
    assert (text | image).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert text.float().mean().item() == pytest.approx(0.25, abs=0.05)
    trust = graph.g.nodes["item"].data["image" + RELIABILITY_SUFFIX]
    assert (trust[text] == 1).all()


@pytest.mark.parametrize("modality", ["text", "image"])
def test_nothing_in_a_modality_gives_away_that_it_misleads(modality: str) -> None:
    graph = uneven()
    # Without noise a row is the picture of the one class that it tells.
    rows, told = np.unique(graph.features("item")[modality].numpy().round(4), axis=0, return_inverse=True)
    assert len(rows) == 3
    wrong = misleading(graph, modality).numpy()
    labels = graph.labels.numpy()
    class_of = np.array([np.bincount(labels[~wrong & (told.ravel() == row)], minlength=3).argmax() for row in range(3)])
    assert (class_of[told.ravel()] == labels).tolist() == (~wrong).tolist()
    shares = [np.bincount(told.ravel()[chosen], minlength=3) / chosen.sum() for chosen in (wrong, ~wrong)]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.1)


def test_comparing_sources_and_neighbours_gives_it_away() -> None:
    """Least squares on text alone, on both modalities, and on both with the neighbours' mean."""
    graph = load("planted-imbalance")
    text, image = (graph.features("item")[name].double() for name in ("text", "image"))
    src, dst = graph.g.edges()
    degree = torch.zeros(2000, dtype=torch.float64).index_add(0, dst, torch.ones(len(dst), dtype=torch.float64))
    both = torch.cat([text, image], 1)
    around = torch.zeros_like(both).index_add(0, dst, both[src]) / degree.clamp(min=1)[:, None]
    alone, compared, graph_aware = (accuracy(graph, inputs) for inputs in (text, both, torch.cat([both, around], 1)))
    assert alone < 0.7
    assert alone < compared
    assert graph_aware > compared + 0.1


def accuracy(graph: MultimodalGraph, inputs: torch.Tensor) -> float:
    x = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], 1)
    wanted = torch.nn.functional.one_hot(graph.labels).double()
    train, test = graph.train_idx, graph.test_idx
    weight = torch.linalg.solve(x[train].T @ x[train] + 3 * torch.eye(x.shape[1]), x[train].T @ wanted[train])
    return float(((x[test] @ weight).argmax(1) == graph.labels[test]).double().mean())


def test_strength_is_the_share_of_the_dominant_class() -> None:
    graph = uneven(imbalance=1.0, imbalance_strength=0.75)
    data = graph.g.nodes["item"].data
    pairs = torch.stack([data["text" + RELIABILITY_SUFFIX], data["image" + RELIABILITY_SUFFIX]], 1).sort(dim=1).values
    assert torch.equal(pairs, torch.tensor([[0.25, 0.75]]).expand(600, 2))


def test_types_with_one_modality_are_left_alone() -> None:
    edges = {("item", "like", "item"): 80, ("user", "buys", "item"): 60}
    widths = {"item": {"text": 6, "image": 4}, "user": {"text": 5}}
    graph = synthetic({"item": 60, "user": 30}, edges, widths, reliability=1.0, imbalance=1.0)
    assert (graph.g.nodes["user"].data["text" + RELIABILITY_SUFFIX] == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance": 1.2}, r"synthetic imbalance: must be from 0 to 1, got 1\.2"),
        ({"imbalance_strength": 0.5}, r"synthetic imbalance_strength: must be above 0\.5 up to 1, got 0\.5"),
        ({"classes": 1}, r"synthetic imbalance: needs .* two modalities and at least two classes, got 2 and 1"),
    ],
)
def test_parameters_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        uneven(**options)


def test_it_takes_two_modalities_to_disagree() -> None:
    with pytest.raises(
        ConfigError, match="needs a node type with two modalities and at least two classes, got 1 and 4"
    ):
        synthetic({"item": 60}, EDGES, {"item": {"text": 6}}, imbalance=0.5)
