from __future__ import annotations

from pathlib import Path

import pytest

from hgmm.datasets import github
from hgmm.datasets.github import fetch_from_github, github_url
from hgmm.errors import DataError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder in the place of GitHub, and return the one that is fetched from."""
    monkeypatch.setattr(github, "RAW", tmp_path.as_uri())
    folder = tmp_path / "me" / "mine" / "HEAD" / "data"
    folder.mkdir(parents=True)
    return folder


def test_files_that_are_not_there_yet_are_fetched(repository: Path, tmp_path: Path) -> None:
    (repository / "a.txt").write_bytes(b"from\r\nthere")
    (repository / "b.txt").write_bytes(b"new")
    into = tmp_path / "root" / "data"
    into.mkdir(parents=True)
    (into / "b.txt").write_bytes(b"old")
    paths = fetch_from_github("me/mine", "data", ["a.txt", "b.txt"], into=into)
    assert paths == [into / "a.txt", into / "b.txt"]
    assert [path.read_bytes() for path in paths] == [b"from\r\nthere", b"old"]


def test_a_file_that_cannot_be_had_is_named(repository: Path, tmp_path: Path) -> None:
    into = tmp_path / "root"
    with pytest.raises(DataError) as caught:
        fetch_from_github("me/mine", "data", ["a.txt"], into=into)
    assert f"fetch {repository.as_uri()}/a.txt: the download failed" in str(caught.value)
    assert f"download a.txt from https://github.com/me/mine/tree/HEAD/data by hand into {into}" in str(caught.value)
    assert github_url("me/mine", "data") == "https://github.com/me/mine/tree/HEAD/data"
    assert not into.exists()
