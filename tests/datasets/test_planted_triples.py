from __future__ import annotations

import numpy as np
import pytest
import torch

from hgmm.datasets import statistics, synthetic_knowledge_graph
from hgmm.datasets.planted import planted_classes
from hgmm.datasets.planted_triples import planted_triples
from hgmm.errors import ConfigError


def test_triples_are_distinct_and_cover_all_names() -> None:
    rng = np.random.default_rng(0)
    classes = planted_classes([50, 50, 50], rng)
    rows = planted_triples(classes, 6, 2000, rng)
    assert rows.shape == (2000, 3)
    assert rows.dtype == np.int64
    assert len(np.unique(rows, axis=0)) == 2000
    assert len(np.unique(rows[:, [0, 2]])) == 150
    assert len(np.unique(rows[:, 1])) == 6
    # 0.8, and of the rest every third by chance; the entities of the first round are drawn without regard to classes.
    for column in (0, 2):
        largest = [np.bincount(classes[rows[rows[:, 1] == r, column]]).max() for r in range(6)]
        assert 0.7 < sum(largest) / len(rows) < 0.95
    assert np.sort(np.bincount(rows[:, 1]))[-1] > 2000 / 6


def test_half_of_all_triples_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    rows = planted_triples(planted_classes([3, 3], rng), 2, 36, rng)
    assert len(np.unique(rows, axis=0)) == 36


@pytest.mark.parametrize("number", [5, 37])
def test_numbers_that_do_not_fit(number: int) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=rf"entities \(6\) and relations \(2\), .* got {number}"):
        planted_triples(planted_classes([3, 3], rng), 2, number, rng)


def test_a_generated_knowledge_graph() -> None:
    graph = synthetic_knowledge_graph(300, 7, (2000, 100, 150), modalities={"image": 8, "text": 4}, seed=3)
    assert statistics(graph) == {"entity": 300, "triple": 2000, "relations": 7, "split_sizes": [2000, 100, 150]}
    assert graph.triples is not None
    report = graph.triples.report()
    assert not report.has_leaks
    assert report.unseen() == []
    assert {name: tuple(values.shape) for name, values in graph.features("entity").items()} == {
        "image": (300, 8),
        "text": (300, 4),
    }
    assert graph.source.source == "synthetic"
    assert graph.source.note == "generated data (seed 3): scores say nothing about real data"
    again = synthetic_knowledge_graph(300, 7, (2000, 100, 150), modalities={"image": 8, "text": 4}, seed=3)
    assert again.triples is not None
    assert torch.equal(again.triples.test, graph.triples.test)
    assert torch.equal(again.features("entity")["text"], graph.features("entity")["text"])
    other = synthetic_knowledge_graph(300, 7, (2000, 100, 150), seed=4)
    assert other.triples is not None
    assert not torch.equal(other.triples.test, graph.triples.test)
