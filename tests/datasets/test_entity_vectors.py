from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hgmm.datasets.entity_vectors import modality_of, read_entity_vectors
from hgmm.errors import DataError

ENTITIES = ("a", "b c", "d")
VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


def write(folder: Path, name: str, values: np.ndarray) -> None:
    """Write a matrix in the format that the name asks for."""
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, feature=values)
    elif path.suffix == ".safetensors":
        save_file({"weight": values}, path)
    else:
        torch.save(torch.from_numpy(values), path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt", ".pth"])
def test_one_row_an_entity_in_any_format(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, f"DB15K-visual{suffix}", VALUES)
    found = read_entity_vectors(tmp_path, ENTITIES)
    assert found.features["image"].tolist() == VALUES.tolist()
    assert found.features["image"].dtype == torch.float32
    assert found.present == {}
    assert found.sources == {"image": f"DB15K-visual{suffix}"}
    assert [file.name for file in found.files] == [f"DB15K-visual{suffix}"]


@pytest.mark.parametrize(
    "content",
    [torch.from_numpy(VALUES).half(), VALUES, {"weight": torch.from_numpy(VALUES)}, torch.from_numpy(VALUES).long()],
    ids=["half", "numpy", "state", "whole"],
)
def test_what_a_torch_file_may_hold(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "text.pt")
    assert read_entity_vectors(tmp_path, ENTITIES).features["text"].tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("image.npy", "image"),
        ("FB15K_ImageData.h5", "image"),
        ("MMKB_img_BEIT_16-224.h5", "image"),
        ("MMKB_description_sentences.h5", "text"),
        ("DB15K-textual.pth", "text"),
        ("numeric.npy", "numeric"),
        ("TIVA-audio.pth", "audio"),
        ("weights.pt", None),
        ("text-image.npy", None),
    ],
)
def test_the_name_of_a_file_states_the_modality(name: str, modality: str | None) -> None:
    assert modality_of(Path(name)) == modality


def test_rows_of_named_entities(tmp_path: Path) -> None:
    write(tmp_path, "image.npy", VALUES[:2] + 1)
    (tmp_path / "image_ids.txt").write_text("d\na\n")
    found = read_entity_vectors(tmp_path, ENTITIES)
    assert found.features["image"].tolist() == [[3, 4], [0, 0], [1, 2]]
    assert found.present["image"].tolist() == [True, False, True]
    assert {file.name for file in found.files} == {"image.npy", "image_ids.txt"}


def test_a_mask_of_entities_without_a_vector(tmp_path: Path) -> None:
    write(tmp_path, "image.npy", np.where(VALUES == 2, np.nan, VALUES))
    np.save(tmp_path / "image_present.npy", np.array([True, False, True]))
    found = read_entity_vectors(tmp_path, ENTITIES)
    assert found.features["image"].tolist() == [[0, 1], [0, 0], [4, 5]]
    assert found.present["image"].tolist() == [True, False, True]
    np.save(tmp_path / "image_present.npy", np.ones(3))
    with pytest.raises(DataError, match=r"image_present\.npy: must be \(3,\) bool, got \(3,\) float64"):
        read_entity_vectors(tmp_path, ENTITIES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    write(tmp_path, "image.npy", np.where(VALUES == 3, np.float32(value), VALUES))
    with pytest.raises(DataError) as caught:
        read_entity_vectors(tmp_path, ENTITIES)
    assert str(caught.value) == (
        f"vectors {tmp_path / 'image.npy'}: 1 problem found.\n"
        "  not finite (1):\n"
        f"    - image.npy entity 'b c': has {value} in column 1\n"
        "Mark entities without a vector as False in image_present.npy."
    )


def test_a_wrong_number_of_rows(tmp_path: Path) -> None:
    write(tmp_path, "text.npy", VALUES[:2])
    with pytest.raises(DataError, match=r"one row for each of the 3 entities, got 2; or name .* in text_ids\.txt"):
        read_entity_vectors(tmp_path, ENTITIES)
    (tmp_path / "text_ids.txt").write_text("a\nnobody\na\n")
    with pytest.raises(DataError) as caught:
        read_entity_vectors(tmp_path, ENTITIES)
    assert str(caught.value) == (
        f"vectors {tmp_path / 'text.npy'}: 3 problems found.\n"
        "  unknown entity (1):\n"
        "    - text_ids.txt row 2: 'nobody' is no entity of the triples\n"
        "  duplicate name (1):\n"
        "    - text_ids.txt row 3: 'a' stands in an earlier row\n"
        "  wrong length (1):\n"
        "    - text_ids.txt: 3 names, text.npy 2 rows\n"
        "Name in each row of text_ids.txt the entity of that row of text.npy, as the triples name it."
    )


class _Writes:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickled_module_is_refused_and_no_code_runs(tmp_path: Path) -> None:
    torch.save(torch.nn.Embedding(3, 2), tmp_path / "image.pth")
    with pytest.raises(DataError, match=r"image\.pth: .*Embedding.*torch\.save\(module\.weight\.detach\(\), path\)"):
        read_entity_vectors(tmp_path, ENTITIES)
    torch.save(_Writes(tmp_path / "ran"), tmp_path / "image.pth")
    with pytest.raises(DataError, match=r"image\.pth: .*nothing was run"):
        read_entity_vectors(tmp_path, ENTITIES)
    (tmp_path / "image.pth").write_bytes(pickle.dumps(_Writes(tmp_path / "ran"), protocol=2))
    with pytest.raises(DataError, match=r"image\.pth: .*nothing was run"):
        read_entity_vectors(tmp_path, ENTITIES)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.pt", torch.zeros(3), r"text\.pt: must hold one matrix \(entities, width\), got the shape \(3,\)"),
        ("text.pt", {"a": torch.zeros(3, 1), "b": torch.zeros(1)}, r"got a dictionary of a, b"),
        ("text.pt", [1, 2], r"got a list"),
        ("text.pt", torch.eye(3).to_sparse(), r"text\.pt: must be a dense matrix of real numbers, got the layout"),
        ("text.pt", torch.ones(3, 1) * 1j, r"text\.pt: must be a dense matrix of real numbers, got complex numbers"),
        ("text.pt", np.array([["x"], ["y"], ["z"]]), r"text\.pt: must be a matrix of numbers, got the shape \(3, 1\)"),
    ],
    ids=["vector", "several", "list", "sparse", "complex", "words"],
)
def test_other_content_of_torch_files(tmp_path: Path, name: str, content: object, message: str) -> None:
    torch.save(content, tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_entity_vectors(tmp_path, ENTITIES)


def test_damaged_safetensors(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match=r"text\.safetensors: cannot be read as safetensors"):
        read_entity_vectors(tmp_path, ENTITIES)


def test_files_that_cannot_be_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "image.npy", VALUES)
    write(tmp_path, "visual.pt", VALUES)
    with pytest.raises(DataError, match=r"image\.npy and visual\.pt both hold image; keep one"):
        read_entity_vectors(tmp_path, ENTITIES)
    (tmp_path / "visual.pt").rename(tmp_path / "sound.pt")
    with pytest.raises(DataError, match=r"sound\.pt: the name .* must have one of the words text, image"):
        read_entity_vectors(tmp_path, ENTITIES)


def test_numbers_of_entities(tmp_path: Path) -> None:
    (tmp_path / "X_NumericalTriples.txt").write_text("a\theight\t1\nd\theight\t3\n")
    found = read_entity_vectors(tmp_path, ENTITIES)
    assert found.features["numeric"].tolist() == [[-1, 1], [0, 0], [1, 1]]
    assert found.present["numeric"].tolist() == [True, False, True]
    assert [file.name for file in found.files] == ["X_NumericalTriples.txt"]
    write(tmp_path, "numeric.npy", VALUES)
    with pytest.raises(DataError, match=r"X_NumericalTriples\.txt, numeric\.npy all hold numeric; keep one"):
        read_entity_vectors(tmp_path, ENTITIES)
