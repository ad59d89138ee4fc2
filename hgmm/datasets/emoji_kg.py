"""The embedded emoji data as a multimodal knowledge graph: emoji, keywords, groups and releases as entities.

Emoji have a picture and a text, keywords a text, releases two numbers, groups nothing but their triples; so no modality
is complete. The split is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hgmm.datasets.base import Dataset, DatasetInfo, register
from hgmm.datasets.emoji import FILES, MODALITIES, EmojiDataset, embedded_contents
from hgmm.datasets.planted import IntArray
from hgmm.datasets.triple_split import split_triples
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.triples import TripleSet

__all__ = ["EmojiKnowledgeDataset", "load_emoji_kg"]

KINDS = ("emoji", "keyword", "group", "version")
"""Kinds of entities, in the order of their numbers; an id is ``kind:name``."""

RELATIONS = ("has_keyword", "in_group", "introduced_in", "part_of", "variant_of")
SHARES = {"val": 0.1, "test": 0.1}
SEED = 0

JOINER, VARIATION = "200D", "FE0F"
SIGNS = {"2640", "2642"}
"""Code points of the female and the male sign, which make a variant of the emoji before them."""

PERSON, GENDERED = "1F9D1", {"1F468", "1F469"}
"""The person, and the man and the woman that stand in its place in a variant."""


# The margin is the better one of 6 and 9 by validation, at 8 negatives in 20 epochs, seed 0.
SETTINGS = MappingProxyType({"train.epochs": 30, "train.eval_every": 5, "link.num_negs_per_pos": 8, "link.margin": 9.0})


@register
class EmojiKnowledgeDataset(Dataset):
    """The embedded emoji data as triples; it needs no files besides the package."""

    info = DatasetInfo(
        name="emoji-kg",
        title="Emoji as a multimodal knowledge graph",
        description=(
            "Which emoji, keyword, group or release completes a triple? Emoji carry a picture and a text, keywords a "
            "text, releases two numbers, groups nothing. part_of leads from an emoji to one that is made of it, "
            "variant_of from the woman or man to the person that does the same. The splits share no triple, and "
            "training has every entity and relation."
        ),
        task="link-prediction",
        target="entity",
        licence=EmojiDataset.info.licence,
        citation=EmojiDataset.info.citation,
        url=EmojiDataset.info.url,
        ntypes=("entity",),
        settings=SETTINGS,
        published=MappingProxyType({"entity": 3410, "relations": 5, "split_sizes": [9477, 1184, 1184]}),
    )

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Return the graph; `root` and `require_official` change nothing, for there is only the embedded data."""
        return load_emoji_kg()

    def fetch(self, root: Path) -> list[Path]:
        """Return no paths: there is nothing to fetch."""
        return []


def load_emoji_kg() -> MultimodalGraph:
    """Build the knowledge graph from the arrays inside the package.

    Returns
    -------
    MultimodalGraph
        Entities ``emoji:1F680``, ``keyword:rocket``, ``group:travel-places``, ``version:3.0``; relations
        ``has_keyword``, ``in_group``, ``introduced_in``, ``part_of``, ``variant_of``; modalities ``text``, ``image``,
        ``numeric``. 80 % training, 10 % validation, 10 % test triples, always the same.

    Raises
    ------
    DataError
        If a file of the package is missing or damaged.

    Notes
    -----
    An emoji that is part of its own variant, such as the mage of the woman mage, is not said to be: the one triple
    would give the other away.
    """
    description, arrays, sums = embedded_contents()
    names = {**{kind: description[kind]["ids"] for kind in MODALITIES}, "group": description["classes"]}
    first = dict(zip(KINDS, np.cumsum([0, *(len(names[kind]) for kind in KINDS[:-1])]).tolist(), strict=True))
    entities = tuple(f"{kind}:{name}" for kind in KINDS for name in names[kind])
    rows = _triples(description["emoji"]["ids"], arrays, first)
    sizes = [int(share * len(rows)) for share in SHARES.values()]
    train, val, test = map(torch.from_numpy, split_triples(rows, sizes, np.random.default_rng(SEED)))
    features, present = _features(arrays, names, first)
    graph = MultimodalGraph.from_triples(
        TripleSet(train, val, test, entities, RELATIONS),
        features=features,
        present=present,
        sources={name: facts["source"] for name, facts in description["modalities"].items()},
        source=DataSource("embedded", files=FILES, sha256=sums),
        name="emoji-kg",
    )
    shown = {**names, "emoji": description["emoji"]["names"]}
    graph.node_names = {"entity": [name for kind in KINDS for name in shown[kind]]}
    return graph


def _triples(codes: Sequence[str], arrays: Mapping[str, Any], first: Mapping[str, int]) -> IntArray:
    """Return ``(n, 3)`` rows, relation by relation."""
    emoji = np.arange(len(codes))
    variants = _variants(codes)
    parts = arrays["part_of"].astype(np.int64)
    size = len(codes)
    told = np.isin(parts[1] * size + parts[0], variants[0] * size + variants[1])
    pairs = {
        "has_keyword": arrays["has_keyword"].astype(np.int64) + [[0], [first["keyword"]]],
        "in_group": np.stack([emoji, arrays["emoji.label"] + np.int64(first["group"])]),
        "introduced_in": arrays["introduced_in"].astype(np.int64) + [[0], [first["version"]]],
        "part_of": parts[:, ~told],
        "variant_of": variants,
    }
    return np.concatenate(
        [
            np.stack([heads, np.full_like(heads, RELATIONS.index(relation)), tails], axis=1)
            for relation, (heads, tails) in pairs.items()
        ]
    )


def _variants(codes: Sequence[str]) -> IntArray:
    """Return ``(2, n)`` numbers of emoji and of the one without gender that each is a variant of."""
    plain = ["-".join(point for point in code.split("-") if point != VARIATION) for code in codes]
    place = {code: number for number, code in enumerate(plain)}
    found = [(number, place.get(_without_gender(code), number)) for number, code in enumerate(plain)]
    return np.array([pair for pair in found if pair[0] != pair[1]], dtype=np.int64).T


def _without_gender(code: str) -> str:
    parts = code.split(f"-{JOINER}-")
    if len(parts) == 2 and parts[1] in SIGNS:
        return parts[0]
    return f"-{JOINER}-".join([PERSON, *parts[1:]]) if len(parts) > 1 and parts[0] in GENDERED else code


def _features(
    arrays: Mapping[str, Any], names: Mapping[str, Sequence[str]], first: Mapping[str, int]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    total = sum(map(len, names.values()))
    features: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for kind, modalities in MODALITIES.items():
        rows = slice(first[kind], first[kind] + len(names[kind]))
        for modality in modalities:
            values = torch.from_numpy(arrays[f"{kind}.{modality}"].astype(np.float32))
            features.setdefault(modality, torch.zeros(total, values.shape[1]))[rows] = values
            present.setdefault(modality, torch.zeros(total, dtype=torch.bool))[rows] = True
    return features, present
