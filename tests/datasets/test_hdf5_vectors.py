from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hgmm.datasets.entity_vectors import read_entity_vectors
from hgmm.datasets.hdf5_vectors import key_forms, read_hdf5
from hgmm.errors import DataError

ENTITIES = ("<http://dbpedia.org/resource/Ada>", "/m/02_x", "plain", "<http://a/Twice>", "<http://b/Twice>")


def h5py() -> Any:
    return pytest.importorskip("h5py", reason="reading HDF5 needs the extra hdf5")


def write(path: Path, content: dict[str, Any]) -> Path:
    with h5py().File(path, "w") as store:
        for key, values in content.items():
            store[key] = values
    return path


def test_keys_are_names_ends_of_addresses_or_dotted_ids(tmp_path: Path) -> None:
    content = {
        "Ada": np.array([1.0, 2.0]),
        "m.02_x": np.ones((1, 2)),
        "plain": [[2, 4], [4, 8], [0, 0]],
        "Twice": [7, 7],
        "?": [9, 9],
    }
    table, present, note = read_hdf5(write(tmp_path / "text.h5", content), ENTITIES)
    assert table.tolist() == [[1, 2], [1, 1], [3, 6], [0, 0], [0, 0]]
    assert present is not None
    assert present.tolist() == [True, True, True, False, False]
    assert note == "2 of 5 keys of text.h5 are no entity of the graph"


def test_keys_with_slashes_are_folders(tmp_path: Path) -> None:
    content = {"<http://a/Twice>": [1.0], "/m/02_x": [2.0], "http://b/Twice": [3.0]}
    table, present, note = read_hdf5(write(tmp_path / "text.h5", content), ENTITIES)
    assert table[:, 0].tolist() == [0, 2, 0, 1, 3]
    assert present is not None
    assert present.tolist() == [False, True, False, True, True]
    assert note == ""


def test_pictures_are_averaged_by_their_entity(tmp_path: Path) -> None:
    write(tmp_path / "X_ImageData.h5", {"IMG1": [1.0, 3.0], "IMG2": [3.0, 5.0], "IMG3": [5.0, 5.0]})
    (tmp_path / "X_ImageIndex.txt").write_text("plain\tIMG1\nplain\tIMG2\n/m/02_x\tIMG3\nnobody\tIMG4\n")
    found = read_entity_vectors(tmp_path, ENTITIES)
    assert found.features["image"].tolist() == [[0, 0], [5, 5], [2, 4], [0, 0], [0, 0]]
    assert found.present["image"].tolist() == [False, True, True, False, False]
    assert [file.name for file in found.files] == ["X_ImageIndex.txt", "X_ImageData.h5"]
    assert found.notes == []


def test_a_single_matrix_is_read_by_row(tmp_path: Path) -> None:
    values = np.arange(10.0).reshape(5, 2)
    table, present, note = read_hdf5(write(tmp_path / "text.h5", {"feature": values}), ENTITIES)
    assert table.tolist() == values.tolist()
    assert (present, note) == (None, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"x": [1.0], "y": [2.0]},
            r"none of its 2 keys is one of the 5 entities .* first key is 'x', the first entity",
        ),
        ({}, r"none of its 0 keys .* first key is ''"),
        ({"plain": [1.0], "Ada": [1.0, 2.0]}, r"all vectors must be of one width, got 1, 2"),
        ({"plain": b"abc"}, r"'plain' must be numbers, got \(\)"),
        ({"plain": np.zeros((0, 2))}, r"'plain' must be numbers, got \(0, 2\)"),
    ],
)
def test_content_that_does_not_fit(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_hdf5(write(tmp_path / "text.h5", content), ENTITIES)


def test_a_damaged_file(tmp_path: Path) -> None:
    h5py()
    (tmp_path / "text.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"text\.h5: cannot be read as HDF5"):
        read_hdf5(tmp_path / "text.h5", ENTITIES)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(DataError, match=r"text\.h5: reading HDF5 needs the package h5py.*'hgmm\[hdf5\]'"):
        read_hdf5(tmp_path / "text.h5", ENTITIES)


def test_forms_of_a_key() -> None:
    assert key_forms("plain name") == ["plain name"]
