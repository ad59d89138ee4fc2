"""Vectors from a sentence-transformers or CLIP model, if the user has the package (extra ``encoders``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgmm.errors import ConfigError

__all__ = ["PretrainedEncoder"]


class PretrainedEncoder:
    """A model that the package sentence-transformers can load; its CLIP models encode texts and images.

    Parameters
    ----------
    name : str
        A model's name on its hub or a folder, for example ``all-MiniLM-L6-v2`` or ``clip-ViT-B-32``.

    Raises
    ------
    ConfigError
        If the package is not installed or the model cannot be loaded.
    """

    cached = True

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(
                f"encoder {name!r}: known without further packages is 'builtin'; other names are models of "
                "sentence-transformers, which is not installed; run: pip install 'hgmm[encoders]'"
            ) from error
        try:
            self._model: Any = SentenceTransformer(name)
        except (OSError, ValueError) as error:
            raise ConfigError(f"encoder {name!r}: sentence-transformers cannot load it ({error})") from error
        self.name = name
        self.revision = _revision(self._model)
        self.width = int(self._vectors(["width"]).shape[1])

    def encode(self, items: Sequence[Any], /) -> NDArray[np.float32]:
        """Return ``(n, width)`` float32 of norm 1 for texts, or for images if the model is a CLIP model."""
        if not len(items):
            return np.zeros((0, self.width), dtype=np.float32)
        return self._vectors(list(items))

    def _vectors(self, items: list[Any]) -> NDArray[np.float32]:
        vectors = self._model.encode(items, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


def _revision(model: Any) -> str:
    for module in model.modules():
        commit = getattr(getattr(module, "config", None), "_commit_hash", None)
        if commit:
            return str(commit)
    return "unknown"
