from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hgmm.datasets.torch_files import load_dgl_graph, load_torch, numbers_of
from hgmm.dgl_compat import dgl
from hgmm.errors import DataError


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    "content",
    [
        torch.arange(4),
        [[0, 1], [2, 3]],
        {"a": torch.zeros(2)},
        np.arange(6).reshape(2, 3),
        {"i": np.arange(2), "l": [1]},
    ],
    ids=["tensor", "list", "tensors", "array", "arrays"],
)
def test_tensors_lists_and_arrays_are_read(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert repr(load_torch(tmp_path / "a.pt")) == repr(content)


@pytest.mark.parametrize("new_format", [True, False])
def test_no_code_is_run(tmp_path: Path, new_format: bool) -> None:
    marker = tmp_path / "ran"
    torch.save(Malicious(marker), tmp_path / "a.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(DataError, match=r"a\.pt: .*nothing was run"):
        load_torch(tmp_path / "a.pt")
    assert not marker.exists()
    torch.save([np.arange(3), Malicious(marker)], tmp_path / "b.pt")
    with pytest.raises(DataError, match=r"b\.pt: its pickle asks for (posix|nt)\.mkdir; only numpy arrays"):
        load_torch(tmp_path / "b.pt")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 and no archive", bytes(2000)])
def test_damage_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pt: "):
        load_torch(tmp_path / "a.pt")


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    torch.save(torch.arange(1000), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.pt: cannot be read as a torch file .*; fetch the file again"):
        load_torch(tmp_path / "a.pt")


def test_arrays_beside_tensors_are_refused(tmp_path: Path) -> None:
    torch.save([np.arange(3), torch.arange(3)], tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a\.pt: its pickle asks for torch\._utils\._rebuild_tensor_v2; only numpy"):
        load_torch(tmp_path / "a.pt")


def test_a_graph_has_one_type_and_one_relation(tmp_path: Path) -> None:
    dgl.save_graphs(str(tmp_path / "a.pt"), [dgl.heterograph({("a", "r", "b"): ([0], [1])})])
    with pytest.raises(DataError, match=r"must hold a graph of one node type and one relation, got .*'a', 'r', 'b'"):
        load_dgl_graph(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"junk", b""])
def test_what_is_no_graph_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pt: cannot be read as a DGL graph"):
        load_dgl_graph(tmp_path / "a.pt")


def test_a_cut_graph_is_named(tmp_path: Path) -> None:
    dgl.save_graphs(str(tmp_path / "a.pt"), [dgl.graph((torch.arange(900), torch.arange(900)))])
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.pt: cannot be read as a DGL graph"):
        load_dgl_graph(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [[1, 2], np.array([1, 2], dtype=np.int32), torch.tensor([1, 2])])
def test_whole_numbers_become_int64(value: Any) -> None:
    assert torch.equal(numbers_of("here", value, ndim=1), torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.5], r"here: must be whole numbers in 1 dimension, got \(1,\) torch\.float64"),
        ([[1]], r"here: must be whole numbers in 1 dimension, got \(1, 1\) torch\.int64"),
        ([True], r"here: must be whole numbers in 1 dimension, got \(1,\) torch\.bool"),
        ({"a": 1}, r"here: must be whole numbers, got a dict"),
        (["a"], r"here: must be whole numbers, got a list"),
    ],
)
def test_other_than_whole_numbers_are_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        numbers_of("here", value, ndim=1)
