from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hgmm.errors import ConfigError
from hgmm.graph.encoders import image_encoder, text_encoder


class SentenceTransformer:
    """Behaves like the class of the same name as far as hgmm uses it."""

    def __init__(self, name: str) -> None:
        if name == "nowhere":
            raise OSError("no model nowhere")
        self.commit = None if name == "local" else "abc123"

    def modules(self) -> Iterator[Any]:
        yield SimpleNamespace()
        yield SimpleNamespace(config=SimpleNamespace(_commit_hash=self.commit))

    def encode(self, items: list[Any], **options: Any) -> np.ndarray:
        assert options == {"convert_to_numpy": True, "normalize_embeddings": True, "show_progress_bar": False}
        return np.array([[len(str(item)), 0, 1] for item in items], dtype=np.float64)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


@pytest.mark.usefixtures("installed")
def test_a_model_by_name() -> None:
    encoder = text_encoder("all-MiniLM-L6-v2")
    assert (encoder.name, encoder.revision, encoder.width) == ("all-MiniLM-L6-v2", "abc123", 3)
    assert encoder.encode(["ab", "c"]).tolist() == [[2, 0, 1], [1, 0, 1]]
    assert encoder.encode(["ab"]).dtype == np.float32
    assert encoder.encode([]).shape == (0, 3)
    assert image_encoder("local").revision == "unknown"


@pytest.mark.usefixtures("installed")
def test_a_model_that_cannot_be_had_or_has_another_width() -> None:
    with pytest.raises(
        ConfigError, match=r"encoder 'nowhere': sentence-transformers cannot load it \(no model nowhere\)"
    ):
        text_encoder("nowhere")
    with pytest.raises(ConfigError, match="encoder 'small' width: its vectors have 3 numbers, got 256"):
        text_encoder("small", width=256)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"encoder 'buildin': known without .* is 'builtin'; .*hgmm\[encoders\]"):
        text_encoder("buildin")
    with pytest.raises(ConfigError, match="encoder 'clip-ViT-B-32'"):
        image_encoder("clip-ViT-B-32")
