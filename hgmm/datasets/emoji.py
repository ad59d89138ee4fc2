"""The embedded emoji graph: 1,906 emoji with a name and a picture, the keywords they share, and their releases.

Built by ``scripts/build_emoji.py`` from Unicode CLDR names and keywords and from the Noto Emoji images. Words that
state a group's name are no keywords and do not enter the text features; releases up to 2.0 are one version, because
nine in ten emoji of 2.0 are flags. Most flags are left without a keyword: how many keywords an emoji has tells
.375 of the test nodes right (largest: .202). The keywords themselves, one column each, tell .703 (logistic regression);
``examples/emoji_baselines.py`` computes this and the other inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from hgmm.datasets.base import Dataset, DatasetInfo, register
from hgmm.dgl_compat import dgl
from hgmm.errors import DataError, ShapeError
from hgmm.graph import DataSource, GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.typing import CanonicalEtype

__all__ = ["FILES", "EmojiDataset", "embedded_contents", "load_emoji", "thumbnail"]

DATA = Path(__file__).parent / "_data"
FILES = ("emoji.json", "emoji.safetensors")
CHECKSUMS = "emoji.sha256"
REINSTALL = "install hgmm again, or rebuild the files with scripts/build_emoji.py"

# Each stored relation with the name of its reverse.
RELATIONS: tuple[tuple[CanonicalEtype, str], ...] = (
    (("emoji", "has_keyword", "keyword"), "keyword_of"),
    (("emoji", "part_of", "emoji"), "has_part"),
    (("emoji", "introduced_in", "version"), "introduces"),
)
MODALITIES = {"emoji": ("text", "image"), "keyword": ("text",), "version": ("numeric",)}

INFO = DatasetInfo(
    name="emoji",
    title="Emoji, their keywords and their releases",
    description=(
        "Which of the nine Unicode groups does an emoji belong to? Emoji carry a name and a picture, keywords a text, "
        "versions two numbers. part_of leads from an emoji to those that are made of it, such as rocket to astronaut."
    ),
    target="emoji",
    licence=(
        "MIT (emojibase-data), Unicode-3.0 (CLDR names and keywords), Apache-2.0 (Noto Emoji images and features), "
        "PDDL-1.0 (GloVe vectors behind the text features)"
    ),
    citation=(
        "Unicode CLDR and Unicode Technical Standard 51; Miles Johnson: emojibase-data 17.0.0; Google: Noto Emoji, in "
        "Cal Henderson: emoji-datasource-google 16.0.0; Pennington, Socher and Manning: GloVe, EMNLP 2014"
    ),
    url="https://github.com/milesj/emojibase",
    published=MappingProxyType(
        {
            "emoji": 1906,
            "keyword": 1482,
            "version": 13,
            "has_keyword": 7465,
            "part_of": 514,
            "introduced_in": 1906,
            "classes": 9,
        }
    ),
    ntypes=tuple(MODALITIES),
    # Chosen by validation accuracy; docs/results.md has the runs.
    variant_settings=MappingProxyType(
        {
            "sharp": {
                "model.num_heads": 4,
                "train.epochs": 60,
                "train.learning_rate": 1e-2,
                "train.weight_decay": 0.3,
                "train.label_smoothing": 0.2,
            }
        }
    ),
)


@register
class EmojiDataset(Dataset):
    """The embedded dataset; it needs no files besides the package."""

    info = INFO

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Return the graph; `root` and `require_official` change nothing, for there is only the embedded data."""
        return load_emoji()

    def fetch(self, root: Path) -> list[Path]:
        """Return no paths: there is nothing to fetch."""
        return []


def load_emoji() -> MultimodalGraph:
    """Build the emoji graph from the arrays inside the package.

    Returns
    -------
    MultimodalGraph
        Node types ``emoji`` (text, image; labels; split 20/10/70 per class), ``keyword`` (text), ``version`` (numeric);
        the relations has_keyword, part_of, introduced_in and their reverses keyword_of, has_part, introduces. Features
        are float32. The numbers of all nodes are shuffled, so that they say nothing about the class.

    Raises
    ------
    DataError
        If a file of the package is missing or damaged.
    """
    description, arrays, sums = embedded_contents()
    g = dgl.heterograph(_edges(arrays), num_nodes_dict={t: len(description[t]["ids"]) for t in MODALITIES})
    for ntype, names in MODALITIES.items():
        for name in names:
            g.nodes[ntype].data[name] = torch.from_numpy(arrays[f"{ntype}.{name}"].astype(np.float32))
    g.nodes["emoji"].data["label"] = torch.from_numpy(arrays["emoji.label"].astype(np.int64))
    for split, code in description["split"]["codes"].items():
        g.nodes["emoji"].data[f"{split}_mask"] = torch.from_numpy(arrays["emoji.split"] == code)
    return MultimodalGraph(
        g,
        _schema(description, arrays),
        node_ids={ntype: description[ntype]["ids"] for ntype in MODALITIES},
        node_names={"emoji": description["emoji"]["names"]},
        source=DataSource("embedded", files=FILES, sha256=sums),
        name="emoji",
    )


def thumbnail(node: int) -> bytes:
    """Return the picture of an emoji as a PNG file of 32 x 32 pixels.

    Parameters
    ----------
    node
        Number of the emoji, from 0 to 1,905.

    Returns
    -------
    bytes
        The file's content. Images: Noto Emoji, Apache-2.0.

    Raises
    ------
    ShapeError
        If there is no such node.
    DataError
        If a file of the package is missing or damaged.
    """
    _, arrays, _ = embedded_contents()
    offsets = arrays["thumbnail_offsets"]
    if not 0 <= node < len(offsets) - 1:
        raise ShapeError(f"thumbnail node: must be from 0 to {len(offsets) - 2}, got {node}; give an emoji's number")
    png: bytes = arrays["thumbnails"][offsets[node] : offsets[node + 1]].tobytes()
    return png


@lru_cache(maxsize=1)
def embedded_contents() -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Read, check and parse the package's files once; callers copy what they hand out."""
    sums = dict(line.split()[::-1] for line in _read(CHECKSUMS).decode().splitlines())
    files = {name: _read(name) for name in FILES}
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != sums.get(name):
            raise DataError(
                f"dataset emoji, file {name}: its SHA-256 must be {sums.get(name)}, got {found}; {REINSTALL}"
            )
    return json.loads(files["emoji.json"]), safetensors.numpy.load(files["emoji.safetensors"]), sums


def _read(name: str) -> bytes:
    try:
        return (DATA / name).read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"dataset emoji, file {name}: must be in the package, but it is missing; {REINSTALL}"
        ) from error


def _edges(arrays: dict[str, Any]) -> dict[CanonicalEtype, tuple[torch.Tensor, torch.Tensor]]:
    edges = {}
    for (source, etype, destination), reverse in RELATIONS:
        tail, head = torch.from_numpy(arrays[etype].astype(np.int64))
        edges[(source, etype, destination)] = (tail, head)
        edges[(destination, reverse, source)] = (head, tail)
    return edges


def _schema(description: dict[str, Any], arrays: dict[str, Any]) -> GraphSchema:
    facts = description["modalities"]
    return GraphSchema(
        ntypes=tuple(MODALITIES),
        canonical_etypes=tuple(_both_directions()),
        modalities={
            ntype: {
                name: ModalitySpec(facts[name]["kind"], arrays[f"{ntype}.{name}"].shape[1], facts[name]["source"])
                for name in names
            }
            for ntype, names in MODALITIES.items()
        },
        target="emoji",
        classes=tuple(description["classes"]),
    )


def _both_directions() -> Iterable[CanonicalEtype]:
    for (source, etype, destination), reverse in RELATIONS:
        yield source, etype, destination
        yield destination, reverse, source
