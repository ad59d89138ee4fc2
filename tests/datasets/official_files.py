"""Writes the published file layouts from generated graphs, so that the loaders are tested without the real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse

from hgmm.datasets.amazon_copurchase import RELATIONS
from hgmm.graph import MultimodalGraph


def write_movies(graph: MultimodalGraph, folder: Path, *, edge_file: str, split_file: str) -> None:
    """Write the graph files of IMDB or DOUBAN, with every fifth edge twice and all reverse rows."""
    folder.mkdir(parents=True)
    first = {"movie": 0, "director": graph.num_nodes("movie")}
    first["actor"] = first["director"] + graph.num_nodes("director")
    rows = []
    for number, etype in ((0, "md"), (2, "ma")):
        src, dst = (end.numpy() for end in graph.g.edges(etype=etype))
        forward = np.stack([src, dst + first["director" if etype == "md" else "actor"], np.full(len(src), number)], 1)
        backward = forward[:, [1, 0, 2]] + [0, 0, 1]
        rows += [forward, backward, forward[::5]]
    np.save(folder / edge_file, np.concatenate(rows).astype(np.int32))
    _write_target(graph, folder, "labels.npy", split_file)


def write_amazon(graph: MultimodalGraph, folder: Path) -> None:
    """Write the graph files of AMAZON: half of the symmetric pairs as relation 0, the other half as relation 1."""
    folder.mkdir(parents=True)
    src, dst = (end.numpy() for end in graph.g.edges(etype="ii"))
    similar = np.stack([src, dst], 1)
    item, review = (end.numpy() for end in graph.g.edges(etype="ir"))
    rated = np.stack([item, review + graph.num_nodes("item")], 1)
    parts = [(similar[::2], 0), (similar[1::2], 1), (rated, 2), (rated[::3], 2), (rated[:, ::-1], 3)]
    rows = [np.concatenate([pairs, np.full((len(pairs), 1), number)], 1) for pairs, number in parts]
    np.save(folder / "rdf.npy", np.concatenate(rows))
    _write_target(graph, folder, "labels.npy", "train_val_test_idx_amaze.npz")


def write_copurchase(graph: MultimodalGraph, folder: Path) -> None:
    """Write the graph files of AMAZON-1, pickles included: ids as text, pairs of a relation one way only."""
    folder.mkdir(parents=True)
    rows: list[list[object]] = []
    for relation in RELATIONS:
        src, dst = (end.numpy() for end in graph.g.edges(etype=relation))
        rows += [[str(s), int(d), relation] for s, d in zip(src, dst, strict=True) if s < d]
    np.save(folder / "triples.npy", np.array(rows, dtype=object), allow_pickle=True)
    np.save(folder / "item_labels.npy", graph.labels.numpy())
    splits = {f"{name}_idx": graph.split(name).numpy() for name in ("train", "val", "test")}
    np.save(folder / "item_data_dict.npy", np.array(splits, dtype=object), allow_pickle=True)


def write_matrix(path: Path, values: np.ndarray, *, sparse: bool = False) -> None:
    """Write features as the suffix asks for; in a .npz dense under ``feature``, or as SciPy's sparse matrix."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif sparse:
        scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(values))
    else:
        np.savez(path, feature=values)


def _write_target(graph: MultimodalGraph, folder: Path, label_file: str, split_file: str) -> None:
    np.save(folder / label_file, graph.labels.numpy().astype(np.int32))
    splits = {f"{name}_idx": graph.split(name).numpy().astype(np.int32) for name in ("train", "val", "test")}
    np.savez(folder / split_file, **splits)
