from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hgmm.errors import DataError
from hgmm.training._files import read_json, read_tensors, write_json, write_tensors


def test_json_keeps_every_bit(tmp_path: Path) -> None:
    data = {"value": 0.1 + 0.2, "name": "né", "none": None}
    write_json(tmp_path / "new" / "a.json", data)
    assert read_json(tmp_path / "new" / "a.json") == data
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "a.safetensors", {"whole": whole, "part": whole[::2], "scalar": torch.tensor(3)})
    found = read_tensors(tmp_path / "a.safetensors")
    assert torch.equal(found["part"], whole[::2])
    assert torch.equal(found["whole"], whole)
    assert found["scalar"].shape == ()


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(DataError, match=r"a\.json: it cannot be read \(Is a directory\)"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_missing_and_broken_files(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(DataError, match=r"absent.file: there is no such file"):
        read(tmp_path / "absent.file")
    (tmp_path / "broken.file").write_bytes(b"{no")
    with pytest.raises(DataError, match=r"broken.file: it is not (valid JSON|a valid safetensors file)"):
        read(tmp_path / "broken.file")
