"""Which of several published files a dataset is read from: feature files by modality, a column to split, a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePath
from typing import TypeVar

from hgmm.errors import ConfigError, DataError, unknown_name

__all__ = ["JOINED", "SourceOptions", "choose_file"]

JOINED = "joined"
PARTS = ("text", "image", JOINED, "split")
P = TypeVar("P", bound=PurePath)

HOW = "write PART=NAME with a part of the file's name, as in text=roberta_base"


@dataclass(frozen=True)
class SourceOptions:
    """A choice among the files that a dataset is published as.

    Parameters
    ----------
    files : mapping of str to str, optional
        A file for ``text``, ``image``, ``joined`` (text and image in one matrix) or ``split`` (of link prediction): a
        part of its name, or a pattern with ``*``. Whatever is not named has the dataset's default.
    split_at : int, optional
        Columns of a joined matrix that are text; those behind are image. Default: half of them.
    shots : int, optional
        Training nodes of each class, for a dataset whose split is drawn. Default: its published shares.

    Raises
    ------
    ConfigError
        If a part is unknown, a number is below 1, or a joined file stands beside others.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    split_at: int | None = None
    shots: int | None = None

    def __post_init__(self) -> None:
        for part in self.files:
            if part not in PARTS:
                raise ConfigError(f"data.features: {unknown_name('part', part, PARTS)}")
        if JOINED in self.files and ("text" in self.files or "image" in self.files):
            raise ConfigError(
                f"data.features: a joined file holds text and image, got {', '.join(sorted(self.files))}; choose either"
            )
        for name, value in (("split_at", self.split_at), ("shots", self.shots)):
            if value is not None and value < 1:
                raise ConfigError(f"data.{name}: must be at least 1, got {value}")

    @classmethod
    def parse(
        cls, entries: Sequence[str] = (), *, split_at: int | None = None, shots: int | None = None
    ) -> SourceOptions:
        """Read entries such as ``text=roberta_base``.

        Raises
        ------
        ConfigError
            If an entry is written in another way, a part stands twice, or the constructor refuses one.
        """
        files: dict[str, str] = {}
        for entry in entries:
            part, equals, name = (piece.strip() for piece in entry.partition("="))
            if not equals or not part or not name:
                raise ConfigError(f"data.features: {entry!r} is no choice of a file; {HOW}")
            if part in files:
                raise ConfigError(f"data.features: {part!r} stands twice, as {files[part]!r} and {name!r}; keep one")
            files[part] = name
        return cls(files, split_at, shots)

    def __bool__(self) -> bool:
        return bool(self.files) or self.split_at is not None or self.shots is not None

    def words(self) -> str:
        """Say what was chosen, as in ``text=roberta_base, split_at=768``."""
        numbers = {"split_at": self.split_at, "shots": self.shots}
        chosen = {**self.files, **{name: value for name, value in numbers.items() if value is not None}}
        return ", ".join(f"{name}={value}" for name, value in chosen.items())


def matches(name: str, pattern: str) -> bool:
    """Say whether a file name contains `pattern`, or fits it if it has a ``*``; upper and lower case are the same."""
    return fnmatch(name.lower(), pattern.lower() if "*" in pattern else f"*{pattern.lower()}*")


def choose_file(candidates: Sequence[P], part: str, options: SourceOptions, *, default: str = "") -> P | None:
    """Return the one file that is meant.

    Parameters
    ----------
    candidates : sequence of PurePath
        The files that there are.
    part : str
        What it is for; `options` may name it.
    options : SourceOptions
        The user's choice.
    default : str, optional
        Takes the place of a choice if several files are there and the user named none.

    Returns
    -------
    PurePath or None
        None if there is no file and none was asked for.

    Raises
    ------
    DataError
        If what was asked for is not there, or several files fit.
    """
    asked = options.files.get(part)
    fitting = [path for path in candidates if matches(path.name, asked or "*")]
    if asked is None and len(fitting) > 1:
        fitting = [path for path in candidates if default and matches(path.name, default)] or fitting
    if len(fitting) > 1 and asked is not None:
        # A whole name is a part of longer ones.
        fitting = [path for path in fitting if asked.lower() in (path.name.lower(), path.stem.lower())] or fitting
    if len(fitting) == 1 or not (fitting or asked):
        return next(iter(fitting), None)
    names = ", ".join(sorted(path.name for path in fitting or candidates)) or "none"
    if fitting:
        meant = f"{asked!r} fits" if asked else "there are"
        raise DataError(f"data.features {part}: {meant} several files: {names}; choose one with {part}=NAME")
    raise DataError(f"data.features {part}: no file has {asked!r} in its name; there are: {names}")
