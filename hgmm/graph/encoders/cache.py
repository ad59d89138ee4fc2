"""Vectors kept on disk under the hash of what they were made from."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hgmm.errors import DataError
from hgmm.graph.encoders.base import Encoder
from hgmm.graph.files import write_tensors

__all__ = ["VectorCache", "content_digest", "default_cache_dir"]

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/hgmm``, by default ``~/.cache/hgmm``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).expanduser() / "hgmm"


def content_digest(content: bytes) -> str:
    """Return the 128-bit BLAKE2b hash of `content` in hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class VectorCache:
    """One folder an encoder, one file a batch of new vectors; files are added, never changed.

    Parameters
    ----------
    folder : Path
        Made when the first vectors are stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _folder(self, what: str, encoder: Encoder) -> Path:
        identity = f"{what}\n{encoder.name}\n{encoder.revision}\n{encoder.width}"
        return self.folder / "vectors" / content_digest(identity.encode())

    def lookup(
        self, what: str, encoder: Encoder, digests: NDArray[np.object_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return what is stored.

        Parameters
        ----------
        what : str
            ``text`` or ``image``.
        encoder : Encoder
            Its name, revision and width are part of the key.
        digests : ndarray
            ``(n,)`` `content_digest` of each item.

        Returns
        -------
        vectors : ndarray
            ``(n, width)`` float32, zeros where nothing is stored.
        found : ndarray
            ``(n,)`` bool.

        Raises
        ------
        DataError
            If a stored file is damaged.
        """
        vectors = np.zeros((len(digests), encoder.width), dtype=np.float32)
        found = np.zeros(len(digests), dtype=bool)
        for path in sorted(self._folder(what, encoder).glob("*.safetensors")):
            try:
                stored = load_file(path)
                keys = pd.Index([key.hex() for key in stored["digests"].view("V16").ravel().tolist()], dtype=object)
                position = keys.get_indexer(pd.Index(digests, dtype=object))
                hit = position >= 0
                vectors[hit] = stored["vectors"][position[hit]]
            except (SafetensorError, OSError, KeyError, IndexError, ValueError) as error:
                raise DataError(f"{path}: the stored vectors are damaged ({error}); delete the file") from error
            found |= hit
        return vectors, found

    def add(self, what: str, encoder: Encoder, digests: NDArray[np.object_], vectors: NDArray[np.float32]) -> None:
        """Store ``(n, width)`` vectors of ``n`` different items; a folder that cannot be written is logged, no more."""
        if not len(digests):
            return
        packed = np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8).reshape(-1, 16)
        folder = self._folder(what, encoder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{content_digest(packed.tobytes())}.safetensors"
            write_tensors(path, {"digests": packed, "vectors": np.ascontiguousarray(vectors)})
        except (OSError, SafetensorError) as error:
            logger.warning("vectors are not kept for the next time: %s cannot be written (%s)", folder, error)
