"""From tables to a `MultimodalGraph`; one error lists everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hgmm.errors import Problem, SchemaError, first_problems, raise_problems, unknown_name
from hgmm.files import file_sha256
from hgmm.graph.assemble import from_tensors
from hgmm.graph.edges import EdgeSource, KnownIds, read_edges
from hgmm.graph.encoders import VectorCache, default_cache_dir
from hgmm.graph.labels import Masks, read_labels, read_split
from hgmm.graph.matrices import repeated_ids
from hgmm.graph.modalities import NodeRows, make_features
from hgmm.graph.modality_source import parse_modality
from hgmm.graph.multimodal import DataSource, MultimodalGraph
from hgmm.graph.schema import ModalitySpec
from hgmm.graph.tables import ROWS_HINT, Table, read_table
from hgmm.graph.transforms import Transform, transform_from_dict
from hgmm.typing import CanonicalEtype

__all__ = ["GraphBuilder"]

TableLike: TypeAlias = pd.DataFrame | str | os.PathLike[str]


@dataclass(frozen=True)
class _Nodes:
    ntype: str
    table: TableLike
    id: str | None
    name: str | None
    label: Any
    split: Any
    modalities: Mapping[str, Any]
    present: Mapping[str, Any]


@dataclass
class _NodeSet:
    """What has been read of one node type."""

    table: Table
    ids: NDArray[np.object_]
    names: NDArray[np.object_] | None = None
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    masks: Masks = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    specs: dict[str, ModalitySpec] = field(default_factory=dict)
    transforms: dict[str, Any] = field(default_factory=dict)


class GraphBuilder:
    """Collect node and edge tables, then check and convert them all at once.

    Parameters
    ----------
    target : str, optional
        The node type that carries labels. Default: the one whose nodes are added with a label.
    transforms : mapping, optional
        ``graph.transforms`` of the graph that a model was trained on: applied instead of fitted anew.
    classes : sequence of str, optional
        Class names of that graph. Default: the sorted distinct labels.
    cache_dir : path, optional
        Where encoders keep vectors. Default: ``$XDG_CACHE_HOME/hgmm``.
    encoder : str, optional
        Encoder of text and image columns that name none: ``builtin`` or a model of sentence-transformers.
    root : path, optional
        Folder that relative paths, also those in image columns, start from. Default: the current folder.
    name : str, optional
        Name of the graph.

    Notes
    -----
    A node lacks a modality where its text, category or image cell is empty, where all its numeric cells are empty, or
    where the matrix has no row for its id. Statistics of numbers are taken from the training nodes where the type has
    a split, else from all nodes.

    Examples
    --------
    >>> items = pd.DataFrame({"id": ["a", "b"], "title": ["red shoe", ""], "kind": ["x", "y"]})
    >>> users = pd.DataFrame({"id": [7, 8]})
    >>> buys = pd.DataFrame({"user": [7, 8], "item": ["a", "a"]})
    >>> builder = GraphBuilder()
    >>> builder = builder.add_nodes("item", items, id="id", label="kind", modalities={"text": "title"})
    >>> builder = builder.add_nodes("user", users, id="id")
    >>> builder = builder.add_edges(("user", "buys", "item"), buys, src="user", dst="item", reverse="bought_by")
    >>> graph = builder.build()
    >>> graph.schema.classes, graph.present("item")[:, 0].tolist()
    (('x', 'y'), [True, False])
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        transforms: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        encoder: str = "builtin",
        root: str | os.PathLike[str] | None = None,
        name: str = "graph",
    ) -> None:
        self._target = target
        self._transforms = transforms or None
        self._classes = tuple(classes or ())
        self._cache = VectorCache(Path(cache_dir) if cache_dir is not None else default_cache_dir())
        self._encoder = encoder
        self._root = Path(root) if root is not None else Path()
        self._name = name
        self._nodes: list[_Nodes] = []
        self._edges: list[EdgeSource] = []

    def add_nodes(
        self,
        ntype: str,
        table: TableLike,
        *,
        id: str | None = None,
        name: str | None = None,
        label: Any = None,
        split: Any = None,
        modalities: Mapping[str, Any] | None = None,
        present: Mapping[str, Any] | None = None,
    ) -> GraphBuilder:
        """Add a node type; nothing is read or checked before `build`.

        Parameters
        ----------
        ntype : str
            The node type.
        table : DataFrame or path
            One row a node; CSV, TSV or Parquet.
        id : str, optional
            Column of ids, different from each other. Default: ``"0", "1", …``.
        name : str, optional
            Column of display names.
        label : str or mapping, optional
            Column of labels, empty = unknown, or ``{table, id, column}`` of a table of its own.
        split : str or mapping, optional
            Column with ``train``, ``val``, ``test`` or nothing; or ``{train: 0.6, val: 0.2, test: 0.2, seed: 0}``,
            drawn class by class; or for each split a file of ids or a sequence of ids.
        modalities : mapping, optional
            By name: a column, a list of columns, a matrix with a row for each node, or a mapping with one of
            ``column``, ``columns``, ``file`` (.npy, .npz, .safetensors; with ``ids`` and ``key``) and ``array``, and
            with ``kind`` (default: the name), ``encoder``, ``width``, ``missing`` (``absent`` or ``mean``).
        present : mapping, optional
            ``(N,)`` bool by modality, for matrices in memory: which rows count.

        Returns
        -------
        GraphBuilder
            Itself.
        """
        self._nodes.append(_Nodes(ntype, table, id, name, label, split, dict(modalities or {}), dict(present or {})))
        return self

    def add_edges(
        self, etype: CanonicalEtype, table: TableLike, *, src: str, dst: str, reverse: str | None = None
    ) -> GraphBuilder:
        """Add a relation; nothing is read or checked before `build`.

        Parameters
        ----------
        etype : (str, str, str)
            Source node type, name, destination node type.
        table : DataFrame or path
            One row an edge; rows that stand twice are two edges.
        src, dst : str
            Columns of ids.
        reverse : str, optional
            Name of a relation to add with every edge turned round.

        Returns
        -------
        GraphBuilder
            Itself.
        """
        source, relation, destination = etype
        self._edges.append(EdgeSource((source, relation, destination), table, src, dst, reverse))
        return self

    def build(
        self,
        *,
        problems: Sequence[Problem] = (),
        where: str | None = None,
        files: Sequence[str | os.PathLike[str]] = (),
    ) -> MultimodalGraph:
        """Read, check and convert everything.

        Parameters
        ----------
        problems : sequence of Problem, optional
            Found earlier by the caller; they are reported with the others.
        where : str, optional
            Opens the error message. Default: the graph's name.
        files : sequence of path, optional
            Further files, relative to the root, to list with their checksums in the graph's source.

        Returns
        -------
        MultimodalGraph

        Raises
        ------
        DataError
            If anything is wrong with the data; the message lists the first ten problems of each kind and their number.
        SchemaError
            If there are earlier transforms and a node type or modality is unknown to them.
        """
        found = list(problems)
        self._check_known()
        target = self._chosen_target(found)
        if not problems:
            found += self._nothing_added()
        types: dict[str, _NodeSet | None] = {}
        for nodes in self._nodes:
            if nodes.ntype in types:
                found.append(Problem("duplicate node type", f"node type {nodes.ntype!r}", "it is added twice"))
            else:
                types[nodes.ntype] = self._read_nodes(nodes, nodes.ntype == target, found)
        known = {
            ntype: None if nodes is None else KnownIds(nodes.ids, nodes.table.name) for ntype, nodes in types.items()
        }
        ends = read_edges(self._edges, known, self._table, problems=found)
        hint = ROWS_HINT if any(" row " in problem.where for problem in found) else ""
        raise_problems(found, where=where or f"graph {self._name!r}", hint=hint)
        complete = {ntype: nodes for ntype, nodes in types.items() if nodes is not None}
        return self._assemble(complete, ends, target, files)

    def _check_known(self) -> None:
        if self._transforms is None:
            return
        for nodes in self._nodes:
            if nodes.ntype not in self._transforms:
                known = unknown_name("node type", nodes.ntype, self._transforms)
                raise SchemaError(f"graph {self._name!r}: {known} The trained model knows no other")
            for modality in nodes.modalities:
                if modality not in self._transforms[nodes.ntype]:
                    known = unknown_name("modality", modality, self._transforms[nodes.ntype])
                    raise SchemaError(f"graph {self._name!r}, node type {nodes.ntype!r}: {known}")

    def _nothing_added(self) -> list[Problem]:
        """Say that there is nothing; to be asked only if nothing was refused before it could be added."""
        where = f"graph {self._name!r}"
        return [
            *([] if self._nodes else [Problem("no nodes", where, "add at least one node type")]),
            *([] if self._edges else [Problem("no edges", where, "add at least one edge table")]),
        ]

    def _chosen_target(self, problems: list[Problem]) -> str | None:
        names = [nodes.ntype for nodes in self._nodes]
        labelled = [nodes.ntype for nodes in self._nodes if nodes.label is not None]
        target = self._target or (labelled[0] if labelled else None)
        if target is not None and target not in names:
            problems.append(Problem("unknown node type", "target", unknown_name("node type", target, names)))
        for nodes in self._nodes:
            if nodes.ntype != target and (nodes.label is not None or nodes.split is not None):
                text = f"only the target {target!r} has a label and a split; leave them out here"
                problems.append(Problem("label off target", f"node type {nodes.ntype!r}", text))
        return target

    def _table(self, given: TableLike, what: str, problems: list[Problem]) -> Table | None:
        if isinstance(given, pd.DataFrame):
            return Table(given, what)
        return read_table(self._root / given, os.fspath(given), problems)

    def _read_nodes(self, nodes: _Nodes, is_target: bool, problems: list[Problem]) -> _NodeSet | None:
        table = self._table(nodes.table, f"table of {nodes.ntype!r}", problems)
        if table is None:
            return None
        if not len(table) and self._transforms is None:
            problems.append(Problem("empty file", table.name, f"it has a header and no row; {nodes.ntype!r} needs one"))
            return None
        ids: NDArray[np.object_] | None = np.array([*map(str, range(len(table))), None], dtype=object)[:-1]
        if nodes.id is not None:
            ids = table.texts(nodes.id, problems)
        if ids is None:
            return None
        empty = np.flatnonzero(ids == "").tolist()
        problems += first_problems("empty id", empty, lambda row: (table.at(row), f"column {nodes.id!r} is empty"))
        if not empty:
            problems += repeated_ids(ids, table.at)
        read = _NodeSet(table, ids)
        if nodes.name is not None:
            read.names = table.texts(nodes.name, problems)
        if is_target:
            self._read_target(nodes, read, problems)
        self._read_modalities(nodes, read, problems)
        return read

    def _read_target(self, nodes: _Nodes, read: _NodeSet, problems: list[Problem]) -> None:
        read.classes = self._classes
        # New rows for a trained model: what is to be predicted need not have a column, nor what only training uses.
        if self._transforms is not None and _lacks_column(nodes.label, read.table):
            return
        if nodes.label is not None:
            found = read_labels(nodes.label, read.table, read.ids, self._root, classes=self._classes, problems=problems)
            if found is None:
                return
            read.labels, read.classes = found
        if nodes.split is not None and not (self._transforms is not None and _lacks_column(nodes.split, read.table)):
            if read.labels is None:
                text = f"node type {nodes.ntype!r} has a split and no label; name its label column"
                problems.append(Problem("split without label", read.table.name, text))
                return
            read.masks = read_split(nodes.split, read.labels, read.table, read.ids, self._root, problems=problems)

    def _read_modalities(self, nodes: _Nodes, read: _NodeSet, problems: list[Problem]) -> None:
        fitted_on = np.ones(len(read.ids), dtype=bool)
        if read.masks and read.masks["train"].any():
            fitted_on = read.masks["train"]
        rows = NodeRows(read.table, read.ids, fitted_on, self._root, self._cache)
        for name in nodes.present:
            if name not in nodes.modalities:
                text = unknown_name("modality", name, nodes.modalities)
                problems.append(Problem("unknown modality", f"node type {nodes.ntype!r} present", text))
        for name, given in nodes.modalities.items():
            where = f"modality {name!r} of {nodes.ntype!r}"
            source = parse_modality(
                name, given, where, present=nodes.present.get(name), encoder=self._encoder, problems=problems
            )
            if source is None:
                continue
            made = make_features(source, rows, self._fitted(nodes.ntype, name), problems=problems)
            if made is None:
                continue
            features, transform = made
            read.features[name] = torch.from_numpy(np.ascontiguousarray(features.values))
            read.present[name] = torch.from_numpy(features.present)
            read.specs[name] = ModalitySpec(source.kind, features.values.shape[1], source.described)
            read.transforms[name] = transform.to_dict()

    def _fitted(self, ntype: str, modality: str) -> Transform | None:
        return None if self._transforms is None else transform_from_dict(self._transforms[ntype][modality])

    def _assemble(
        self,
        types: Mapping[str, _NodeSet],
        edges: Mapping[CanonicalEtype, tuple[Tensor, Tensor]],
        target: str | None,
        files: Sequence[str | os.PathLike[str]],
    ) -> MultimodalGraph:
        aim = types.get(target) if target is not None else None
        names = [os.fspath(name) for name in dict.fromkeys([*files, *self._files()])]
        return from_tensors(
            {ntype: len(nodes.ids) for ntype, nodes in types.items()},
            edges,
            features={ntype: nodes.features for ntype, nodes in types.items()},
            present={ntype: nodes.present for ntype, nodes in types.items()},
            specs={ntype: nodes.specs for ntype, nodes in types.items()},
            target=target,
            labels=None if aim is None or aim.labels is None else torch.from_numpy(aim.labels),
            classes=() if aim is None else aim.classes,
            splits={} if aim is None else {name: torch.from_numpy(mask) for name, mask in aim.masks.items()},
            node_ids={ntype: nodes.ids.tolist() for ntype, nodes in types.items()},
            node_names={ntype: nodes.names.tolist() for ntype, nodes in types.items() if nodes.names is not None},
            source=DataSource("local", tuple(names), {name: file_sha256(self._root / name) for name in names}),
            transforms={ntype: nodes.transforms for ntype, nodes in types.items()},
            name=self._name,
        )

    def _files(self) -> list[str]:
        """Return the paths of everything that was read, image files apart."""
        paths: list[Any] = []
        for nodes in self._nodes:
            paths.append(nodes.table)
            for given in nodes.modalities.values():
                if isinstance(given, Mapping):
                    paths += [given.get("file"), given.get("ids")]
            paths.append(nodes.label.get("table") if isinstance(nodes.label, Mapping) else None)
            paths += nodes.split.values() if isinstance(nodes.split, Mapping) else ()
        paths += [edges.table for edges in self._edges]
        return [os.fspath(path) for path in paths if isinstance(path, str | os.PathLike)]


def _lacks_column(given: Any, table: Table) -> bool:
    return isinstance(given, str) and given not in map(str, table.frame.columns)
