"""Folders that become graphs; the kind of a folder is told by its marker file.

============================  =====================================================================
marker                        the folder is
============================  =====================================================================
``schema.json``               a graph that hgmm saved (``hgmm import``)
``graph.yaml``                tables described by that file
``entity2id.txt``             a knowledge graph in OpenKE's layout
``train.tsv``, ``train.txt``  a knowledge graph as tab-separated ``head relation tail`` names
``*EntityTriples.txt``        a knowledge graph as MMKG publishes it, which is split at random
``*Graph.pt``                 a multimodal attributed graph as MAGB and OpenMAG lay it out
``nc_edges-nodeid.pt``        the same in the layout of MM-Graph
``lp-edge-split*.pt``         links to predict in the layout of MM-Graph
============================  =====================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hgmm.datasets.attributed import GRAPH_FILES, read_attributed
from hgmm.datasets.knowledge_folder import read_mmkg, read_openke, read_tsv
from hgmm.datasets.mm_graph_folder import EDGE_FILE, LINK_FILES, read_mm_graph, read_mm_graph_links
from hgmm.datasets.named_triples import MMKG_TRIPLES
from hgmm.datasets.source_options import SourceOptions
from hgmm.errors import ConfigError, DataError
from hgmm.graph import MultimodalGraph
from hgmm.graph.folder import read_folder
from hgmm.graph.storage import load_graph

__all__ = ["MARKERS", "folder_task", "marker", "read_dataset_folder"]

MARKERS = (
    "schema.json",
    "graph.yaml",
    "entity2id.txt",
    "train.tsv",
    "train.txt",
    MMKG_TRIPLES,
    GRAPH_FILES,
    EDGE_FILE,
    LINK_FILES,
)
TRIPLES = ("entity2id.txt", "train.tsv", "train.txt", MMKG_TRIPLES, LINK_FILES)
WITH_CHOICE = (GRAPH_FILES, EDGE_FILE, LINK_FILES)


def marker(path: Path) -> str:
    """Return which of `MARKERS` a folder has.

    Raises
    ------
    DataError
        If the folder does not exist, or holds none or several of them.
    """
    if not path.is_dir():
        raise DataError(f"dataset folder {path}: there is no such folder; check the path")
    found = [name for name in MARKERS if any(file.is_file() for file in path.glob(name))]
    if len(found) != 1:
        what = f"has {', '.join(found)}" if found else "has none of them"
        raise DataError(
            f"dataset folder {path}: must hold exactly one of {', '.join(MARKERS)}, and it {what}; "
            + ("move the others away" if found else "describe your tables in a graph.yaml")
        )
    return found[0]


def folder_task(path: Path) -> str:
    """Return the task that a folder's data serves.

    Returns
    -------
    str
        ``link-prediction`` for a knowledge graph, else ``node-classification``.

    Raises
    ------
    DataError
        As `marker`, or if ``schema.json`` describes no saved graph.
    """
    kind = marker(path)
    knowledge = kind in TRIPLES
    if kind == "schema.json":
        try:
            saved = json.loads((path / kind).read_text(encoding="utf-8"))
            knowledge = bool(saved["schema"]["relations"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path / kind}: describes no saved graph ({error!r}); import the data again") from error
    return "link-prediction" if knowledge else "node-classification"


def read_dataset_folder(
    path: Path,
    *,
    transforms: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    options: SourceOptions | None = None,
) -> MultimodalGraph:
    """Read a folder of any known kind.

    Parameters
    ----------
    path : Path
        The folder.
    transforms, classes : optional
        What a trained run has fitted, applied to tables (``graph.yaml``) instead of fitting again. The other kinds hold
        features and do not use them.
    options : SourceOptions, optional
        Which files to read, where a published layout has several.

    Raises
    ------
    DataError
        As `marker`, or if the content breaks the rules of its format.
    ConfigError
        If `options` do not apply to this kind of folder.
    """
    kind = marker(path)
    if kind in WITH_CHOICE:
        return _read_published(path, kind, options or SourceOptions())
    if options:
        raise ConfigError(
            f"dataset folder {path}: a folder with {kind} offers no choice of files, got {options.words()}; "
            "leave it out"
        )
    if kind == "schema.json":
        return load_graph(path)
    if kind == "graph.yaml":
        return read_folder(path, transforms=transforms, classes=classes)
    if kind == "entity2id.txt":
        return read_openke(path)
    return read_mmkg(path) if kind == MMKG_TRIPLES else read_tsv(path, kind)


def _read_published(path: Path, kind: str, options: SourceOptions) -> MultimodalGraph:
    name = path.resolve().name
    if kind == GRAPH_FILES:
        return read_attributed(path, options, name=name)
    return (read_mm_graph if kind == EDGE_FILE else read_mm_graph_links)(path, options, name=name)
