"""What datasets of published files share: where their folder is, what of it is there, and what stands in for it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from hgmm.datasets.base import Dataset, DatasetInfo, OfficialFile, check_published
from hgmm.errors import DataError
from hgmm.graph import DataSource, MultimodalGraph

__all__ = ["FileDataset", "FolderDataset"]


class FileDataset(Dataset):
    """A dataset of published files; a subclass says how they are read and what stands in for them."""

    folders: ClassVar[tuple[str, ...]]
    """Names that the dataset's folder may have."""

    collections: ClassVar[tuple[str, ...]]
    """Folders of the data root that may hold the dataset's folder, as the data root itself may."""

    stand_in_has: ClassVar[str] = "the published schema and statistics"
    """What the generated stand-in shares with the published data, for the reader of a result."""

    @abstractmethod
    def read(self, folder: Path, there: Sequence[OfficialFile], absent: Sequence[OfficialFile]) -> MultimodalGraph:
        """Read the files that are there; absent ones are features only."""

    @abstractmethod
    def stand_in(self, source: DataSource) -> MultimodalGraph:
        """Generate a graph that shares `stand_in_has` with the published one."""

    def home(self, root: Path) -> Path:
        """Return where the folder belongs if there is none yet."""
        return root / self.folders[0]

    def folder(self, root: Path) -> Path:
        """Return the dataset's folder: below `root` or one of the collections in it, whichever exists."""
        bases = [root, *(root / name for name in self.collections)]
        places = [base / name for name in self.folders for base in bases]
        return next((place for place in places if place.is_dir()), self.home(root))

    def has(self, folder: Path, file: OfficialFile) -> bool:
        """Say whether a published file is in a folder."""
        return (folder / file.path).is_file()

    def load(self, root: Path, *, require_official: bool = False) -> MultimodalGraph:
        """Return the graph of the published files, of those that are there, or a generated stand-in.

        The graph's `source` is ``official`` if all modalities are there, ``local`` if some are absent and treated so,
        ``synthetic`` if there is no file at all.

        Parameters
        ----------
        root : Path
            The folder that holds datasets or collections of them.
        require_official : bool, optional
            Raise unless everything is there.

        Raises
        ------
        DataError
            If the graph's files are there in part only, a file is damaged, a number differs from the published ones, or
            `require_official` is set and something is missing.
        """
        folder = self.folder(root)
        absent = [file for file in self.info.official_files if not self.has(folder, file)]
        there = [file for file in self.info.official_files if file not in absent]
        needed = [file for file in absent if file.modality is None]
        if absent and (require_official or (there and needed)):
            raise DataError(
                f"dataset {self.info.name}: {self.count_of(absent)} are missing in {folder}: "
                f"{', '.join(file.path for file in absent)}; {self.how_to_get(absent)}"
            )
        if not there:
            return self.stand_in(self._synthetic_source(folder, absent))
        graph = self.read(folder, there, absent)
        check_published(graph, self.comparable_info())
        return graph

    def how_to_get(self, absent: Sequence[OfficialFile]) -> str:
        """Say where missing files are to be had, for an error."""
        by_hand = [f"download {file.path} from {file.url}" for file in absent if file.url is not None]
        if len(by_hand) < len(absent):
            by_hand.insert(0, f"run: hgmm datasets fetch {self.info.name}, or download them from {self.info.url}")
        return "; ".join(by_hand)

    def count_of(self, absent: Sequence[OfficialFile]) -> str:
        """Say how many files are missing, for an error."""
        return f"{len(absent)} of {len(self.info.official_files)} published files"

    def comparable_info(self) -> DatasetInfo:
        """Return what a graph that was read is compared with."""
        return self.info

    def _synthetic_source(self, folder: Path, absent: Sequence[OfficialFile]) -> DataSource:
        note = (
            f"synthetic stand-in: the published files of {self.info.name!r} are not in {folder}, so a generated graph "
            f"with {self.stand_in_has} takes their place; scores on it say nothing about the real data "
            f"(to get the files: hgmm datasets fetch {self.info.name})"
        )
        return DataSource("synthetic", absent=tuple(file.path for file in absent), note=note)


class FolderDataset(FileDataset):
    """A dataset that is published as a folder whose files have paths or patterns.

    The first of `folders` is its name there, the first of `collections` is where fetched files go.
    """

    def home(self, root: Path) -> Path:
        """Return where the folder belongs if there is none yet."""
        return root / self.collections[0] / self.folders[0]

    def has(self, folder: Path, file: OfficialFile) -> bool:
        """Say whether a published file is in a folder; its path may be a pattern."""
        return any(folder.glob(file.path))
