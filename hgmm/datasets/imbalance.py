"""A generated graph in which text and image contradict each other at most nodes, and which one is right varies."""

from __future__ import annotations

from pathlib import Path

from hgmm.datasets.base import Dataset, DatasetInfo, register
from hgmm.datasets.synthetic import refuse_official, synthetic
from hgmm.graph import MultimodalGraph

__all__ = ["PlantedImbalanceDataset"]

NODES = {"item": 2000}
EDGES = {("item", "similar", "item"): 12_000}
WIDTHS = {"item": {"text": 32, "image": 32}}
CLASSES = 8
SPLIT = (400, 200, 1400)


@register
class PlantedImbalanceDataset(Dataset):
    """What GraphMNL calls node-level branch semantic imbalance, planted; the construction is ours."""

    info = DatasetInfo(
        name="planted-imbalance",
        title="Generated items whose text and image contradict each other",
        description=(
            "At 60 % of the items one of text and image tells the class and the other a wrong one, equally clearly; "
            "which one misleads varies by item, and only the neighbours can tell. More by hgmm.datasets.synthetic("
            "imbalance=..., imbalance_strength=...)."
        ),
        target="item",
        licence="none needed: generated",
        citation="hgmm; the notion: GraphMNL, arXiv 2606.12863",
        published={
            **NODES,
            "similar": 12_000,
            "classes": CLASSES,
            "class_counts": [250] * CLASSES,
            "split_sizes": list(SPLIT),
        },
        ntypes=tuple(NODES),
    )

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Generate the graph; `root` changes nothing, for there are no files.

        Raises
        ------
        DataError
            If `require_official` is set.
        """
        refuse_official(self.info.name, require_official)
        return synthetic(
            NODES,
            EDGES,
            WIDTHS,
            classes=CLASSES,
            reliability=1.0,
            imbalance=0.6,
            homophily=0.7,
            split=SPLIT,
            name=self.info.name,
        )
