"""The named graphs of MAGB and MM-Graph: published numbers, stand-ins, what a source is called, fetching."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hgmm.datasets import SourceOptions, check_published, fetch, info, load
from hgmm.datasets.hub import HubFile, HubListing, download_from_hub
from hgmm.errors import ConfigError, DataError
from hgmm.registry import DATASETS
from tests.datasets.published_folders import NUM_NODES, write_magb, write_mm_graph, write_mm_links, write_openmag

NODE_SETS = ("movies", "toys", "grocery", "reddit-s", "reddit-m", "ele-fashion", "books-nc")
LINK_SETS = ("books-lp", "sports-copurchase", "cloth-copurchase")
SMALL = {"node": NUM_NODES, "classes": 4, "split_sizes": [24, 8, 8]}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published numbers be those of the small folders."""
    published = {"grocery": SMALL, "ele-fashion": {"node": NUM_NODES, "classes": 4}, "books-lp": {"entity": NUM_NODES}}
    for name, numbers in published.items():
        dataset = DATASETS.get(name)
        monkeypatch.setattr(type(dataset), "info", replace(dataset.info, published=numbers))
        monkeypatch.setattr(type(dataset), "num_edges", 60)


@pytest.mark.parametrize("name", NODE_SETS + LINK_SETS)
def test_description_states_licence_and_task(name: str) -> None:
    found = info(name)
    assert found.licence.startswith(("CC-BY-4.0", "Apache-2.0"))
    assert found.task == ("link-prediction" if name in LINK_SETS else "node-classification")
    assert sum(found.published.get("split_sizes", [])) in (0, found.published.get("node"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["movies", "toys"])
def test_without_files_a_stand_in_has_the_published_numbers(tmp_path: Path, name: str) -> None:
    graph = load(name, root=tmp_path)
    assert graph.source.source == "synthetic"
    assert graph.source.note.startswith(
        f"synthetic stand-in: the published files of {name!r} are not in {tmp_path}/MAGB"
    )
    assert graph.source.absent == ("*Graph.pt", "TextFeature/*.npy", "ImageFeature/*.npy")
    check_published(graph, info(name))
    assert graph.g.num_edges() == DATASETS.get(name).num_edges
    assert graph.present("node").all()


@pytest.mark.usefixtures("small")
def test_stand_ins_of_links_have_links_to_predict(tmp_path: Path) -> None:
    graph = load("books-lp", root=tmp_path)
    assert graph.source.source == "synthetic"
    assert graph.triples is not None
    assert [len(part) for part in (graph.triples.train, graph.triples.val, graph.triples.test)] == [24, 3, 3]
    links = {tuple(row) for part in graph.triples.splits.values() for row in part.tolist()}
    assert len(links) == 30
    assert set(graph.schema.widths("entity")) == {"text", "image"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("place", ["grocery", "Grocery", "MAGB/Grocery", "MAGB/Data/Grocery", "OpenMAG/Grocery"])
def test_all_files_are_official_wherever_the_folder_is(tmp_path: Path, place: str) -> None:
    write_magb(tmp_path / place)
    graph = load("grocery", root=tmp_path, require_official=True)
    assert graph.name == "grocery"
    assert graph.source.source == "official"
    assert graph.source.note == ""
    assert len(graph.source.sha256) == 4


@pytest.mark.usefixtures("small")
def test_the_layout_of_openmag_serves_as_well(tmp_path: Path) -> None:
    write_openmag(tmp_path / "OpenMAG" / "Grocery")
    assert load("grocery", root=tmp_path, require_official=True).schema.widths("node") == {"text": 6, "image": 5}


@pytest.mark.usefixtures("small")
def test_an_absent_modality_makes_it_local(tmp_path: Path) -> None:
    write_magb(tmp_path / "MAGB" / "Grocery")
    shutil.rmtree(tmp_path / "MAGB" / "Grocery" / "ImageFeature")
    graph = load("grocery", root=tmp_path)
    assert graph.source.source == "local"
    assert graph.source.absent == ("node.image",)
    with pytest.raises(
        DataError, match=r"dataset grocery: files are missing in .*Grocery: ImageFeature/\*\.npy; run: hg"
    ):
        load("grocery", root=tmp_path, require_official=True)


@pytest.mark.usefixtures("small")
def test_a_joined_file_is_both_modalities(tmp_path: Path) -> None:
    write_magb(tmp_path / "MAGB" / "Grocery")
    for place in ("ImageFeature", "TextFeature"):
        shutil.rmtree(tmp_path / "MAGB" / "Grocery" / place)
    options = SourceOptions({"joined": "LLAMA8B_CLIP"}, split_at=6)
    graph = load("grocery", root=tmp_path, require_official=True, options=options)
    assert graph.source.source == "official"


@pytest.mark.usefixtures("small")
def test_features_without_a_graph_are_no_reason_for_a_stand_in(tmp_path: Path) -> None:
    write_magb(tmp_path / "MAGB" / "Grocery")
    (tmp_path / "MAGB" / "Grocery" / "GroceryGraph.pt").unlink()
    with pytest.raises(
        DataError, match=r"dataset grocery: files are missing in .*: \*Graph\.pt; run: hgmm datasets fetch"
    ):
        load("grocery", root=tmp_path)
    with pytest.raises(DataError, match=r"dataset movies: files are missing in .*: \*Graph\.pt, TextFeature"):
        load("movies", root=tmp_path, require_official=True)


def test_other_numbers_than_published_are_refused(tmp_path: Path) -> None:
    write_magb(tmp_path / "MAGB" / "Grocery")
    with pytest.raises(DataError, match=r"node: published 17074, found 40"):
        load("grocery", root=tmp_path)


@pytest.mark.usefixtures("small")
def test_shots_replace_the_published_split(tmp_path: Path) -> None:
    write_magb(tmp_path / "MAGB" / "Grocery")
    assert len(load("grocery", root=tmp_path, options=SourceOptions(shots=1)).train_idx) == 4
    assert len(load("grocery", root=tmp_path).train_idx) == 24


@pytest.mark.usefixtures("small")
def test_the_graphs_of_mm_graph_are_official_too(tmp_path: Path) -> None:
    write_mm_graph(tmp_path / "mm-graph" / "ele-fashion")
    write_mm_links(tmp_path / "mm-graph" / "books-lp", "lp-edge-split-hard.pt")
    for name in ("ele-fashion", "books-lp"):
        assert load(name, root=tmp_path, require_official=True).source.source == "official"


class HTTPError(Exception):
    """What the HTTP client raises."""


class HfHubHTTPError(HTTPError, OSError):
    """What huggingface_hub makes of it."""


class Hub:
    """A stand-in for huggingface_hub that serves a folder, and notes what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        self.spoilt: set[str] = set()
        self.errors = SimpleNamespace(HfHubHTTPError=HfHubHTTPError)

    def HfApi(self) -> Hub:
        return self

    def dataset_info(self, repo: str, *, files_metadata: bool) -> Any:
        assert files_metadata
        self.repo = repo
        return SimpleNamespace(sha="c0ffee", siblings=list(map(self._sibling, sorted(self.folder.rglob("*.*")))))

    def _sibling(self, path: Path) -> Any:
        content = path.read_bytes()
        large = path.suffix != ".csv"
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if large else None
        name = path.relative_to(self.folder).as_posix()
        return SimpleNamespace(rfilename=name, size=len(content), blob_id=blob, lfs=lfs)

    def snapshot_download(
        self, repo: str, *, repo_type: str, revision: str, allow_patterns: list[str], local_dir: str
    ) -> str:
        assert (repo, repo_type, revision) == (self.repo, "dataset", "c0ffee")
        for name in allow_patterns:
            target = Path(local_dir) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            content = (self.folder / name).read_bytes()
            target.write_bytes(bytes(reversed(content)) if name in self.spoilt else content)
            self.fetched.append(name)
        return local_dir


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    write_magb(tmp_path / "hub" / "Grocery")
    write_mm_graph(tmp_path / "hub" / "ele-fashion")
    write_mm_links(tmp_path / "hub" / "books-lp", "lp-edge-split.pt")
    served = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", served)  # type: ignore[arg-type]
    return served


GRAPH, TABLE = "Grocery/GroceryGraph.pt", "Grocery/Grocery.csv"
ROBERTA, CLIP = (
    "Grocery/TextFeature/GroceryS_roberta_base_256_mean.npy",
    "Grocery/ImageFeature/GroceryS_openai_clip-vit-large-patch14.npy",
)
LLAMA, JOINED = (
    "Grocery/TextFeature/GroceryS_Llama_3.2_1B_Instruct_256_mean.npy",
    "Grocery/MMFeature/GroceryS_LLAMA8B_CLIP.npy",
)
SHARED = ("nc_edges-nodeid.pt", "labels-w-missing.pt", "split.pt")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("grocery", None, [GRAPH, ROBERTA, CLIP, TABLE]),
        ("grocery", SourceOptions({"text": "Llama_3.2_1B"}), [GRAPH, LLAMA, CLIP, TABLE]),
        ("grocery", SourceOptions({"joined": "LLAMA8B_CLIP"}), [GRAPH, JOINED, TABLE]),
        ("ele-fashion", None, [f"ele-fashion/{file}" for file in (*SHARED, "clip_feat.pt")]),
        (
            "ele-fashion",
            SourceOptions({"joined": "t5vit"}),
            [f"ele-fashion/{file}" for file in (*SHARED, "t5vit_feat.pt")],
        ),
        (
            "ele-fashion",
            SourceOptions({"text": "t5vit"}),
            [f"ele-fashion/{file}" for file in (*SHARED, "t5vit_feat.pt")],
        ),
        ("books-lp", None, ["books-lp/lp-edge-split.pt", "books-lp/clip_feat.pt"]),
    ],
)
@pytest.mark.usefixtures("small")
def test_only_what_is_needed_is_fetched_and_then_official(
    hub: Hub, tmp_path: Path, name: str, options: SourceOptions | None, expected: list[str]
) -> None:
    paths = fetch(name, root=tmp_path / "data", options=options)
    assert hub.fetched == expected
    into = tmp_path / "data" / DATASETS.get(name).collections[0]
    assert paths == [into / file for file in expected]
    if options is None:
        assert load(name, root=tmp_path / "data", require_official=True).source.source == "official"


def test_what_is_there_and_intact_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    first = fetch("grocery", root=tmp_path / "data")
    first[1].unlink()
    hub.fetched.clear()
    assert fetch("grocery", root=tmp_path / "data") == first
    assert hub.fetched == [ROBERTA]


@pytest.mark.parametrize("spoilt", [ROBERTA, TABLE])
def test_what_is_there_and_differs_is_not_overwritten(hub: Hub, tmp_path: Path, spoilt: str) -> None:
    path = tmp_path / "data" / "MAGB" / spoilt
    fetch("grocery", root=tmp_path / "data")
    path.write_bytes(bytes(reversed(path.read_bytes())))
    with pytest.raises(DataError, match=rf"{path.name} is there and is not the published file; move it away first"):
        fetch("grocery", root=tmp_path / "data")
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=rf"{path.name} is there and is not the published file"):
        fetch("grocery", root=tmp_path / "data")


def test_what_comes_damaged_is_deleted(hub: Hub, tmp_path: Path) -> None:
    hub.spoilt = {CLIP}
    with pytest.raises(DataError, match=rf"fetch {CLIP}: what came from .*Sherirto/MAGB is damaged and was deleted"):
        fetch("grocery", root=tmp_path / "data")
    assert not (tmp_path / "data" / "MAGB" / CLIP).exists()
    assert (tmp_path / "data" / "MAGB" / ROBERTA).exists()


def test_a_file_without_a_published_checksum_is_taken_as_it_is(hub: Hub, tmp_path: Path) -> None:
    hub.repo = "a/b"
    (tmp_path / "hub" / "plain.txt").write_text("content")
    file = HubFile(path := Path("plain.txt"), None, None, None)  # type: ignore[arg-type]
    listing = HubListing("a/b", "c0ffee", (file,))
    assert download_from_hub(listing, [path], into=tmp_path / "d") == [tmp_path / "d" / "plain.txt"]  # type: ignore[list-item]


def test_what_the_hub_lacks_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hub" / GRAPH).unlink()
    with pytest.raises(DataError, match=r"Sherirto/MAGB: it has no \*Graph\.pt in the folder Grocery; put them into "):
        fetch("grocery", root=tmp_path / "data")
    with pytest.raises(DataError, match=r"it has no \*Graph\.pt, TextFeature/\*\.npy, ImageFeature/\*\.npy in .* Toys"):
        fetch("toys", root=tmp_path / "data")


def test_a_choice_is_made_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text: no file has 'Gemma' in its name; there are: GroceryS_Llama"):
        fetch("grocery", root=tmp_path, options=SourceOptions({"text": "Gemma"}))
    with pytest.raises(ConfigError, match="dataset imdb: it offers no choice of files"):
        fetch("imdb", root=tmp_path, options=SourceOptions({"text": "a"}))
    assert hub.fetched == []


def test_without_the_package_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError) as caught:
        fetch("movies", root=tmp_path)
    assert str(caught.value) == (
        "fetch: downloading needs the package huggingface_hub, and it is not installed; run: pip install "
        "'hgmm[download]', or download the files from https://huggingface.co/datasets/Sherirto/MAGB by hand into "
        f"{tmp_path / 'MAGB'}"
    )


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", [ConnectionRefusedError("refused"), HfHubHTTPError("gone"), HTTPError("timed out")])
def test_failures_of_the_network_are_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Hub, "snapshot_download", raising(error))
        with pytest.raises(
            DataError, match=rf"fetch {GRAPH}, .*: the download failed \({error}\); run it again to go on"
        ):
            fetch("grocery", root=tmp_path / "data")
    monkeypatch.setattr(Hub, "dataset_info", raising(error))
    with pytest.raises(DataError, match=rf"MAGB: it cannot be listed \({error}\); check the network, or download the"):
        fetch("grocery", root=tmp_path / "data")
