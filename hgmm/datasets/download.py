"""Getting published files from Google Drive, through gdown where it is installed."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from hgmm.errors import DataError

__all__ = ["fetch_folder"]


def fetch_folder(url: str, wanted: Sequence[str], *, names: Sequence[str], into: Path) -> list[Path]:
    """Download some files of a public Google Drive folder.

    Parameters
    ----------
    url : str
        The folder.
    wanted : sequence of str
        File names.
    names : sequence of str
        Names under which the dataset's own subfolder may go; it tells files of equal names apart.
    into : Path
        Where the files go. Those that are there already stay as they are.

    Returns
    -------
    list of Path
        The files, in the order of `wanted`.

    Raises
    ------
    DataError
        If gdown is not installed, the folder cannot be reached, or it lacks a file. What was fetched before stays.
    """
    missing = [name for name in wanted if not (into / name).exists()]
    if missing:
        by_hand = f"or download {', '.join(missing)} from {url} by hand into {into}"
        gdown = _gdown(by_hand)
        listing = _listing(gdown, url, by_hand)
        found = {name: _choose(listing, name, names) for name in missing}
        absent = [name for name, entry in found.items() if entry is None]
        if absent:
            raise DataError(
                f"fetch from {url}: the folder has no single {', '.join(absent)}; put it into {into} by hand"
            )
        try:
            into.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"fetch: {into} cannot be made ({error.strerror}); choose another data root") from error
        for name, entry in found.items():
            _download(gdown, entry, into / name, by_hand)
    return [into / name for name in wanted]


def _gdown(by_hand: str) -> ModuleType:
    try:
        return importlib.import_module("gdown")
    except ImportError as error:
        raise DataError(
            "fetch: downloading needs the package gdown, and it is not installed; run: "
            f"pip install 'hgmm[download]', {by_hand}"
        ) from error


def _listing(gdown: ModuleType, url: str, by_hand: str) -> list[Any]:
    try:
        return list(gdown.download_folder(url=url, skip_download=True, quiet=True) or [])
    except _failures(gdown) as error:
        raise DataError(
            f"fetch from {url}: the folder cannot be listed ({error}); check the network, {by_hand}"
        ) from error


def _failures(gdown: ModuleType) -> tuple[type[BaseException], ...]:
    """Return what gdown raises: its own errors, and those of requests, which are OSErrors."""
    own = [getattr(gdown.exceptions, name, None) for name in ("DownloadError", "FileURLRetrievalError")]
    return (OSError, RuntimeError, ValueError, *(error for error in own if error is not None))


def _choose(listing: Sequence[Any], name: str, folders: Sequence[str]) -> Any:
    same = [entry for entry in listing if PurePosixPath(entry.path).name == name]
    inside = [entry for entry in same if {part.lower() for part in PurePosixPath(entry.path).parts} & set(folders)]
    chosen = inside or same
    return chosen[0] if len(chosen) == 1 else None


def _download(gdown: ModuleType, entry: Any, target: Path, by_hand: str) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        part = Path(folder) / target.name
        try:
            done = gdown.download(id=entry.id, output=str(part), quiet=True)
        except _failures(gdown) as error:
            raise DataError(f"fetch {target.name}: the download failed ({error}); try again, {by_hand}") from error
        if not done or not part.exists():
            raise DataError(f"fetch {target.name}: the download gave no file; try again, {by_hand}")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
