"""Nations: fourteen countries and how they dealt with each other, from the package pykeen."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from hgmm.datasets.base import Dataset, DatasetInfo, check_published, register
from hgmm.datasets.knowledge_folder import read_tsv
from hgmm.errors import DataError
from hgmm.graph import MultimodalGraph

__all__ = ["NationsDataset", "load_nations"]

PACKAGE = "pykeen"
INSTALL = "run: pip install 'hgmm[nations]'"


@register
class NationsDataset(Dataset):
    """Nations with area and population of all but one; needs the extra ``nations``."""

    info = DatasetInfo(
        name="nations",
        title="Nations: fourteen countries in the Cold War",
        description=(
            "Which country completes a triple? Of each country but the USSR the area and the population are known. So "
            "small that a run takes seconds, and too small to rank models by."
        ),
        task="link-prediction",
        target="entity",
        licence="MIT (pykeen); not stated for the data",
        citation="Rummel, Dimensionality of Nations project; Kemp et al., AAAI 2006; files from pykeen 1.11.1",
        url="https://github.com/pykeen/pykeen",
        ntypes=("entity",),
        published={"entity": 14, "relations": 55, "split_sizes": [1592, 199, 201]},
    )

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Return the graph; `root` and `require_official` change nothing, for the data is in an installed package."""
        return load_nations()

    def fetch(self, root: Path) -> list[Path]:
        """Download nothing: the data comes with a package, and without it the error says how to install that."""
        _folder()
        return []


def load_nations() -> MultimodalGraph:
    """Build the graph from the files of the installed package, of which no code is imported.

    Returns
    -------
    MultimodalGraph
        Modality ``numeric``: area and population, as `hgmm.datasets.mmkg_files.numeric_vectors` prepares them.

    Raises
    ------
    DataError
        If the package is not installed or lacks the files, or the numbers differ from the published ones.
    """
    graph = read_tsv(_folder(), "train.txt")
    graph.name = NationsDataset.info.name
    graph.source = replace(graph.source, source="official")
    check_published(graph, NationsDataset.info)
    return graph


def _folder() -> Path:
    # importlib.resources would import the package, and with it all of its models.
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(f"dataset nations: needs the package {PACKAGE}, and it is not installed; {INSTALL}")
    folder = Path(spec.origin).parent / "datasets" / "nations"
    if not folder.is_dir():
        raise DataError(f"dataset nations: {folder} is missing from {PACKAGE}; {INSTALL}")
    return folder
