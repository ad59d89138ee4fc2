from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.version import Version

from hgmm import dgl_compat
from hgmm.errors import BackendError


def test_dgl_is_the_installed_one() -> None:
    assert Version(dgl_compat.dgl.__version__.split("+")[0]) == Version(metadata.version("dgl").split("+")[0])
    low, high = dgl_compat.DGL_RANGE
    assert low <= Version(metadata.version("dgl")) < high


def test_graphs_can_be_built_and_sampled() -> None:
    g = dgl_compat.dgl.graph((torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])))
    sampler = dgl_compat.dgl.dataloading.NeighborSampler([1])
    blocks = sampler.sample_blocks(g, torch.tensor([0]))[2]
    assert blocks[0].num_dst_nodes() == 1


def test_no_dgl(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(BackendError, match=r"none is installed; run: pip install 'dgl>=1.1.3,<2.5'"):
        dgl_compat._dgl_version()


@pytest.mark.parametrize("version", ["1.1.2", "2.5.0"])
def test_a_dgl_out_of_range(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(BackendError, match=rf"works with DGL 1.1.3 up to 2.5, and {version} is installed"):
        dgl_compat._import_dgl()


@pytest.mark.parametrize(("version", "needed"), [("1.1.3", False), ("2.1.0", True), ("2.4.0", False)])
def test_only_the_middle_versions_need_a_stand_in(monkeypatch: pytest.MonkeyPatch, version: str, needed: bool) -> None:
    monkeypatch.setattr(dgl_compat, "_graphbolt_library", lambda package: None)
    assert dgl_compat._needs_stand_in(Version(version)) is needed


def test_no_stand_in_where_the_library_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dgl_compat, "_graphbolt_library", lambda package: package)
    monkeypatch.setattr(dgl_compat, "_has_module", lambda name: True)
    assert dgl_compat._needs_stand_in(Version("2.1.0")) is False
    monkeypatch.setattr(dgl_compat, "_has_module", lambda name: False)
    assert dgl_compat._needs_stand_in(Version("2.1.0")) is True
    monkeypatch.setattr(dgl_compat, "find_spec", lambda name: None)
    assert dgl_compat._needs_stand_in(Version("2.1.0")) is False


def test_the_library_of_this_torch_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch, "__version__", "2.2.1+cpu")
    assert dgl_compat._graphbolt_library(tmp_path) is None
    library = tmp_path / "graphbolt" / "libgraphbolt_pytorch_2.2.1.so"
    library.parent.mkdir()
    library.touch()
    assert dgl_compat._graphbolt_library(tmp_path) == library


def test_modules_are_looked_for_without_importing_them() -> None:
    assert dgl_compat._has_module("json")
    assert not dgl_compat._has_module("no_such_package.inner")


def test_the_stand_in_says_what_it_is_when_used() -> None:
    stand_in = dgl_compat._GraphBoltStandIn("dgl.graphbolt")
    with pytest.raises(BackendError, match=r"dgl.graphbolt.ItemSet is not available: DGL .* no GraphBolt library for"):
        stand_in.ItemSet([1])


def test_the_stand_in_has_no_dunder_attributes() -> None:
    with pytest.raises(AttributeError, match="__wrapped__"):
        _ = dgl_compat._GraphBoltStandIn("dgl.graphbolt").__wrapped__


def drawn_elsewhere(threads: int) -> str:
    draw = (
        "from hgmm.training.trainer import seed_everything; from hgmm.dgl_compat import dgl; "
        f"dgl.utils.set_num_threads({threads}); seed_everything(5); print(dgl.random.choice(1000000, 5).tolist())"
    )
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", draw], capture_output=True, check=True, text=True
    ).stdout


def test_a_seed_gives_the_same_numbers_in_every_process_whatever_its_threads() -> None:
    alone = drawn_elsewhere(threads=1)
    assert alone.count(",") == 4
    # So many threads that this one is hardly ever the first.
    assert [drawn_elsewhere(threads=256) for _ in range(2)] == [alone] * 2
