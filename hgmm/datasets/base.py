"""What a dataset is: its description, how its graph is loaded, and the check of its published statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from hgmm.datasets.source_options import SourceOptions
from hgmm.errors import ConfigError, DataError, Problem, raise_problems, unknown_name
from hgmm.graph import MultimodalGraph
from hgmm.registry import DATASETS

__all__ = ["TASKS", "Dataset", "DatasetInfo", "OfficialFile", "check_published", "register", "statistics"]

TASKS = ("node-classification", "link-prediction")

D = TypeVar("D", bound="type[Dataset]")


@dataclass(frozen=True)
class OfficialFile:
    """One file of a published dataset.

    Parameters
    ----------
    path : str
        Its path below the dataset's folder.
    modality : str, optional
        The modality that it holds. A file without one belongs to the graph, its labels or its split, and the dataset
        cannot be read without it.
    ntype : str, optional
        The node type that the modality belongs to.
    url : str, optional
        Where to get it by hand, if `Dataset.fetch` does not bring it.
    """

    path: str
    modality: str | None = None
    ntype: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a dataset without loading it.

    Parameters
    ----------
    name : str
        The name on the command line.
    title, description : str
        One line, and a few sentences.
    task : str, optional
        ``node-classification`` or ``link-prediction``.
    default_model, default_variant : str, optional
        What ``hgmm train`` takes if nothing else is asked for.
    target : str, optional
        The node type that carries labels.
    licence, citation, url : str, optional
        Terms, source to cite, where the files come from.
    published : mapping of str to int, float or list, optional
        Statistics: the number of nodes by node type, of edges by edge type, ``classes``, ``class_counts``,
        ``relations`` and ``split_sizes`` (train, val, test). `check_published` compares a loaded graph with them.
    ntypes : sequence of str, optional
        Those keys of `published` that are node types.
    published_scores : mapping of str to float, optional
        Test scores of the published model, ``micro_f1`` and ``macro_f1`` from 0 to 1.
    published_variant : str, optional
        The variant that reached them.
    official_files : sequence of OfficialFile, optional
        The published files.
    official_ntypes : mapping of str to str, optional
        Our node types to those of the official code, where they differ. DGL numbers types alphabetically, so weights
        of the official code are in the order of the names on the right.
    settings : mapping of str to Any, optional
        The dataset's default configuration, by dotted key such as ``model.hidden_size``.
    variant_settings : mapping of str to mapping, optional
        Settings that belong to one model variant and are added to `settings` when it is chosen.

    Raises
    ------
    ConfigError
        If the task is unknown.
    """

    name: str
    title: str = ""
    description: str = ""
    task: str = "node-classification"
    default_model: str = ""
    default_variant: str = ""
    target: str | None = None
    licence: str = "not stated"
    citation: str = ""
    url: str = ""
    published: Mapping[str, int | float | list[int]] = field(default_factory=dict)
    ntypes: tuple[str, ...] = ()
    published_scores: Mapping[str, float] = field(default_factory=dict)
    published_variant: str | None = None
    official_files: tuple[OfficialFile, ...] = ()
    official_ntypes: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    variant_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"DatasetInfo task: {unknown_name('task', self.task, TASKS)}")
        if not self.default_model:
            model, variant = _DEFAULT_MODELS[self.task]
            object.__setattr__(self, "default_model", model)
            object.__setattr__(self, "default_variant", self.default_variant or variant)

    def settings_for(self, variant: str | None = None) -> dict[str, Any]:
        """Return `settings` with those of a variant on top."""
        return {**self.settings, **self.variant_settings.get(variant or self.default_variant, {})}


_DEFAULT_MODELS = {"node-classification": ("hgnn-ima", "sharp"), "link-prediction": ("mm-transe", "")}


class Dataset(ABC):
    """A named dataset. Subclasses set `info` and are entered into the registry with `register`."""

    info: ClassVar[DatasetInfo]

    @abstractmethod
    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Return the graph.

        Parameters
        ----------
        root : Path
            The folder that holds datasets; it need not exist.
        require_official : bool, optional
            Refuse anything but the complete published files.

        Raises
        ------
        DataError
            If files are damaged, or `require_official` is set and some are missing.
        """

    def choosing(self, options: SourceOptions) -> Dataset:
        """Return the same dataset, read from files that the user chose.

        Raises
        ------
        ConfigError
            If it is not published in several files to choose from.
        """
        raise ConfigError(
            f"dataset {self.info.name}: it offers no choice of files (data.features, data.split_at, data.shots), got "
            f"{options.words()}; leave it out"
        )

    def fetch(self, root: Path) -> list[Path]:
        """Download the files into `root` and return their paths; a dataset that needs no files returns none."""
        return []


def register(dataset: D) -> D:
    """Enter an instance of a `Dataset` class into the registry, under the name in its `info`."""
    DATASETS.register(dataset.info.name)(dataset())
    return dataset


def statistics(graph: MultimodalGraph) -> dict[str, int | list[int]]:
    """Count a graph in the terms of `DatasetInfo.published`.

    Returns
    -------
    dict
        Nodes by node type and edges by edge type; with a target also ``classes``, ``class_counts`` and
        ``split_sizes`` (train, val, test); of a knowledge graph ``relations`` and the ``split_sizes`` of its triples.
    """
    found: dict[str, int | list[int]] = {ntype: graph.num_nodes(ntype) for ntype in graph.schema.ntypes}
    found |= {etype[1]: int(graph.g.num_edges(etype)) for etype in graph.schema.canonical_etypes}
    if graph.schema.target is not None:
        labels = graph.labels
        found["classes"] = graph.schema.num_classes
        found["class_counts"] = torch.bincount(labels[labels >= 0], minlength=graph.schema.num_classes).tolist()
        found["split_sizes"] = [graph.split(name).numel() for name in ("train", "val", "test")]
    if graph.triples is not None:
        found["relations"] = graph.triples.num_relations
        found["split_sizes"] = [len(rows) for rows in graph.triples.splits.values()]
    return found


def check_published(graph: MultimodalGraph, info: DatasetInfo) -> None:
    """Compare a graph with the published statistics of its dataset.

    Raises
    ------
    DataError
        Lists every number that differs.
    """
    found = statistics(graph)
    problems = [
        Problem("other than published", key, f"published {value}, found {found.get(key, 'nothing of that name')}")
        for key, value in info.published.items()
        if found.get(key) != value
    ]
    hint = f"Another version of the files? Get the published ones with: hgmm datasets fetch {info.name}"
    raise_problems(problems, where=f"dataset {info.name}", error=DataError, hint=hint)
