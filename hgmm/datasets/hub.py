"""Getting published files from the Hugging Face hub, through huggingface_hub where it is installed."""

from __future__ import annotations

import glob
import hashlib
import importlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

from hgmm.errors import DataError
from hgmm.files import file_sha256

__all__ = ["HubFile", "HubListing", "download_from_hub", "list_hub"]


class HubFile(NamedTuple):
    """A file of a repository: its path there, its size, and SHA-256 (large files) or git's blob id (small ones)."""

    path: PurePosixPath
    size: int | None
    sha256: str | None
    blob_id: str | None


class HubListing(NamedTuple):
    """The files of a dataset repository at one commit."""

    repo: str
    revision: str
    files: tuple[HubFile, ...]


def list_hub(repo: str, *, into: Path) -> HubListing:
    """List the files of a dataset repository with their checksums.

    Parameters
    ----------
    repo : str
        ``owner/name``.
    into : Path
        Where the files shall go, for the message that says how to do it by hand.

    Raises
    ------
    DataError
        If huggingface_hub is not installed, or the repository cannot be listed.
    """
    by_hand = f"or download the files from {_url(repo)} by hand into {into}"
    hub = _hub(by_hand)
    try:
        found = hub.HfApi().dataset_info(repo, files_metadata=True)
    except _failures(hub) as error:
        raise DataError(
            f"fetch from {_url(repo)}: it cannot be listed ({error}); check the network, {by_hand}"
        ) from error
    return HubListing(repo, str(found.sha), tuple(map(_hub_file, found.siblings or ())))


def download_from_hub(listing: HubListing, wanted: Iterable[PurePosixPath], *, into: Path) -> list[Path]:
    """Download some files of a repository and check each against its published checksum.

    Parameters
    ----------
    listing : HubListing
        From `list_hub`.
    wanted : iterable of PurePosixPath
        Paths in the repository; nothing else is downloaded.
    into : Path
        The files go into the same folders below it. A file that is there already is checked and stays; a download that
        was cut off goes on where it stopped.

    Returns
    -------
    list of Path
        The files, in the order of `wanted`.

    Raises
    ------
    DataError
        If a file that is there is another one than the published, the download fails, or what came is damaged.
    """
    by_path = {file.path: file for file in listing.files}
    files = [by_path[path] for path in wanted]
    there = {file.path for file in files if (into / file.path).exists()}
    for file in files:
        if file.path in there and not _is_intact(into / file.path, file):
            raise DataError(f"fetch: {into / file.path} is there and is not the published file; move it away first")
    missing = [file for file in files if file.path not in there]
    if missing:
        _download(listing, missing, into)
    for file in missing:
        path = into / file.path
        if not path.is_file() or not _is_intact(path, file):
            path.unlink(missing_ok=True)
            raise DataError(
                f"fetch {file.path}: what came from {_url(listing.repo)} is damaged and was deleted; try again"
            )
    return [into / file.path for file in files]


def _download(listing: HubListing, files: list[HubFile], into: Path) -> None:
    by_hand = f"or download the files from {_url(listing.repo)} by hand into {into}"
    hub = _hub(by_hand)
    try:
        hub.snapshot_download(
            listing.repo,
            repo_type="dataset",
            revision=listing.revision,
            allow_patterns=[glob.escape(str(file.path)) for file in files],
            local_dir=str(into),
        )
    except _failures(hub) as error:
        names = ", ".join(str(file.path) for file in files)
        raise DataError(f"fetch {names}: the download failed ({error}); run it again to go on, {by_hand}") from error


def _hub(by_hand: str) -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DataError(
            "fetch: downloading needs the package huggingface_hub, and it is not installed; run: "
            f"pip install 'hgmm[download]', {by_hand}"
        ) from error


def _failures(hub: ModuleType) -> tuple[type[BaseException], ...]:
    """Return what huggingface_hub raises: OSErrors, its own errors, and those of its HTTP client.

    The client changed from release to release, and so did its name; its error is a base of huggingface_hub's own.
    """
    return (OSError, RuntimeError, ValueError, *hub.errors.HfHubHTTPError.__bases__)


def _hub_file(sibling: Any) -> HubFile:
    sha256 = None if sibling.lfs is None else sibling.lfs.sha256
    return HubFile(PurePosixPath(sibling.rfilename), sibling.size, sha256, sibling.blob_id)


def _is_intact(path: Path, file: HubFile) -> bool:
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if file.sha256 is not None:
        return file_sha256(path) == file.sha256
    if file.blob_id is not None:
        content = path.read_bytes()
        # Git names a file by the SHA-1 of its content behind a header; it guards against accidents only.
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return digest.hexdigest() == file.blob_id
    return True


def _url(repo: str) -> str:
    return f"https://huggingface.co/datasets/{repo}"
