"""AMAZON-1 and AMAZON-2 of HGNN-IMA: one graph of items viewed and bought together; the second adds the price.

The numbers of nodes and edges, the widths and the splits are not published; only the twelve classes are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hgmm.datasets.arrays import read_array, whole_numbers
from hgmm.datasets.base import DatasetInfo, OfficialFile, register
from hgmm.datasets.official import OfficialDataset, RawGraph
from hgmm.datasets.planted import IntArray
from hgmm.datasets.published import CITATION, TERMS, URL, settings, variant_settings
from hgmm.datasets.safe_pickle import load_pickled_array
from hgmm.datasets.synthetic import synthetic
from hgmm.errors import DataError
from hgmm.graph import DataSource, MultimodalGraph
from hgmm.typing import CanonicalEtype

__all__ = ["Amazon1Dataset", "Amazon2Dataset"]

RELATIONS = ("also_bought", "also_viewed", "bought_together", "buy_after_viewing")
CLASSES = tuple(str(number) for number in range(12))
SPLITS = ("train", "val", "test")

# Of the stand-in; made up, see the module's first lines.
STAND_IN_NODES = 6000
STAND_IN_EDGES = {"also_bought": 24_000, "also_viewed": 24_000, "bought_together": 4_000, "buy_after_viewing": 8_000}
STAND_IN_WIDTH = 512

GRAPH_FILES = (OfficialFile("triples.npy"), OfficialFile("item_labels.npy"), OfficialFile("item_data_dict.npy"))
FEATURE_FILES = (
    OfficialFile("item_text_features.npy", "text", "item"),
    OfficialFile("item_image_features.npy", "image", "item"),
)
PRICE_FILE = OfficialFile("item_price.npy", "numeric", "item")


def _etype(relation: str) -> CanonicalEtype:
    return ("item", relation, "item")


class _CopurchaseDataset(OfficialDataset):
    """Either dataset; two of the files are pickles and are read under restrictions."""

    folders: ClassVar[tuple[str, ...]] = ("amazon-1", "amazon1", "AMAZON-1")
    class_names = CLASSES
    stand_in_has = "the published schema and number of classes, and made-up sizes (none are published)"

    def read_graph(self, folder: Path) -> RawGraph:
        """Read triples, labels and split.

        The distinct pairs of each relation are followed by the same pairs turned round, as in the official loader: a
        pair that is stored both ways becomes two parallel edges each way.
        """
        path = folder / "triples.npy"
        rows = load_pickled_array(path)
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise DataError(f"{path}: must be rows (head, tail, relation name), got shape {rows.shape}")
        labels = whole_numbers(folder / "item_labels.npy", read_array(folder / "item_labels.npy"))
        ends = _whole_numbers(path, rows[:, :2], len(labels))
        names = rows[:, 2].astype(str)
        unknown = sorted(set(names.tolist()) - set(RELATIONS))
        if unknown:
            raise DataError(f"{path}: unknown relation {unknown[0]!r}; known: {', '.join(RELATIONS)}")
        edges = {}
        for relation in RELATIONS:
            pairs = np.unique(ends[names == relation], axis=0)
            both = np.concatenate([pairs, pairs[:, ::-1]])
            edges[_etype(relation)] = (both[:, 0].copy(), both[:, 1].copy())
        return RawGraph({"item": len(labels)}, edges, labels, _splits(folder / "item_data_dict.npy"))

    def stand_in(self, source: DataSource) -> MultimodalGraph:
        """Generate a graph with the published schema and classes; its sizes are made up, for none are published."""
        return synthetic(
            {"item": STAND_IN_NODES},
            {_etype(relation): number for relation, number in STAND_IN_EDGES.items()},
            {"item": {m: 1 if m == "numeric" else STAND_IN_WIDTH for m in self.modality_names}},
            target="item",
            classes=len(CLASSES),
            reliability=0.65,
            homophily=0.6,
            split=(0.2, 0.1, 0.7),
            name=self.info.name,
            source=source,
        )


def _whole_numbers(path: Path, cells: np.ndarray[Any, np.dtype[Any]], count: int) -> IntArray:
    numbers = _integers(f"{path}: heads and tails", cells)
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if len(outside):
        raise DataError(f"{path}: item numbers must be from 0 to {count - 1}, got {int(outside[0])}")
    return numbers


def _integers(where: str, cells: Any) -> IntArray:
    """Convert numbers, also such as are written as text, which the official code calls int on."""
    try:
        return np.asarray(cells).astype(np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} must be whole numbers ({error})") from error


def _splits(path: Path) -> dict[str, IntArray]:
    content = load_pickled_array(path)
    table = content.item() if content.ndim == 0 else None
    if not isinstance(table, dict):
        raise DataError(f"{path}: must hold a dict, got an array of shape {content.shape}")
    missing = [f"{name}_idx" for name in SPLITS if f"{name}_idx" not in table]
    if missing:
        raise DataError(f"{path}: {missing[0]!r} is missing; found: {', '.join(sorted(map(str, table)))}")
    return {name: _integers(f"{path}: {name}_idx", table[f"{name}_idx"]) for name in SPLITS}


@register
class Amazon1Dataset(_CopurchaseDataset):
    """Text and image of every item; the published files, those of them that are there, or a stand-in."""

    modality_names = ("text", "image")
    info = DatasetInfo(
        name="amazon-1",
        title="Amazon items viewed and bought together",
        description="Twelve classes of items, four relations; text and image of every item.",
        target="item",
        licence=TERMS,
        citation=CITATION,
        url=URL,
        published={"classes": len(CLASSES)},
        published_scores={"micro_f1": 0.8946, "macro_f1": 0.8233},
        published_variant="modal2_align",
        official_files=GRAPH_FILES + FEATURE_FILES,
        official_ntypes={"item": "0"},
        settings=settings(hidden_size=128, epochs=200, patience=50, monitor="micro_f1"),
        variant_settings={"modal2_align": variant_settings(fill=None, branch_weight=1.0, missing_attention_weight=0.0)},
    )


@register
class Amazon2Dataset(_CopurchaseDataset):
    """As AMAZON-1, with the price as third modality; its files are looked for in both datasets' folders."""

    folders = ("amazon-2", "amazon2", "AMAZON-2", *_CopurchaseDataset.folders)
    modality_names = ("text", "image", "numeric")
    info = DatasetInfo(
        name="amazon-2",
        title="Amazon items viewed and bought together, with prices",
        description="Twelve classes of items, four relations; text, image and price of every item.",
        target="item",
        licence=TERMS,
        citation=CITATION,
        url=URL,
        published={"classes": len(CLASSES)},
        published_scores={"micro_f1": 0.8905, "macro_f1": 0.8182},
        published_variant="modal3_align",
        official_files=(*GRAPH_FILES, *FEATURE_FILES, PRICE_FILE),
        official_ntypes={"item": "0"},
        settings=settings(hidden_size=128, epochs=200, patience=50, monitor="macro_f1"),
        variant_settings={"modal3_align": variant_settings(fill=None, branch_weight=1.0, missing_attention_weight=0.0)},
    )
