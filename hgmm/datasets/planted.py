"""Random graphs with planted classes: skewed edges that prefer equal classes, and features that tell the class.

Everything is drawn from the given numpy generator and vectorised; the method is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from hgmm.errors import ConfigError

__all__ = [
    "LATENT_SIZE",
    "SKEWED_ROUNDS",
    "EndDrawer",
    "FloatArray",
    "IntArray",
    "planted_classes",
    "planted_edges",
    "planted_features",
    "planted_imbalance",
    "popularity",
    "sorted_distinct",
]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

LATENT_SIZE = 16
"""Dimensions in which the classes differ; features are a random linear image of them."""

SKEWED_ROUNDS = 8
"""Rounds of redrawing double edges before the rest is drawn without skew, which must end."""


def planted_classes(counts: Sequence[int], rng: np.random.Generator) -> IntArray:
    """Return the classes 0, 1, … in random order, each as often as `counts` says."""
    return rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def popularity(num_nodes: int, exponent: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return ``(num_nodes,)`` weights whose sizes follow a power law with the given exponent, in random order.

    Drawing edge ends in proportion to weights ``rank^(-1 / (exponent - 1))`` gives degrees whose density falls as
    ``degree^(-exponent)``.

    Raises
    ------
    ConfigError
        If the exponent is not above 1.
    """
    if not exponent > 1:
        raise ConfigError(f"synthetic degree_exponent: must be above 1, got {exponent}; 2 to 3 is usual")
    return rng.permutation(np.arange(1, num_nodes + 1, dtype=np.float64) ** (-1.0 / (exponent - 1.0)))


def planted_edges(
    src_class: IntArray,
    dst_class: IntArray,
    num_edges: int,
    *,
    homophily: float,
    exponent: float,
    rng: np.random.Generator,
    degree: int | None = None,
    undirected: bool = False,
) -> tuple[IntArray, IntArray]:
    """Draw distinct edges whose ends have skewed degrees and often the same class.

    Parameters
    ----------
    src_class, dst_class : ndarray
        ``(N_src,)`` and ``(N_dst,)`` planted classes.
    num_edges : int
        How many; at most half of all pairs.
    homophily : float
        Probability, from 0 to 1, that the destination is drawn from the source's class; else it is any node.
    exponent : float
        Of the power law of the degrees.
    rng : numpy.random.Generator
        Source of randomness.
    degree : int, optional
        Every source has this many destinations, except where `num_edges` asks for fewer edges in all.
    undirected : bool, optional
        Source and destination are the same nodes: no self-loops, and of (i, j) and (j, i) only one is drawn.

    Returns
    -------
    src, dst : ndarray
        ``(num_edges,)`` int64, sorted by source, then by destination.

    Raises
    ------
    ConfigError
        If so many distinct edges do not fit.
    """
    num_src, num_dst = len(src_class), len(dst_class)
    drawn = num_edges if degree is None else degree * num_src
    if not 0 <= num_edges <= drawn or 2 * drawn > num_src * num_dst // (2 if undirected else 1):
        at_most = "" if degree is None else f" with at most {degree} for each of the former"
        raise ConfigError(
            f"synthetic edges: {num_edges} distinct edges do not fit between {num_src} and {num_dst} nodes{at_most}; "
            "ask for at most half of the pairs"
        )
    draw = EndDrawer(src_class, dst_class, homophily=homophily, exponent=exponent, rng=rng)
    keys = np.empty(0, dtype=np.int64)
    for attempt in count():
        wanted = drawn - len(keys) if degree is None else _open_sources(keys, num_src, num_dst, degree)
        src, dst = draw(wanted, skewed=attempt < SKEWED_ROUNDS)
        if undirected:
            src, dst = np.minimum(src, dst), np.maximum(src, dst)
            src, dst = src[src != dst], dst[src != dst]
        keys = sorted_distinct(np.concatenate([keys, src * num_dst + dst]))
        if len(keys) == drawn:
            break
    if num_edges < drawn:
        keys = np.sort(rng.choice(keys, num_edges, replace=False))
    return keys // num_dst, keys % num_dst


def sorted_distinct(keys: IntArray) -> IntArray:
    """Do what `numpy.unique` does, which hashes integers before it sorts them and takes several times as long here."""
    keys = np.sort(keys)
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    distinct: IntArray = keys[first]
    return distinct


def _open_sources(keys: IntArray, num_src: int, num_dst: int, degree: int) -> IntArray:
    """Return each source as often as it lacks destinations."""
    have = np.bincount(keys // num_dst, minlength=num_src) if num_dst else np.zeros(num_src, dtype=np.int64)
    return np.repeat(np.arange(num_src), degree - have)


class EndDrawer:
    """Draws edge ends; destinations are kept sorted by class, so that one search over cumulated weights serves both."""

    def __init__(
        self, src_class: IntArray, dst_class: IntArray, *, homophily: float, exponent: float, rng: np.random.Generator
    ) -> None:
        self.rng = rng
        self.homophily = homophily
        self.src_class = src_class
        self.num_dst = len(dst_class)
        self.src_sum = np.cumsum(popularity(len(src_class), exponent, rng))
        self.by_class = np.argsort(dst_class, kind="stable")
        weights = popularity(len(dst_class), exponent, rng)[self.by_class]
        self.dst_sum = np.concatenate([[0.0], np.cumsum(weights)])
        num_classes = int(max(src_class.max(initial=0), dst_class.max(initial=0))) + 1
        self.bounds = np.searchsorted(dst_class[self.by_class], np.arange(num_classes + 1))

    def __call__(self, wanted: int | IntArray, *, skewed: bool) -> tuple[IntArray, IntArray]:
        """Draw so many edges, or one for each given source; without `skewed` all destinations are equally likely."""
        if isinstance(wanted, np.ndarray):
            src = wanted
        elif skewed:
            draws = self.rng.random(wanted) * self.src_sum[-1] if wanted else np.empty(0)
            src = np.searchsorted(self.src_sum, draws, side="right")
        else:
            src = self.rng.integers(0, len(self.src_class), wanted)
        if not skewed:
            return src, self.rng.integers(0, self.num_dst, len(src))
        own = self.src_class[src]
        first, last = self.bounds[own], self.bounds[own + 1]
        anywhere = (self.rng.random(len(src)) >= self.homophily) | (first == last)
        low = np.where(anywhere, 0.0, self.dst_sum[first])
        high = np.where(anywhere, self.dst_sum[-1], self.dst_sum[last])
        draws = low + self.rng.random(len(src)) * (high - low)
        # Rounding may put a draw on the upper edge of the last interval.
        position = np.minimum(np.searchsorted(self.dst_sum, draws, side="right") - 1, self.num_dst - 1)
        return src, self.by_class[position]


def planted_features(
    classes: IntArray,
    prototypes: FloatArray,
    width: int,
    *,
    reliability: float,
    noise: float,
    rng: np.random.Generator,
    given: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Draw features that tell the class, reliably at some nodes and misleadingly at others.

    Node ``v`` has the reliability ``r_v ~ Beta(4 r, 4 (1 - r))`` with mean ``r``, and the latent vector
    ``r_v mu[class] + (1 - r_v) mu[another class] + noise * N(0, 1)``; the features are a random linear image of it.

    Parameters
    ----------
    classes : ndarray
        ``(N,)`` planted classes.
    prototypes : ndarray
        ``(C, 16)`` latent vector ``mu`` of each class in this modality.
    width : int
        Columns of the features.
    reliability : float
        Mean reliability, from 0 to 1.
    noise : float
        Standard deviation of the noise in each latent dimension; prototypes have 1.
    rng : numpy.random.Generator
        Source of randomness.
    given : ndarray, optional
        ``(N,)`` float32 reliability of single nodes, NaN where it is drawn.

    Returns
    -------
    features : ndarray
        ``(N, width)`` float32.
    reliability : ndarray
        ``(N,)`` float32, that of each node.
    """
    num_nodes, num_classes = len(classes), len(prototypes)
    if 0.0 < reliability < 1.0:
        trust = rng.beta(4 * reliability, 4 * (1 - reliability), num_nodes).astype(np.float32)
    else:
        trust = np.full(num_nodes, reliability, dtype=np.float32)
    if given is not None:
        trust = np.where(np.isnan(given), trust, given)
    other = (classes + rng.integers(1, max(num_classes, 2), num_nodes)) % num_classes
    latent: Any = trust[:, None] * prototypes[classes] + (1 - trust[:, None]) * prototypes[other]
    latent += np.float32(noise) * rng.standard_normal((num_nodes, LATENT_SIZE), dtype=np.float32)
    image = rng.standard_normal((LATENT_SIZE, width), dtype=np.float32) / np.float32(np.sqrt(LATENT_SIZE))
    return (latent @ image).astype(np.float32), trust


def planted_imbalance(
    num_nodes: int, num_modalities: int, *, share: float, strength: float, rng: np.random.Generator
) -> FloatArray:
    """Choose nodes at which one modality tells the class and another one a wrong class, equally clearly.

    Parameters
    ----------
    num_nodes, num_modalities : int
        ``N`` nodes with ``M`` modalities, at least 2.
    share : float
        Probability, from 0 to 1, that a node is one of these.
    strength : float
        Above 0.5 up to 1: reliability of the informative modality; that of the misleading one is ``1 - strength``.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray
        ``(M, N)`` float32 reliabilities for `planted_features`, NaN where nothing is said. Both modalities of a node
        are drawn at random, each pair as often as any other.
    """
    rank = rng.random((num_modalities, num_nodes)).argsort(axis=0)
    told = np.full((num_modalities, num_nodes), np.nan, dtype=np.float32)
    told[rank == 0], told[rank == 1] = strength, 1.0 - strength
    told[:, rng.random(num_nodes) >= share] = np.nan
    return told
