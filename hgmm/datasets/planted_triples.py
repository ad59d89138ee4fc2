"""Generated knowledge graphs: relations between planted classes of entities, skewed sizes and degrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import torch

from hgmm.datasets.planted import (
    LATENT_SIZE,
    SKEWED_ROUNDS,
    EndDrawer,
    IntArray,
    planted_classes,
    planted_features,
    popularity,
    sorted_distinct,
)
from hgmm.datasets.triple_split import split_triples
from hgmm.errors import ConfigError
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.triples import TripleSet

__all__ = ["planted_triples", "synthetic_knowledge_graph"]

FIDELITY = 0.8
"""Probability that a head or tail is of the class that its relation asks for; else it is any entity."""

EXPONENT = 2.3
"""Of the power law of relation sizes and degrees."""

ENTITIES_A_CLASS = 100


def planted_triples(classes: IntArray, num_relations: int, num_triples: int, rng: np.random.Generator) -> IntArray:
    """Draw distinct triples in which every entity and every relation occurs.

    Each relation has a class of its heads and one of its tails.

    Parameters
    ----------
    classes : ndarray
        ``(E,)`` planted class of each entity.
    num_relations, num_triples : int
        How many; at least as many triples as entities and as relations, and at most half of the possible ones.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray
        ``(num_triples, 3)`` int64 (head, relation, tail) in random order.

    Raises
    ------
    ConfigError
        If the numbers do not fit.
    """
    num_entities = len(classes)
    if not max(num_entities, num_relations) <= num_triples <= num_entities**2 * num_relations // 2:
        raise ConfigError(
            f"planted_triples num_triples: must be at least the number of entities ({num_entities}) and relations "
            f"({num_relations}), and at most half of the possible triples, got {num_triples}"
        )
    asked = rng.integers(0, int(classes.max()) + 1, (2, num_relations))
    heads, tails = (EndDrawer(one, classes, homophily=FIDELITY, exponent=EXPONENT, rng=rng) for one in asked)
    weights = popularity(num_relations, EXPONENT, rng)
    relation = np.concatenate(
        [np.arange(num_relations), rng.choice(num_relations, num_triples - num_relations, p=weights / weights.sum())]
    )
    keys = np.empty(0, dtype=np.int64)
    for attempt in count():
        skewed = attempt < SKEWED_ROUNDS
        head, tail = heads(relation, skewed=skewed)[1], tails(relation, skewed=skewed)[1]
        if not attempt:
            head[:num_entities] = rng.permutation(num_entities)
        keys = sorted_distinct(np.concatenate([keys, (head * num_relations + relation) * num_entities + tail]))
        if len(keys) == num_triples:
            break
        relation = rng.integers(0, num_relations, num_triples - len(keys))
    pairs, tail = keys // num_entities, keys % num_entities
    rows: IntArray = np.stack([pairs // num_relations, pairs % num_relations, tail], axis=1)
    return rng.permutation(rows)


def synthetic_knowledge_graph(
    num_entities: int,
    num_relations: int,
    sizes: Sequence[int],
    *,
    modalities: Mapping[str, int] | None = None,
    reliability: float = 0.65,
    seed: int = 0,
    name: str = "synthetic knowledge graph",
    source: DataSource | None = None,
) -> MultimodalGraph:
    """Generate a knowledge graph whose relations connect planted classes that the modalities tell more or less.

    Parameters
    ----------
    num_entities, num_relations : int
        Their numbers.
    sizes : sequence of int
        Training, validation and test triples, all distinct; whatever occurs in the latter occurs in training.
    modalities : mapping of str to int, optional
        Width of the features by modality; every entity has all of them.
    reliability : float, optional
        From 0 to 1: mean share of the own class in an entity's features.
    seed : int, optional
        Equal arguments and seeds give equal graphs.
    name : str, optional
        Name of the graph.
    source : DataSource, optional
        Where the graph is said to come from. Default: ``synthetic``, with a note.

    Raises
    ------
    ConfigError
        If so many triples do not fit, or cannot be split so.

    Examples
    --------
    >>> synthetic_knowledge_graph(50, 4, (300, 20, 30), modalities={"image": 8})
    MultimodalGraph('synthetic knowledge graph', nodes {entity: 50}, edges 300, image)
    """
    rng = np.random.default_rng(seed)
    num_classes = max(num_entities // ENTITIES_A_CLASS, 2)
    classes = planted_classes([len(part) for part in np.array_split(np.arange(num_entities), num_classes)], rng)
    rows = planted_triples(classes, num_relations, sum(sizes), rng)
    train, val, test = map(torch.from_numpy, split_triples(rows, sizes[1:], rng))
    features = {}
    for modality, width in (modalities or {}).items():
        prototypes = rng.standard_normal((num_classes, LATENT_SIZE), dtype=np.float32)
        values, _ = planted_features(classes, prototypes, width, reliability=reliability, noise=1.0, rng=rng)
        features[modality] = torch.from_numpy(values)
    entities, relations = (tuple(map(str, range(number))) for number in (num_entities, num_relations))
    note = f"generated data (seed {seed}): scores say nothing about real data"
    return MultimodalGraph.from_triples(
        TripleSet(train, val, test, entities, relations),
        features=features,
        source=source or DataSource("synthetic", note=note),
        name=name,
    )
