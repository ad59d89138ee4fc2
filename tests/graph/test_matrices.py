from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hgmm.errors import Problem
from hgmm.graph.matrices import read_ids, read_matrix, repeated_ids

VALUES = np.arange(6, dtype=np.float64).reshape(2, 3)


def write(path: Path) -> Path:
    if path.suffix == ".npy":
        np.save(path, VALUES)
    elif path.suffix == ".npz":
        np.savez(path, a=VALUES, b=VALUES + 1)
    else:
        save_file({"a": VALUES, "b": VALUES + 1}, path)
    return path


@pytest.mark.parametrize(("name", "key"), [("m.npy", None), ("m.npz", "b"), ("m.safetensors", "b")])
def test_each_format(tmp_path: Path, name: str, key: str | None) -> None:
    problems: list[Problem] = []
    values = read_matrix(write(tmp_path / name), name, key, problems)
    assert values is not None
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, VALUES + (key == "b"))
    assert not problems


@pytest.mark.parametrize("name", ["m.npz", "m.safetensors"])
def test_several_arrays_need_a_key(tmp_path: Path, name: str) -> None:
    problems: list[Problem] = []
    path = write(tmp_path / name)
    assert read_matrix(path, name, None, problems) is None
    assert read_matrix(path, name, "c", problems) is None
    assert [str(problem) for problem in problems] == [
        f"{name}: it holds 2 arrays: a, b; say which one with `key:`",
        f"{name}: unknown array 'c'; known: a, b.",
    ]


def test_the_array_of_a_plain_file_has_no_key(tmp_path: Path) -> None:
    problems: list[Problem] = []
    assert read_matrix(write(tmp_path / "m.npy"), "m.npy", "a", problems) is None
    assert [str(problem) for problem in problems] == ["m.npy: its only array has no name; leave out the key 'a'"]


def test_numbers_beyond_float32_become_infinite(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([[1e300, 1.0]]))
    values = read_matrix(tmp_path / "m.npy", "m.npy", None, [])
    assert values is not None
    assert values.tolist() == [[np.inf, 1.0]]


@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.safetensors"])
def test_damage_anywhere_is_a_problem_or_harmless(tmp_path: Path, name: str) -> None:
    """Every exception of the libraries behind must be known; a surprise would fail here."""
    if name == "m.npz":
        np.savez_compressed(tmp_path / name, a=VALUES)
    else:
        write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    key = None if name == "m.npy" else "a"
    for place in range(0, len(content), 3):
        flipped = [content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :] for bits in (1, 255)]
        for damaged in (content[:place], *flipped):
            (tmp_path / name).write_bytes(damaged)
            problems: list[Problem] = []
            values = read_matrix(tmp_path / name, name, key, problems)
            assert (values is None) == bool(problems)
            assert values is None or len(damaged) == len(content), "a file that is cut off has been read"


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([{}], dtype=object), allow_pickle=True)
    problems: list[Problem] = []
    assert read_matrix(tmp_path / "m.npy", "m.npy", None, problems) is None
    assert "allow_pickle=False" in str(problems[0])


@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.safetensors"])
def test_rubbish_and_nothing(tmp_path: Path, name: str) -> None:
    problems: list[Problem] = []
    (tmp_path / name).write_bytes(b"rubbish rubbish rubbish")
    assert read_matrix(tmp_path / name, name, None, problems) is None
    (tmp_path / name).write_bytes(b"")
    assert read_matrix(tmp_path / name, name, None, problems) is None
    (tmp_path / name).unlink()
    assert read_matrix(tmp_path / name, name, None, problems) is None
    assert [problem.kind for problem in problems] == ["unreadable file", "empty file", "missing file"]


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros(3), "its shape is (3,)"),
        (np.zeros((3, 0)), "its shape is (3, 0)"),
        (np.zeros((2, 2), dtype="U3"), "its dtype is <U3"),
        (np.zeros((2, 2), dtype=complex), "its dtype is complex128"),
    ],
)
def test_arrays_that_are_no_feature_matrix(tmp_path: Path, array: np.ndarray, text: str) -> None:
    np.save(tmp_path / "m.npy", array)
    problems: list[Problem] = []
    assert read_matrix(tmp_path / "m.npy", "m.npy", None, problems) is None
    assert text in str(problems[0])


def test_another_suffix(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"x")
    problems: list[Problem] = []
    assert read_matrix(tmp_path / "m.pt", "m.pt", None, problems) is None
    assert str(problems[0]) == "m.pt: its name ends in '.pt'; matrices are read from .npy, .npz, .safetensors"


def test_ids(tmp_path: Path) -> None:
    problems: list[Problem] = []
    (tmp_path / "ids.txt").write_bytes("\ufeff007\r\nä b\r\n\r\n".encode())
    ids = read_ids(tmp_path / "ids.txt", "ids.txt", problems)
    assert ids is not None
    assert ids.tolist() == ["007", "ä b"]
    assert not problems
    (tmp_path / "ids.txt").write_text("\n\n")
    assert read_ids(tmp_path / "ids.txt", "ids.txt", problems) is None
    (tmp_path / "ids.txt").write_bytes(b"\xe4")
    assert read_ids(tmp_path / "ids.txt", "ids.txt", problems) is None
    assert read_ids(tmp_path / "none.txt", "none.txt", problems) is None
    assert [problem.kind for problem in problems] == ["empty file", "unreadable file", "missing file"]


def test_ids_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: str) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "ids.txt").touch()
    monkeypatch.setattr(Path, "read_text", refuse)
    problems: list[Problem] = []
    assert read_ids(tmp_path / "ids.txt", "ids.txt", problems) is None
    assert [str(problem) for problem in problems] == ["ids.txt: Permission denied"]


def test_repeated_ids_name_the_first_place() -> None:
    ids = np.array(["a", "b", "a", "a"], dtype=object)
    assert [str(problem) for problem in repeated_ids(ids, lambda row: f"row {row}")] == [
        "row 2: id 'a' stands already in row 0",
        "row 3: id 'a' stands already in row 0",
    ]
