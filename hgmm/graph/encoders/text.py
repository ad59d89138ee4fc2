"""Text vectors without a model: hashed character n-grams."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hgmm.errors import ConfigError
from hgmm.graph.encoders.base import BUILTIN
from hgmm.graph.hashing import mix64

__all__ = ["HashedNgrams"]

SIZES = (3, 4, 5)
CHUNK = 4096


class HashedNgrams:
    """Counts of character n-grams (3 to 5), hashed with a sign into a fixed number of columns, L2-normalised.

    Texts are compared without case, after Unicode's NFKC, with single spaces around every word. The hash is arithmetic
    on code points, so equal texts give equal vectors on every machine. Signed feature hashing is Weinberger et al.
    (2009); sizes and normalisation are ours.

    Parameters
    ----------
    width : int, optional
        Columns, at least 8.

    Raises
    ------
    ConfigError
        If the width is too small.
    """

    name = BUILTIN
    revision = "1"
    cached = False

    def __init__(self, width: int = 256) -> None:
        if not isinstance(width, int) or isinstance(width, bool) or width < 8:
            raise ConfigError(f"HashedNgrams width: must be a whole number of at least 8, got {width!r}")
        self.width = width

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return ``(n, width)`` float32 of norm 1; a text of nothing but spaces gives zeros."""
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for start in range(0, len(texts), CHUNK):
            vectors[start : start + CHUNK] = self._encode(texts[start : start + CHUNK])
        return vectors

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        words = [unicodedata.normalize("NFKC", text).casefold().split() for text in texts]
        plain = [f" {' '.join(found)} " if found else "" for found in words]
        points = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in plain])
        counts = np.zeros(len(texts) * self.width)
        for size in SIZES:
            starts = max(len(points) - size + 1, 0)
            code = np.full(starts, size, dtype=np.uint64)
            for offset in range(size):
                code = mix64(code ^ points[offset : offset + starts])
            inside = owner[:starts] == owner[size - 1 :]
            column = (code % np.uint64(self.width)).astype(np.int64)
            sign = 1.0 - 2.0 * (code >> np.uint64(63)).astype(np.float64)
            cell = owner[:starts] * self.width + column
            counts += np.bincount(cell[inside], weights=sign[inside], minlength=counts.size)
        table = counts.reshape(len(texts), self.width)
        norm = np.linalg.norm(table, axis=1, keepdims=True)
        vectors: NDArray[np.float64] = np.divide(table, norm, out=np.zeros_like(table), where=norm > 0)
        return vectors
