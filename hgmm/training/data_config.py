"""Which data a run reads: the section ``data`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from hgmm.datasets.source_options import SourceOptions
from hgmm.errors import ConfigError
from hgmm.graph import Corruption, MultimodalGraph, corrupt, drop_leaks
from hgmm.training._fields import check_types

__all__ = ["DataConfig"]


@dataclass(frozen=True)
class DataConfig:
    """Which data a run reads.

    Parameters
    ----------
    dataset : str, optional
        A registered name, or a folder (with a path separator, or ``./`` in front).
    root : str, optional
        Folder of the official files. Default: ``HGMM_DATA``, else the user's data folder.
    require_official : bool, optional
        Refuse to go on without all official files.
    drop_modalities : sequence of str, optional
        Modalities to leave out.
    features : sequence of str, optional
        Which feature files to read where several are published, as in ``text=roberta_base``;
        `hgmm.datasets.SourceOptions` has the rules.
    split_at : int, optional
        Columns of a joined feature matrix that are text.
    shots : int, optional
        Training nodes of each class, where the split is drawn.
    drop_leaks : bool, optional
        Of a knowledge graph: leave out repeated triples, and those of validation and test that an earlier split has, as
        `hgmm.triples.TripleSet.drop_leaks` does.
    corrupt : sequence of str, optional
        Damage to do to what is left, as in ``image=0.3``; `hgmm.graph.corruption` has the rules.
    corrupt_seed : int, optional
        Of that damage, at least 0; apart from the run's seed, so that runs with several seeds share their data.

    Raises
    ------
    ConfigError
        If a value has the wrong type, or a corruption or a choice of files is wrong.
    """

    dataset: str = "emoji"
    root: str | None = None
    require_official: bool = False
    drop_modalities: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    split_at: int | None = None
    shots: int | None = None
    drop_leaks: bool = False
    corrupt: tuple[str, ...] = ()
    corrupt_seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "data")
        SourceOptions.parse(self.features, split_at=self.split_at, shots=self.shots)
        for entry in self.corrupt:
            Corruption.parse(entry)
        if self.corrupt_seed < 0:
            raise ConfigError(f"data.corrupt_seed: must be at least 0, got {self.corrupt_seed!r}")
        if not self.dataset:
            raise ConfigError(f"data.dataset: must name a dataset or a folder, got {self.dataset!r}")

    def applied_to(self, graph: MultimodalGraph) -> MultimodalGraph:
        """Return a graph without the leaks and modalities that are dropped, and then damaged as asked."""
        if self.drop_leaks:
            graph = drop_leaks(graph)
        if self.drop_modalities:
            graph = graph.drop_modalities(self.drop_modalities)
        return corrupt(graph, self.corrupt, seed=self.corrupt_seed) if self.corrupt else graph

    @property
    def source_options(self) -> SourceOptions | None:
        """The choice of files, or None if nothing is chosen."""
        options = SourceOptions.parse(self.features, split_at=self.split_at, shots=self.shots)
        return options if options else None
