"""Read a folder of MM-Graph: edges, labels, splits and joined features as ``torch.save`` wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

import torch
from torch import Tensor

from hgmm.datasets.attributed import (
    MODALITIES,
    FeatureRows,
    attributed_graph,
    describe_source,
    feature_rows,
    split_joined,
    undirected,
)
from hgmm.datasets.source_options import JOINED, SourceOptions, choose_file
from hgmm.datasets.torch_files import load_torch, numbers_of
from hgmm.errors import ConfigError, DataError
from hgmm.graph import MultimodalGraph
from hgmm.triples import TripleSet

__all__ = [
    "DEFAULT_FEATURES",
    "EDGE_FILE",
    "FEATURE_FILES",
    "LABEL_FILE",
    "LINK_FILES",
    "RELATION",
    "SPLIT_FILE",
    "choose_link_file",
    "read_mm_graph",
    "read_mm_graph_links",
]

EDGE_FILE = "nc_edges-nodeid.pt"
LABEL_FILE = "labels-w-missing.pt"
SPLIT_FILE = "split.pt"
LINK_FILES = "lp-edge-split*.pt"
FEATURE_FILES = "*_feat.pt"
SPLIT_KEYS = {"train": "train_idx", "val": "val_idx", "test": "test_idx"}
LINK_KEYS = {"train": "train", "val": "valid", "test": "test"}
RELATION = "linked"
DEFAULT_FEATURES = "clip_feat"

P = TypeVar("P", bound=PurePath)


def read_mm_graph(folder: Path, options: SourceOptions, *, name: str, num_classes: int = 0) -> MultimodalGraph:
    """Read a node classification folder.

    Parameters
    ----------
    folder : Path
        Holds ``nc_edges-nodeid.pt`` (rows of two node numbers), ``labels-w-missing.pt`` (negative = none),
        ``split.pt`` and one or more ``*_feat.pt``, whose rows are text followed by image.
    options : SourceOptions
        Which of the feature files, and the column at which it is split.
    name : str
        Name of the graph.
    num_classes : int, optional
        At least so many classes, should the last ones be without a node.

    Raises
    ------
    DataError
        If a file is missing, damaged, or does not fit the others.
    ConfigError
        If an option does not apply.
    """
    _refuse_shots(options)
    paths = {file: _existing(folder / file) for file in (EDGE_FILE, LABEL_FILE, SPLIT_FILE)}
    edges = numbers_of(paths[EDGE_FILE], load_torch(paths[EDGE_FILE]), ndim=2)
    labels = numbers_of(paths[LABEL_FILE], load_torch(paths[LABEL_FILE]), ndim=1)
    if edges.shape[1] != 2:
        raise DataError(f"{paths[EDGE_FILE]}: must be rows of two node numbers, got the shape {tuple(edges.shape)}")
    _check_range(paths[EDGE_FILE], edges, len(labels))
    table = _mapping(paths[SPLIT_FILE], SPLIT_KEYS)
    splits = {split: numbers_of(f"{paths[SPLIT_FILE]} {key}", table[key], ndim=1) for split, key in SPLIT_KEYS.items()}
    for nodes in splits.values():
        _check_range(paths[SPLIT_FILE], nodes, len(labels))
    rows = _features(folder, options, num_nodes=len(labels))
    count = max(num_classes, int(labels.max()) + 1 if len(labels) else 0)
    return attributed_graph(
        undirected(*edges.unbind(1), num_nodes=len(labels)),
        labels,
        splits,
        rows,
        classes=tuple(map(str, range(count))),
        source=describe_source(folder, list(paths.values()), rows),
        name=name,
    )


def read_mm_graph_links(folder: Path, options: SourceOptions, *, name: str) -> MultimodalGraph:
    """Read a link prediction folder as a knowledge graph of one relation, ``linked``.

    Parameters
    ----------
    folder : Path
        Holds ``lp-edge-split.pt``, ``lp-edge-split-random.pt`` or ``lp-edge-split-hard.pt`` and one or more
        ``*_feat.pt``.
    options : SourceOptions
        Which of the files.
    name : str
        Name of the graph.

    Raises
    ------
    DataError
        If a file is missing, damaged, or does not fit the others.
    ConfigError
        If an option does not apply.

    Notes
    -----
    The published negatives (``target_node_neg``) are not read: hgmm ranks among all nodes.
    """
    _refuse_shots(options)
    path = choose_link_file(sorted(folder.glob(LINK_FILES)), options)
    if path is None:
        raise DataError(f"dataset folder {folder}: must hold a file {LINK_FILES}, found none; fetch it")
    table = _mapping(path, LINK_KEYS)
    triples = {split: _link_rows(path, key, table[key]) for split, key in LINK_KEYS.items()}
    rows = _features(folder, options, num_nodes=None)
    counts = {len(feature.values) for feature in rows.values()}
    if len(counts) > 1:
        raise DataError(f"{folder}: text and image must have equally many rows, got {sorted(counts)}; choose others")
    num_nodes = (
        counts.pop() if counts else 1 + max((int(part.max()) for part in triples.values() if len(part)), default=-1)
    )
    for part in triples.values():
        _check_range(path, part[:, ::2], num_nodes)
    return MultimodalGraph.from_triples(
        TripleSet(**triples, entity_vocab=tuple(map(str, range(num_nodes))), relation_vocab=(RELATION,)),
        features={modality: feature.values for modality, feature in rows.items()},
        present={modality: feature.present for modality, feature in rows.items() if not bool(feature.present.all())},
        source=describe_source(folder, [path], rows, ntype="entity"),
        name=name,
    )


def choose_link_file(found: Sequence[P], options: SourceOptions) -> P | None:
    """Return the file of links that is meant, ``lp-edge-split.pt`` if there are others and none is named."""
    return choose_file(found, "split", options, default="lp-edge-split.pt")


def _refuse_shots(options: SourceOptions) -> None:
    if options.shots is not None:
        raise ConfigError(f"data.shots: MM-Graph publishes its splits, got {options.shots}; leave it out")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file, and the graph cannot be read without it; fetch it")
    return path


def _mapping(path: Path, keys: Mapping[str, str]) -> Mapping[str, Any]:
    table = load_torch(path)
    lacking = [key for key in keys.values() if not isinstance(table, Mapping) or key not in table]
    if lacking:
        found = ", ".join(map(str, table)) if isinstance(table, Mapping) else type(table).__name__
        raise DataError(f"{path}: {lacking[0]!r} is missing; found: {found}")
    return dict(table)


def _link_rows(path: Path, key: str, table: Any) -> Tensor:
    ends = []
    for end in ("source_node", "target_node"):
        if not isinstance(table, Mapping) or end not in table:
            raise DataError(f"{path} {key}: {end!r} is missing; fetch the file again")
        ends.append(numbers_of(f"{path} {key} {end}", table[end], ndim=1))
    if len(ends[0]) != len(ends[1]):
        raise DataError(f"{path} {key}: as many targets as sources, got {len(ends[1])} and {len(ends[0])}")
    return torch.stack([ends[0], torch.zeros_like(ends[0]), ends[1]], dim=1)


def _check_range(where: object, nodes: Tensor, num_nodes: int) -> None:
    wrong = nodes[(nodes < 0) | (nodes >= num_nodes)]
    if len(wrong):
        raise DataError(f"{where}: node numbers must be from 0 to {num_nodes - 1}, got {int(wrong[0])}")


def _features(folder: Path, options: SourceOptions, *, num_nodes: int | None) -> dict[str, FeatureRows]:
    found = sorted(folder.glob(FEATURE_FILES))
    apart = [modality for modality in MODALITIES if modality in options.files]
    if apart:
        return dict(_separate(found, options, apart, num_nodes))
    path = choose_file(found, JOINED, options, default=DEFAULT_FEATURES)
    return {} if path is None else split_joined(feature_rows(path, num_nodes=num_nodes), options.split_at)


def _separate(
    found: list[Path], options: SourceOptions, modalities: Iterable[str], num_nodes: int | None
) -> Iterable[tuple[str, FeatureRows]]:
    for modality in modalities:
        path = choose_file(found, modality, options)
        if path is not None:
            yield modality, feature_rows(path, num_nodes=num_nodes)
