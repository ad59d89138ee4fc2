"""Getting published files from GitHub."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from pathlib import Path

from hgmm.errors import DataError
from hgmm.files import write_bytes

__all__ = ["fetch_from_github", "github_url"]

RAW = "https://raw.githubusercontent.com"
TIMEOUT_S = 60.0


def github_url(repo: str, folder: str) -> str:
    """Return the page of a folder of a repository."""
    return f"https://github.com/{repo}/tree/HEAD/{folder}"


def fetch_from_github(repo: str, folder: str, names: Sequence[str], *, into: Path) -> list[Path]:
    """Download files of one folder.

    Parameters
    ----------
    repo : str
        ``owner/name``.
    folder : str
        The folder in it.
    names : sequence of str
        File names.
    into : Path
        Where the files go. Those that are there already stay as they are.

    Returns
    -------
    list of Path
        The files, in the order of `names`.

    Raises
    ------
    DataError
        If the network or a file is missing; it says where to put the files by hand. What was fetched before stays.
    """
    paths = [into / name for name in names]
    for path in paths:
        if path.exists():
            continue
        url = f"{RAW}/{repo}/HEAD/{folder}/{path.name}"
        try:
            # The address is built from constants, so it leads to GitHub.
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                content = answer.read()
        except OSError as error:
            raise DataError(
                f"fetch {url}: the download failed ({error}); check the network, or download {path.name} from "
                f"{github_url(repo, folder)} by hand into {into}"
            ) from error
        write_bytes(path, content)
    return paths
