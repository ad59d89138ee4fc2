"""Writing files and folders so that they appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hgmm.errors import DataError, Problem

__all__ = ["file_sha256", "missing_file", "sync_folder", "write_atomically", "write_bytes", "write_file"]


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, and give it its name.

    Parameters
    ----------
    path : Path
        The final name; an existing file is replaced.
    write : callable
        Gets the temporary path.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        write(temporary)
        # Some writers narrow the rights to the owner; the result shall be as readable as any other new file.
        temporary.chmod(mode)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; missing folders are made.

    Parameters
    ----------
    path, write
        As in `write_atomically`.

    Raises
    ------
    DataError
        If the system refuses: no room, no right, no such device.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"{path}: it cannot be written ({error.strerror or error}); make room for it or choose another folder"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` as `write_file` does, with the same errors."""
    write_file(path, lambda temporary: temporary.write_bytes(content))


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def missing_file(path: Path, name: str) -> list[Problem]:
    """Return a problem if `path`, which messages call `name`, is no file."""
    try:
        if path.is_file():
            return []
        reason = f"there is no such file in {path.parent}"
    except OSError as error:
        reason = str(error.strerror)
    return [Problem("missing file", name, reason)]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
