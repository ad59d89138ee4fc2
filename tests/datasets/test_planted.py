from __future__ import annotations

import numpy as np
import pytest

from hgmm.datasets.planted import (
    LATENT_SIZE,
    planted_classes,
    planted_edges,
    planted_features,
    planted_imbalance,
    popularity,
)
from hgmm.errors import ConfigError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_classes_have_the_given_counts_in_random_order(rng: np.random.Generator) -> None:
    classes = planted_classes([30, 0, 70], rng)
    assert np.bincount(classes).tolist() == [30, 0, 70]
    assert not np.array_equal(classes, np.sort(classes))


@pytest.mark.parametrize("exponent", [1.0, 0.5, float("nan")])
def test_popularity_needs_an_exponent_above_one(rng: np.random.Generator, exponent: float) -> None:
    with pytest.raises(ConfigError, match=f"must be above 1, got {exponent}"):
        popularity(10, exponent, rng)


def test_degrees_are_the_more_skewed_the_smaller_the_exponent(rng: np.random.Generator) -> None:
    classes = planted_classes([500, 500], rng)
    largest = []
    for exponent in (2.0, 2.5, 6.0):
        _, dst = planted_edges(classes, classes, 5000, homophily=0.5, exponent=exponent, rng=rng)
        largest.append(np.bincount(dst).max())
    assert largest[0] > 2 * largest[1] > 4 * largest[2]


@pytest.mark.parametrize(("num_src", "num_dst", "num_edges"), [(40, 25, 500), (40, 25, 0), (1, 2, 1), (0, 3, 0)])
def test_edges_are_distinct_and_as_many_as_asked_for(
    rng: np.random.Generator, num_src: int, num_dst: int, num_edges: int
) -> None:
    src_class, dst_class = planted_classes([num_src], rng), planted_classes([num_dst], rng)
    src, dst = planted_edges(src_class, dst_class, num_edges, homophily=0.9, exponent=2.0, rng=rng)
    assert len(np.unique(src * num_dst + dst)) == len(src) == len(dst) == num_edges
    assert src.min(initial=0) >= 0
    assert dst.min(initial=0) >= 0
    assert src.max(initial=0) < max(num_src, 1)
    assert dst.max(initial=0) < num_dst


@pytest.mark.parametrize("num_edges", [60, 57])
def test_sources_have_the_given_degree_but_for_what_is_left_out(rng: np.random.Generator, num_edges: int) -> None:
    src_class, dst_class = planted_classes([10, 10], rng), planted_classes([4, 4], rng)
    src, _ = planted_edges(src_class, dst_class, num_edges, homophily=0.7, exponent=2.2, rng=rng, degree=3)
    degrees = np.bincount(src, minlength=20)
    assert degrees.max() == 3
    assert degrees.sum() == num_edges


def test_undirected_edges_have_no_loop_and_no_mirror(rng: np.random.Generator) -> None:
    classes = planted_classes([15, 15], rng)
    src, dst = planted_edges(classes, classes, 200, homophily=0.5, exponent=2.2, rng=rng, undirected=True)
    assert (src < dst).all()
    assert len(np.unique(src * 30 + dst)) == 200


@pytest.mark.parametrize(("homophily", "low", "high"), [(0.0, 0.45, 0.55), (0.8, 0.86, 0.94), (1.0, 1.0, 1.0)])
def test_homophily_is_the_share_drawn_inside_the_class(
    rng: np.random.Generator, homophily: float, low: float, high: float
) -> None:
    classes = planted_classes([1000, 1000], rng)
    src, dst = planted_edges(classes, classes, 4000, homophily=homophily, exponent=4.0, rng=rng)
    assert low <= np.mean(classes[src] == classes[dst]) <= high


def test_edges_leave_a_class_that_the_other_side_lacks(rng: np.random.Generator) -> None:
    src, _ = planted_edges(np.array([1, 1]), np.zeros(6, dtype=np.int64), 5, homophily=1.0, exponent=2.0, rng=rng)
    assert len(src) == 5


@pytest.mark.parametrize(
    ("num_edges", "options", "message"),
    [
        (13, {}, "13 distinct edges do not fit between 5 and 5 nodes;"),
        (7, {"undirected": True}, "7 distinct edges do not fit between 5 and 5 nodes;"),
        (-1, {}, "-1 distinct edges"),
        (6, {"degree": 1}, "6 distinct edges do not fit between 5 and 5 nodes with at most 1 for each of the former"),
        (3, {"degree": 3}, "3 distinct edges do not fit between 5 and 5 nodes with at most 3"),
    ],
)
def test_more_edges_than_fit_are_refused(
    rng: np.random.Generator, num_edges: int, options: dict[str, int], message: str
) -> None:
    classes = planted_classes([5], rng)
    with pytest.raises(ConfigError, match=message):
        planted_edges(classes, classes, num_edges, homophily=0.5, exponent=2.0, rng=rng, **options)  # type: ignore[arg-type]


def test_reliable_features_tell_the_class_and_unreliable_ones_another(rng: np.random.Generator) -> None:
    prototypes = rng.standard_normal((4, LATENT_SIZE), dtype=np.float32)
    classes = planted_classes([50, 50, 50, 50], rng)
    features, trust = planted_features(classes, prototypes, 20, reliability=1.0, noise=0.0, rng=rng)
    assert features.shape == (200, 20)
    assert features.dtype == np.float32
    assert (trust == 1).all()
    means = np.stack([features[classes == c].mean(0) for c in range(4)])
    np.testing.assert_allclose(features, means[classes], atol=1e-5)
    _, trust = planted_features(classes, prototypes, 20, reliability=0.3, noise=1.0, rng=rng)
    assert trust.mean() == pytest.approx(0.3, abs=0.05)
    assert trust.std() > 0.1
    wrong, _ = planted_features(classes, prototypes, 20, reliability=0.0, noise=0.0, rng=rng)
    assert len(np.unique(wrong.round(4), axis=0)) == 4


@pytest.mark.parametrize(("num_modalities", "strength"), [(2, 1.0), (3, 0.8)])
def test_an_uneven_node_has_one_informative_and_one_misleading_modality(num_modalities: int, strength: float) -> None:
    told = planted_imbalance(6000, num_modalities, share=0.4, strength=strength, rng=np.random.default_rng(0))
    uneven = ~np.isnan(told).all(axis=0)
    assert uneven.mean() == pytest.approx(0.4, abs=0.03)
    assert (np.isclose(told[:, uneven], strength).sum(axis=0) == 1).all()
    assert (np.isclose(told[:, uneven], 1 - strength).sum(axis=0) == 1).all()
    assert (np.isnan(told[:, uneven]).sum(axis=0) == num_modalities - 2).all()
    misleading = np.isclose(told, 1 - strength).mean(axis=1)
    np.testing.assert_allclose(misleading, 0.4 / num_modalities, atol=0.03)


@pytest.mark.parametrize(("share", "uneven"), [(0.0, 0), (1.0, 50)])
def test_no_node_and_every_node_can_be_uneven(share: float, uneven: int) -> None:
    told = planted_imbalance(50, 2, share=share, strength=1.0, rng=np.random.default_rng(0))
    assert (~np.isnan(told)).all(axis=0).sum() == uneven


def test_a_given_reliability_wins_over_the_drawn_one() -> None:
    rng = np.random.default_rng(0)
    given = np.array([np.nan, 1.0, 0.0], dtype=np.float32)
    prototypes = rng.standard_normal((2, 16)).astype(np.float32)
    classes = np.zeros(3, dtype=np.int64)
    _, trust = planted_features(classes, prototypes, 4, reliability=0.7, noise=0.0, rng=rng, given=given)
    assert trust[1:].tolist() == [1.0, 0.0]
    assert 0 < trust[0] < 1
