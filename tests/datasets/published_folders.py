"""Writes small folders in the layouts of MAGB, OpenMAG and MM-Graph, with the names that drift as the real ones do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hgmm.dgl_compat import dgl

NUM_NODES = 40
CLASSES = ("Snacks", "Tea", "Spices", "Coffee")
# One direction of each edge, one of them twice, one both ways, and a self-loop, as MAGB's builders leave them.
EDGES = torch.tensor([[0, 1], [1, 2], [1, 2], [2, 1], [3, 3], *([n, n + 1] for n in range(4, NUM_NODES - 1))])
DISTINCT = 2 + NUM_NODES - 5


def features(width: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((NUM_NODES, width)).astype(np.float32)


def labels() -> torch.Tensor:
    return torch.arange(NUM_NODES) % len(CLASSES)


def write_graph(path: Path, **node_data: torch.Tensor) -> None:
    g = dgl.graph(EDGES.unbind(1), num_nodes=NUM_NODES)
    g.ndata["label"] = labels()
    for name, values in node_data.items():
        g.ndata[name] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    dgl.save_graphs(str(path), [g])


def write_magb(folder: Path, prefix: str = "GroceryS") -> None:
    """Write MAGB's layout: the graph has another prefix than the features, and there are several encoders."""
    write_graph(folder / "GroceryGraph.pt")
    for place in ("TextFeature", "ImageFeature", "MMFeature", "Inference"):
        (folder / place).mkdir()
    np.save(folder / "TextFeature" / f"{prefix}_roberta_base_256_mean.npy", features(6, 1))
    np.save(folder / "TextFeature" / f"{prefix}_Llama_3.2_1B_Instruct_256_mean.npy", features(8, 2).astype(np.float16))
    np.save(folder / "ImageFeature" / f"{prefix}_openai_clip-vit-large-patch14.npy", features(5, 3))
    np.save(folder / "ImageFeature" / f"{prefix}_swinv2_large.npy", features(7, 4))
    np.save(folder / "MMFeature" / f"{prefix}_LLAMA8B_CLIP.npy", features(9, 5))
    table = {
        "id": range(NUM_NODES),
        "category": ["['Grocery']"] * NUM_NODES,
        "text": ["Title: a; Description: b, c"] * NUM_NODES,
        "also_buy": ["['x', 'y']"] * NUM_NODES,
        "second_category": [CLASSES[label] for label in labels().tolist()],
        "label": labels().tolist(),
    }
    pd.DataFrame(table).to_csv(folder / "Grocery.csv", index=False)


def write_openmag(folder: Path, **node_data: torch.Tensor) -> None:
    """Write OpenMAG's layout: lower-case folders and one encoder."""
    write_graph(folder / f"{folder.name}Graph.pt", **node_data)
    for place, kind, width in (("text_features", "text", 6), ("image_features", "image", 5)):
        (folder / place).mkdir()
        name = f"{folder.name}_{kind}_Qwen_Qwen2_VL_7B_Instruct_768d.npy"
        np.save(folder / place / name, features(width, width))


def write_mm_graph(folder: Path, *, arrays: bool = False) -> None:
    """Write MM-Graph's layout: lists, or NumPy arrays, inside torch files; two encoders, text and image joined."""
    folder.mkdir(parents=True)
    label = labels().clone()
    label[5] = -1
    order = np.random.default_rng(0).permutation(NUM_NODES)
    parts = dict(zip(("train_idx", "val_idx", "test_idx"), np.split(order, [20, 30]), strict=True))
    torch.save(EDGES.numpy() if arrays else EDGES.tolist(), folder / "nc_edges-nodeid.pt")
    torch.save(label.numpy() if arrays else label.tolist(), folder / "labels-w-missing.pt")
    splits = {key: nodes if arrays else torch.from_numpy(nodes) for key, nodes in parts.items()}
    torch.save(splits, folder / "split.pt")
    write_joined(folder)


def write_joined(folder: Path) -> None:
    torch.save(torch.from_numpy(features(8, 6)), folder / "clip_feat.pt")
    torch.save(torch.from_numpy(features(12, 7)), folder / "t5vit_feat.pt")


def write_mm_links(folder: Path, *names: str) -> None:
    """Write MM-Graph's layout for links; every named file has other test links."""
    folder.mkdir(parents=True)
    write_joined(folder)
    for shift, name in enumerate(names):
        split = {
            "train": {"source_node": torch.arange(20), "target_node": torch.arange(20) + 1},
            "valid": {
                "source_node": torch.arange(5),
                "target_node": torch.arange(5) + 30,
                "target_node_neg": torch.zeros(5, 3, dtype=torch.int64),
            },
            "test": {
                "source_node": torch.arange(6),
                "target_node": torch.arange(6) + 20 + shift,
                "target_node_neg": torch.zeros(6, 3, dtype=torch.int64),
            },
        }
        torch.save(split, folder / name)
