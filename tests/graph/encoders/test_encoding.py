from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from hgmm.errors import DataError
from hgmm.graph.encoders import ImageStatistics, VectorCache, default_cache_dir, encode_images, encode_texts
from hgmm.graph.encoders.cache import content_digest


class Counting:
    """An encoder that remembers what it was asked."""

    name = "counting"
    cached = True
    width = 2

    def __init__(self, revision: str = "1", *, cached: bool = True) -> None:
        self.revision = revision
        self.cached = cached
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], /) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_equal_texts_are_encoded_once() -> None:
    encoder = Counting()
    assert encode_texts(["a", "bb", "a"], encoder).tolist() == [[1, 97], [2, 98], [1, 97]]
    assert encoder.asked == ["a", "bb"]


def test_only_new_texts_are_encoded_the_next_time(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)
    encode_texts(["a", "bb"], Counting(), cache=cache)
    encoder = Counting()
    assert encode_texts(["ccc", "bb", "a"], encoder, cache=VectorCache(tmp_path)).tolist() == [
        [3, 99],
        [2, 98],
        [1, 97],
    ]
    assert encoder.asked == ["ccc"]
    third = Counting()
    encode_texts(["ccc", "bb", "a"], third, cache=cache)
    assert third.asked == []


def test_another_revision_has_its_own_vectors(tmp_path: Path) -> None:
    encode_texts(["a"], Counting(), cache=VectorCache(tmp_path))
    encoder = Counting("2")
    encode_texts(["a"], encoder, cache=VectorCache(tmp_path))
    assert encoder.asked == ["a"]


def test_cheap_encoders_leave_no_files(tmp_path: Path) -> None:
    encode_texts(["a"], Counting(cached=False), cache=VectorCache(tmp_path))
    assert not list(tmp_path.iterdir())


def damage_bytes(path: Path) -> None:
    path.write_bytes(b"rubbish")


def damage_rows(path: Path) -> None:
    stored = load_file(path)
    save_file(stored | {"vectors": stored["vectors"][:0]}, path)


def damage_keys(path: Path) -> None:
    stored = load_file(path)
    save_file({name: np.concatenate([values, values]) for name, values in stored.items()}, path)


@pytest.mark.parametrize("damage", [damage_bytes, damage_rows, damage_keys])
def test_a_damaged_file_is_said_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    encode_texts(["a"], Counting(), cache=VectorCache(tmp_path))
    (stored,) = tmp_path.rglob("*.safetensors")
    damage(stored)
    encoder = Counting()
    with caplog.at_level(logging.WARNING):
        assert encode_texts(["a"], encoder, cache=VectorCache(tmp_path)).tolist() == [[1, 97]]
    assert encoder.asked == ["a"]
    assert f"{stored}: the stored vectors are damaged" in caplog.text
    caplog.clear()
    third = Counting()
    encode_texts(["a"], third, cache=VectorCache(tmp_path))
    assert (third.asked, caplog.text) == ([], "")


def test_a_look_up_reads_no_file_that_cannot_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, texts = VectorCache(tmp_path), [f"text {number}" for number in range(60)]
    encode_texts(texts[:30], Counting(), cache=cache)
    encode_texts(texts[30:], Counting(), cache=cache)
    encoder = Counting()
    encode_texts(texts, encoder, cache=cache)
    assert encoder.asked == []
    read: list[Path] = []

    def load(path: Path) -> dict[str, np.ndarray]:
        read.append(path)
        return dict(load_file(path))

    monkeypatch.setattr("hgmm.graph.encoders.cache.load_file", load)
    encode_texts(texts[:1], encoder, cache=cache)
    assert [path.stem for path in read] == [content_digest(texts[0].encode())[:2]]


def test_a_full_disk_costs_no_vectors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise DataError(f"{path}: it cannot be written (No space left on device)")

    monkeypatch.setattr("hgmm.graph.encoders.cache.write_bytes", refuse)
    with caplog.at_level(logging.WARNING):
        assert encode_texts(["a"], Counting(), cache=VectorCache(tmp_path)).tolist() == [[1, 97]]
    assert "No space left on device" in caplog.text


def test_a_folder_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert encode_texts(["a"], Counting(), cache=VectorCache(tmp_path / "file")).tolist() == [[1, 97]]
    assert "vectors are not kept for the next time" in caplog.text


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "hgmm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "hgmm"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "copy.png")
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (4, 4), "white").save(tmp_path / "white.png")
    Image.new("P", (4, 4)).save(tmp_path / "palette.gif")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "red.png").read_bytes()[:50])
    return tmp_path


def test_images_are_read_and_failures_told(images: Path) -> None:
    names = ["red.png", "none.png", "text.png", "copy.png", "cut.png", "clear.png", "white.png", "palette.gif"]
    vectors, failed = encode_images([images / name for name in names], ImageStatistics())
    assert sorted(failed) == [1, 2, 4]
    assert encode_images([images / "re\0d.png"], ImageStatistics())[1] == {0: "embedded null byte"}
    assert failed[1] == "No such file or directory"
    assert failed[2] == "no image that Pillow can read"
    assert not vectors[[1, 2, 4]].any()
    np.testing.assert_array_equal(vectors[0], vectors[3])
    np.testing.assert_array_equal(vectors[5], vectors[6])
    assert vectors[7].any()


def test_images_come_from_the_cache_by_content(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    class CountingImages(ImageStatistics):
        asked = 0

        def encode(self, images: Sequence[Image.Image], /) -> np.ndarray:
            self.asked += len(images)
            return super().encode(images)

    cache = VectorCache(tmp_path_factory.mktemp("vectors"))
    encoder = CountingImages()
    first, failed = encode_images([images / "red.png", images / "copy.png", images / "text.png"], encoder, cache=cache)
    assert encoder.asked == 1
    again, failed_again = encode_images([images / "copy.png", images / "white.png"], encoder, cache=cache)
    assert encoder.asked == 2
    np.testing.assert_array_equal(again[0], first[0])
    assert list(failed) == [2]
    assert not failed_again


def test_many_images_go_in_batches(images: Path) -> None:
    paths = []
    for number in range(130):
        paths.append(images / f"{number}.png")
        Image.new("RGB", (2, 2), (number, 0, 0)).save(paths[-1])
    vectors, failed = encode_images(paths, ImageStatistics())
    assert not failed
    np.testing.assert_array_equal(vectors[129], encode_images(paths[129:], ImageStatistics())[0][0])
    assert encode_images([], ImageStatistics())[0].shape == (0, 256)
