from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from hgmm.datasets import fetch
from hgmm.datasets.download import fetch_folder
from hgmm.errors import ConfigError, DataError

URL = "https://example.org/folder"


class Entry(NamedTuple):
    id: str
    path: str


class DownloadError(Exception):
    pass


LISTING = [
    Entry("1", "imdb/labels.npy"),
    Entry("2", "AMAZON/labels.npy"),
    Entry("3", "features/rare.npz"),
    Entry("4", "copies/twice.npy"),
    Entry("5", "other/twice.npy"),
]


def install(monkeypatch: pytest.MonkeyPatch, *, folder: Callable[..., Any], download: Callable[..., Any]) -> None:
    gdown, exceptions = ModuleType("gdown"), ModuleType("gdown.exceptions")
    exceptions.DownloadError = DownloadError  # type: ignore[attr-defined]
    gdown.exceptions = exceptions  # type: ignore[attr-defined]
    gdown.download_folder, gdown.download = folder, download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdown", gdown)


def listing(*, url: str, skip_download: bool, quiet: bool) -> list[Entry]:
    assert (url, skip_download, quiet) == (URL, True, True)
    return LISTING


def download(*, id: str, output: str, quiet: bool) -> str:
    Path(output).write_text(id)
    return output


def test_files_of_the_datasets_own_folder_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, folder=listing, download=download)
    into = tmp_path / "amazon"
    paths = fetch_folder(URL, ["labels.npy", "rare.npz"], names=("amazon",), into=into)
    assert paths == [into / "labels.npy", into / "rare.npz"]
    assert [path.read_text() for path in paths] == ["2", "3"]
    assert sorted(path.name for path in into.iterdir()) == ["labels.npy", "rare.npz"]


def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    (tmp_path / "labels.npy").write_text("mine")
    assert fetch_folder(URL, ["labels.npy"], names=(), into=tmp_path) == [tmp_path / "labels.npy"]
    assert (tmp_path / "labels.npy").read_text() == "mine"


def test_without_gdown_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError) as caught:
        fetch("douban", root=tmp_path)
    message = str(caught.value)
    assert message.startswith("fetch: downloading needs the package gdown, and it is not installed; run: pip install")
    assert "download douban_actor_rdf.npy, labels.npy, " in message
    assert message.endswith(f"1BE8UC02t2-23F-aDBi3XXjXbX38Yg-Rkt by hand into {tmp_path / 'douban'}")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, folder=listing, download=download)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/imdb cannot be made \(Not a directory\); choose another data root"):
        fetch_folder(URL, ["rare.npz"], names=(), into=tmp_path / "file" / "imdb")


@pytest.mark.parametrize("name", ["none.npy", "twice.npy"])
def test_a_file_that_the_folder_lacks_or_has_twice_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install(monkeypatch, folder=listing, download=download)
    with pytest.raises(DataError, match=f"fetch from {URL}: the folder has no single {name}; put it into"):
        fetch_folder(URL, ["labels.npy", name], names=("imdb",), into=tmp_path / "imdb")
    assert not (tmp_path / "imdb").exists()


@pytest.mark.parametrize("error", [DownloadError("quota"), ConnectionError("unreachable")])
def test_failures_of_the_network_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**_: Any) -> Any:
        raise error

    install(monkeypatch, folder=fail, download=download)
    with pytest.raises(DataError, match=rf"the folder cannot be listed \({error}\); check the network, or download a"):
        fetch_folder(URL, ["a"], names=(), into=tmp_path)
    install(monkeypatch, folder=listing, download=fail)
    with pytest.raises(DataError, match=rf"fetch rare\.npz: the download failed \({error}\); try again"):
        fetch_folder(URL, ["rare.npz"], names=(), into=tmp_path)
    install(monkeypatch, folder=listing, download=lambda **_: None)
    with pytest.raises(DataError, match=r"fetch rare\.npz: the download gave no file"):
        fetch_folder(URL, ["rare.npz"], names=(), into=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetch_knows_the_registered_names_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'imbd'"):
        fetch("imbd", root=tmp_path)
    assert fetch("emoji", root=tmp_path) == []
