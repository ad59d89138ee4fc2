"""Datasets that are published as files: what is there, what is absent, and what takes the place of a missing graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from hgmm.datasets.arrays import read_matrix
from hgmm.datasets.base import OfficialFile
from hgmm.datasets.download import fetch_folder
from hgmm.datasets.file_dataset import FileDataset
from hgmm.datasets.planted import IntArray
from hgmm.dgl_compat import dgl
from hgmm.errors import DataError
from hgmm.files import file_sha256
from hgmm.graph import DataSource, GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.graph.schema import KINDS
from hgmm.typing import CanonicalEtype

__all__ = ["Counts", "OfficialDataset", "RawGraph"]


class RawGraph(NamedTuple):
    """What a dataset's graph files hold.

    Attributes
    ----------
    num_nodes : mapping of str to int
        By node type.
    edges : mapping of (str, str, str) to (ndarray, ndarray)
        Source and destination numbers by relation.
    labels : ndarray
        ``(N,)`` int64 of the target type.
    splits : mapping of str to ndarray
        Node numbers of ``train``, ``val`` and ``test``.
    """

    num_nodes: Mapping[str, int]
    edges: Mapping[CanonicalEtype, tuple[IntArray, IntArray]]
    labels: IntArray
    splits: Mapping[str, IntArray]


class Counts(NamedTuple):
    """The published size of a dataset.

    Attributes
    ----------
    nodes : mapping of str to int
        By node type.
    edges : mapping of (str, str, str) to int
        By relation.
    classes : mapping of str to int
        Target nodes by class name, in the order of the labels.
    splits : sequence of int
        Sizes of train, val and test.
    """

    nodes: Mapping[str, int]
    edges: Mapping[CanonicalEtype, int]
    classes: Mapping[str, int]
    splits: tuple[int, int, int]

    def published(self) -> dict[str, int | float | list[int]]:
        """Return the same numbers in the form of `DatasetInfo.published`."""
        return {
            **self.nodes,
            **{etype[1]: number for etype, number in self.edges.items()},
            "classes": len(self.classes),
            "class_counts": list(self.classes.values()),
            "split_sizes": list(self.splits),
        }


class OfficialDataset(FileDataset):
    """A dataset of HGNN-IMA's authors; a subclass says how its graph is read and what its stand-in is."""

    collections = ("hgnn-ima",)

    modality_names: ClassVar[tuple[str, ...]]
    """The published modalities, in the published order."""

    class_names: ClassVar[tuple[str, ...]]
    """Names of the classes, in the order of the labels."""

    @abstractmethod
    def read_graph(self, folder: Path) -> RawGraph:
        """Read the files that hold no modality."""

    def read_features(self, file: OfficialFile, folder: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the ``(N, width)`` features of one file."""
        return read_matrix(folder / file.path)

    def fetch(self, root: Path) -> list[Path]:
        """Download the files that are not there yet with gdown and return the paths of all.

        Raises
        ------
        DataError
            If gdown or the network is missing, or the published folder lacks a file; it says where to put the files.
        """
        wanted = [file.path for file in self.info.official_files]
        return fetch_folder(self.info.url, wanted, names=self.folders, into=self.folder(root))

    def _source(self, folder: Path, there: Sequence[OfficialFile], absent: Sequence[OfficialFile]) -> DataSource:
        sums = {file.path: file_sha256(folder / file.path) for file in there}
        names = tuple(f"{file.ntype}.{file.modality}" for file in absent)
        listed = ", ".join(f"{name} ({file.path})" for name, file in zip(names, absent, strict=True))
        note = f"real data of {self.info.name!r}, treated as absent: {listed}" if absent else ""
        kind = "local" if absent else "official"
        return DataSource(kind, files=tuple(sums), sha256=sums, absent=names, note=note)

    def read(self, folder: Path, there: Sequence[OfficialFile], absent: Sequence[OfficialFile]) -> MultimodalGraph:
        """Read the graph and the features that are there; absent ones are listed and treated as absent."""
        raw = self.read_graph(folder)
        expected = raw.num_nodes[str(self.info.target)]
        if raw.labels.shape != (expected,):
            raise DataError(
                f"dataset {self.info.name}, labels: must be one for each of the {expected} nodes of type "
                f"{self.info.target!r}, got the shape {raw.labels.shape}; {_again(self.info.name)}"
            )
        g = dgl.heterograph(
            {etype: (torch.from_numpy(src), torch.from_numpy(dst)) for etype, (src, dst) in raw.edges.items()},
            num_nodes_dict=dict(raw.num_nodes),
        )
        specs: dict[str, dict[str, ModalitySpec]] = {ntype: {} for ntype in raw.num_nodes}
        for file in there:
            if file.modality is None or file.ntype is None:
                continue
            values = self.read_features(file, folder)
            if len(values) != raw.num_nodes[file.ntype]:
                raise DataError(
                    f"{folder / file.path}: must have one row for each of the {raw.num_nodes[file.ntype]} nodes of "
                    f"type {file.ntype!r}, got {len(values)}; {_again(self.info.name)}"
                )
            g.nodes[file.ntype].data[file.modality] = torch.from_numpy(values)
            kind = file.modality if file.modality in KINDS else "other"
            specs[file.ntype][file.modality] = ModalitySpec(kind, values.shape[1], file.path)
        _put_labels(g.nodes[self.info.target].data, raw, where=f"dataset {self.info.name}")
        schema = GraphSchema(
            tuple(raw.num_nodes),
            tuple(raw.edges),
            specs,
            target=self.info.target,
            classes=self.class_names,
            # A published modality of which no file is there stays on the axis, so that a model may fill it.
            modality_names=self.modality_names if any(specs.values()) else (),
        )
        return MultimodalGraph(g, schema, source=self._source(folder, there, absent), name=self.info.name)


def _put_labels(data: MutableMapping[str, torch.Tensor], raw: RawGraph, *, where: str) -> None:
    total = len(raw.labels)
    data["label"] = torch.from_numpy(raw.labels)
    for name, index in raw.splits.items():
        outside = index[(index < 0) | (index >= total)]
        if len(outside):
            raise DataError(
                f"{where}, split {name!r}: node numbers must be from 0 to {total - 1}, got {int(outside[0])}; "
                "the split belongs to other files"
            )
        mask = torch.zeros(total, dtype=torch.bool)
        mask[torch.from_numpy(index)] = True
        data[f"{name}_mask"] = mask


def _again(name: str) -> str:
    return f"delete the file and run: hgmm datasets fetch {name}"
