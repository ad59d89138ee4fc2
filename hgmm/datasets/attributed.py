"""Multimodal attributed graphs: one node type, one relation, a text and an image vector a node.

Every one becomes a graph of the node type ``node`` and the relation ``linked``, whatever its publisher calls them, so
that models and settings carry over from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hgmm.datasets.arrays import read_matrix
from hgmm.datasets.planted import IntArray
from hgmm.datasets.source_options import JOINED, SourceOptions, choose_file
from hgmm.datasets.torch_files import load_dgl_graph, load_torch, numbers_of
from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, DataError
from hgmm.files import file_sha256
from hgmm.graph import DataSource, GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.graph.multimodal import SPLITS
from hgmm.graph.schema import PRESENT_SUFFIX
from hgmm.typing import CanonicalEtype

__all__ = [
    "DEFAULT_FEATURES",
    "ETYPE",
    "FEATURE_FOLDERS",
    "GRAPH_FILES",
    "MODALITIES",
    "NTYPE",
    "FeatureRows",
    "attributed_graph",
    "describe_source",
    "feature_rows",
    "magb_split",
    "read_attributed",
    "split_joined",
    "undirected",
]

NTYPE = "node"
ETYPE: CanonicalEtype = (NTYPE, "linked", NTYPE)
MODALITIES = ("text", "image")

GRAPH_FILES = "*Graph.pt"
# MAGB's name of the folder, then OpenMAG's.
FEATURE_FOLDERS = {"text": ("TextFeature", "text_features"), "image": ("ImageFeature", "image_features")}
# Of the many files, those of encoders that every folder of MAGB has, 768 columns each.
DEFAULT_FEATURES = {"text": "roberta_base", "image": "clip-vit-large-patch14"}
JOINED_FOLDERS = ("MMFeature", "mm_features")
CLASS_COLUMNS = ("second_category", "subreddit", "category")
SHARES = {"train": 0.6, "val": 0.2}
SPLIT_SEED = 42


class FeatureRows(NamedTuple):
    """One modality: ``(N, width)`` float32 values, ``(N,)`` bool presence, and the file they come from."""

    values: Tensor
    present: Tensor
    file: Path


def magb_split(labels: IntArray, *, shots: int | None = None) -> dict[str, IntArray]:
    """Draw the split of MAGB, number by number as its code does.

    Parameters
    ----------
    labels : ndarray
        ``(N,)`` whole numbers.
    shots : int, optional
        Training nodes of each class. Default: 60 % of all nodes train, 20 % validate, in one permutation.

    Returns
    -------
    dict of str to ndarray
        Node numbers of ``train``, ``val`` and ``test`` in the order in which they are drawn.

    Notes
    -----
    NumPy's legacy generator with the seed 42, whose stream is frozen. With `shots`, the permutation is drawn first and
    thrown away, the nodes of each class in ascending order of the classes are shuffled, and a fifth of the rest
    validates.

    References
    ----------
    ``split_graph`` in https://github.com/sktsherlock/MAGB, ``GNN/GraphData.py``.
    """
    rng = np.random.RandomState(SPLIT_SEED)
    order = rng.permutation(len(labels))
    if shots is None:
        borders = np.cumsum([int(len(labels) * SHARES[name]) for name in ("train", "val")])
        return dict(zip(SPLITS, np.split(order, borders), strict=True))
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rng.shuffle(members)
        chosen.append(members[:shots])
    train = np.concatenate(chosen)
    rest = np.setdiff1d(order, train)
    rng.shuffle(rest)
    val, test = np.split(rest, [int(len(rest) * SHARES["val"])])
    return {"train": train, "val": val, "test": test}


def read_attributed(folder: Path, options: SourceOptions, *, name: str, num_classes: int = 0) -> MultimodalGraph:
    """Read a folder as MAGB and OpenMAG lay it out.

    Parameters
    ----------
    folder : Path
        Holds one ``*Graph.pt`` (DGL's binary format, labels in it), optionally one ``*.csv`` with a row a node, and
        ``.npy`` files in ``TextFeature`` or ``text_features``, ``ImageFeature`` or ``image_features``, ``MMFeature``.
    options : SourceOptions
        Which of the feature files.
    name : str
        Name of the graph.
    num_classes : int, optional
        At least so many classes, should the last ones be without a node.

    Raises
    ------
    DataError
        If a file is missing, damaged, or does not fit the others.
    """
    path = _only(sorted(folder.glob(GRAPH_FILES)), folder)
    g = load_dgl_graph(path)
    if "label" not in g.ndata:
        raise DataError(f"{path}: must hold the labels as node data 'label', got {', '.join(g.ndata) or 'none'}")
    labels = numbers_of(path, g.ndata["label"].squeeze(), ndim=1)
    rows = _folder_features(folder, options, num_nodes=int(g.num_nodes()))
    if all(f"{split}_mask" in g.ndata for split in SPLITS):
        masks = {split: g.ndata[f"{split}_mask"].bool() for split in SPLITS}
        splits = {split: mask.nonzero()[:, 0] for split, mask in masks.items()}
    else:
        drawn = magb_split(labels.numpy(), shots=options.shots)
        splits = {split: torch.from_numpy(nodes) for split, nodes in drawn.items()}
    names, tables = _class_names(folder, labels.numpy(), num_classes)
    return attributed_graph(
        undirected(*g.edges(), num_nodes=int(g.num_nodes())),
        labels,
        splits,
        rows,
        classes=names,
        source=describe_source(folder, [path, *tables], rows),
        name=name,
    )


def attributed_graph(
    edges: tuple[Tensor, Tensor],
    labels: Tensor,
    splits: Mapping[str, Tensor],
    rows: Mapping[str, FeatureRows],
    *,
    classes: tuple[str, ...],
    source: DataSource,
    name: str,
) -> MultimodalGraph:
    """Build the graph.

    Parameters
    ----------
    edges : (Tensor, Tensor)
        ``(E,)`` int64 sources and destinations.
    labels : Tensor
        ``(N,)`` int64, negative = none.
    splits : mapping of str to Tensor
        Node numbers of ``train``, ``val`` and ``test``; those without a label are left out.
    rows : mapping of str to FeatureRows
        By modality.
    classes : sequence of str
        Class names.
    source, name
        As in `MultimodalGraph`.
    """
    g = dgl.heterograph({ETYPE: edges}, num_nodes_dict={NTYPE: len(labels)})
    data = g.nodes[NTYPE].data
    specs = {}
    for modality, feature in rows.items():
        data[modality] = feature.values
        if not bool(feature.present.all()):
            data[modality + PRESENT_SUFFIX] = feature.present
        specs[modality] = ModalitySpec(modality, int(feature.values.shape[1]), feature.file.name)
    data["label"] = labels.clamp(min=-1)
    for split, nodes in splits.items():
        mask = torch.zeros(len(labels), dtype=torch.bool).index_fill(0, nodes, True)
        data[f"{split}_mask"] = mask & (labels >= 0)
    # A modality without a file stays on the axis, so that a model may fill it.
    axis = MODALITIES if specs else ()
    schema = GraphSchema((NTYPE,), (ETYPE,), {NTYPE: specs}, target=NTYPE, classes=classes, modality_names=axis)
    return MultimodalGraph(g, schema, source=source, name=name)


def undirected(src: Tensor, dst: Tensor, *, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the distinct edges and their reverses, without self-loops, sorted by source and destination."""
    keys = torch.cat([src * num_nodes + dst, dst * num_nodes + src]).sort().values
    keys = keys[torch.cat([keys.new_ones(min(1, len(keys))), keys.diff()]) > 0]
    src, dst = keys // max(num_nodes, 1), keys % max(num_nodes, 1)
    return src[src != dst], dst[src != dst]


def feature_rows(path: Path, *, num_nodes: int | None) -> FeatureRows:
    """Read the features of a ``.npy`` or ``.pt`` file; a row with a number that is not finite counts as absent.

    Parameters
    ----------
    path : Path
        The file.
    num_nodes : int or None
        How many rows it must have, if that is known.

    Raises
    ------
    DataError
        If the file is damaged, no matrix, or has another number of rows than there are nodes.
    """
    if path.suffix == ".npy":
        values = torch.from_numpy(read_matrix(path))
    else:
        content = load_torch(path)
        if not isinstance(content, Tensor | np.ndarray | list):
            raise DataError(f"{path}: must be a matrix of features, got a {type(content).__name__}; choose another")
        loaded = torch.as_tensor(content)
        if loaded.ndim != 2 or not loaded.is_floating_point():
            raise DataError(f"{path}: must be a matrix of features, got {tuple(loaded.shape)} {loaded.dtype}")
        values = loaded.float()
    if num_nodes is not None and len(values) != num_nodes:
        raise DataError(f"{path}: must have one row for each of the {num_nodes} nodes, got {len(values)}")
    present = torch.isfinite(values).all(dim=1)
    return FeatureRows(values.masked_fill(~present[:, None], 0.0), present, path)


def split_joined(rows: FeatureRows, split_at: int | None) -> dict[str, FeatureRows]:
    """Part a joined matrix into its first columns, text, and those behind, image.

    Raises
    ------
    ConfigError
        If the column lies outside, or there is no middle.
    """
    width = int(rows.values.shape[1])
    if split_at is None and width % 2:
        raise ConfigError(f"data.split_at: {rows.file.name} has {width} columns, which have no middle; name the column")
    column = width // 2 if split_at is None else split_at
    if not 0 < column < width:
        raise ConfigError(f"data.split_at: must be from 1 to {width - 1} for {rows.file.name}, got {column}")
    halves = rows.values.tensor_split([column], dim=1)
    return {name: rows._replace(values=half.contiguous()) for name, half in zip(MODALITIES, halves, strict=True)}


def describe_source(
    folder: Path, files: Sequence[Path], rows: Mapping[str, FeatureRows], *, ntype: str = NTYPE
) -> DataSource:
    """Say what was read from a folder, what is absent, and at how many nodes features are unusable."""
    used = dict.fromkeys([*files, *(feature.file for feature in rows.values())])
    sums = {path.relative_to(folder).as_posix(): file_sha256(path) for path in used}
    absent = [modality for modality in MODALITIES if modality not in rows]
    notes = [f"no feature file, treated as absent: {', '.join(absent)}"] if absent else []
    for modality, feature in rows.items():
        lost = int((~feature.present).sum())
        notes += [f"{modality} of {lost:,} nodes is not finite and treated as absent"] if lost else []
    names = tuple(f"{ntype}.{modality}" for modality in absent)
    return DataSource("local", files=tuple(sums), sha256=sums, absent=names, note="; ".join(notes))


def _only(paths: list[Path], folder: Path) -> Path:
    if len(paths) != 1:
        found = ", ".join(path.name for path in paths) or "none"
        raise DataError(f"dataset folder {folder}: must hold one {GRAPH_FILES}, found {found}; move the others away")
    return paths[0]


def _folder_features(folder: Path, options: SourceOptions, *, num_nodes: int) -> dict[str, FeatureRows]:
    if JOINED in options.files:
        joined = choose_file(_matrices(folder, JOINED_FOLDERS), JOINED, options)
        assert joined is not None
        return split_joined(feature_rows(joined, num_nodes=num_nodes), options.split_at)
    if options.split_at is not None:
        raise ConfigError(
            f"data.split_at: only a joined file is split, got {options.split_at} without one; add joined=NAME"
        )
    rows = {}
    for modality, places in FEATURE_FOLDERS.items():
        path = choose_file(_matrices(folder, places), modality, options, default=DEFAULT_FEATURES[modality])
        if path is not None:
            rows[modality] = feature_rows(path, num_nodes=num_nodes)
    return rows


def _matrices(folder: Path, places: tuple[str, ...]) -> list[Path]:
    return [path for place in places for path in sorted((folder / place).glob("*.npy"))]


def _class_names(folder: Path, labels: IntArray, num_classes: int) -> tuple[tuple[str, ...], list[Path]]:
    """Return class names, and the table that they come from: numbers where no table gives each class one name."""
    numbers = tuple(map(str, range(max(num_classes, int(labels.max(initial=-1)) + 1))))
    for path in sorted(folder.glob("*.csv")):
        try:
            table: Any = pd.read_csv(path, usecols=lambda column: column in ("label", *CLASS_COLUMNS))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as a table ({error}); fetch the file again") from error
        if "label" not in table or len(table) != len(labels) or not np.array_equal(table["label"].to_numpy(), labels):
            continue
        for column in CLASS_COLUMNS:
            if column in table and (names := _one_name_each(table[column], labels, len(numbers))):
                return names, [path]
    return numbers, []


def _one_name_each(column: Any, labels: IntArray, num_classes: int) -> tuple[str, ...] | None:
    pairs = pd.DataFrame({"label": labels, "name": column.astype(str)}).drop_duplicates()
    pairs = pairs[pairs["label"] >= 0].sort_values("label")
    if pairs["label"].tolist() != list(range(num_classes)) or pairs["name"].duplicated().any():
        return None
    return tuple(pairs["name"])
