from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hgmm.errors import DataError
from hgmm.files import file_sha256, missing_file, sync_folder, write_atomically, write_bytes, write_file


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    sync_folder(tmp_path)


def test_results_are_as_readable_as_other_new_files(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_bytes(tmp_path / "bytes", b"content")
    assert (tmp_path / "bytes").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "bytes").read_bytes() == b"content"


def test_folders_are_made_and_a_refusal_is_said_in_words(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "file", b"content")
    with pytest.raises(DataError, match=r"new/file/inside: it cannot be written \((Not a directory|File exists)\)"):
        write_bytes(tmp_path / "new" / "file" / "inside", b"content")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"new/file: it cannot be written \(No space left on device\); make room"):
        write_file(tmp_path / "new" / "file", full)
    assert (tmp_path / "new" / "file").read_bytes() == b"content"


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert missing_file(tmp_path / "there", "there") == []
    assert [str(p) for p in missing_file(tmp_path, "dir")] == [f"dir: there is no such file in {tmp_path.parent}"]
    assert [str(p) for p in missing_file(tmp_path / ("a" * 300), "long")] == ["long: File name too long"]


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
