"""Vectors kept on disk under the hash of what they were made from."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from hgmm.files import write_bytes
from hgmm.graph.encoders.base import Encoder

__all__ = ["VectorCache", "content_digest", "default_cache_dir"]

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16
SHARD_DIGITS = 2
# What wrong bytes and wrong shapes raise.
DAMAGE = (SafetensorError, OSError, KeyError, IndexError, ValueError)


def default_cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/hgmm``, by default ``~/.cache/hgmm``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).expanduser() / "hgmm"


def content_digest(content: bytes) -> str:
    """Return the 128-bit BLAKE2b hash of `content` in hexadecimal."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


class VectorCache:
    """One folder an encoder, one file for each first byte of the hash, so that a look-up reads what it may find.

    Parameters
    ----------
    folder : Path
        Made when the first vectors are stored.

    Notes
    -----
    Nothing is lost with a file of it but the time to encode again, so a damaged one is a warning and is written anew,
    and of two processes that store into the same file at once one may lose its new vectors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _shards(
        self, what: str, encoder: Encoder, digests: NDArray[np.object_]
    ) -> Iterator[tuple[Path, NDArray[np.int64]]]:
        """Yield each file that the digests belong into, and their positions."""
        identity = f"{what}\n{encoder.name}\n{encoder.revision}\n{encoder.width}"
        folder = self.folder / "vectors" / content_digest(identity.encode())
        prefixes = pd.Series(digests, dtype=object).str[:SHARD_DIGITS]
        for prefix, positions in prefixes.groupby(prefixes).indices.items():
            yield folder / f"{prefix}.safetensors", positions

    def lookup(
        self, what: str, encoder: Encoder, digests: NDArray[np.object_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return what is stored; a damaged file counts as empty and is logged.

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
        """
        vectors = np.zeros((len(digests), encoder.width), dtype=np.float32)
        found = np.zeros(len(digests), dtype=bool)
        for path, positions in self._shards(what, encoder, digests):
            try:
                keys, stored = _read_shard(path, encoder.width)
            except DAMAGE as error:
                logger.warning("%s: the stored vectors are damaged (%s) and are made anew", path, error)
                continue
            place = pd.Index(keys, dtype=object).get_indexer(pd.Index(digests[positions], dtype=object))
            hit = place >= 0
            vectors[positions[hit]] = stored[place[hit]]
            found[positions[hit]] = True
        return vectors, found

    def add(self, what: str, encoder: Encoder, digests: NDArray[np.object_], vectors: NDArray[np.float32]) -> None:
        """Store ``(n, width)`` vectors of ``n`` different items; a folder that cannot be written is logged, no more."""
        for path, positions in self._shards(what, encoder, digests):
            new_keys, new = digests[positions], vectors[positions]
            try:
                keys, stored = _read_shard(path, encoder.width)
                kept = ~np.isin(keys.astype(str), new_keys.astype(str))
                new_keys, new = np.concatenate([keys[kept], new_keys]), np.concatenate([stored[kept], new])
            except DAMAGE:
                # The look-up has said so; the file is replaced.
                pass
            packed = np.frombuffer(bytes.fromhex("".join(new_keys)), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
            try:
                write_bytes(path, save({"digests": packed, "vectors": np.ascontiguousarray(new, dtype=np.float32)}))
            except OSError as error:
                logger.warning("vectors are not kept for the next time: %s", error)
                return


def _read_shard(path: Path, width: int) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
    if not path.exists():
        return np.empty(0, dtype=object), np.empty((0, width), dtype=np.float32)
    stored = load_file(path)
    packed = stored["digests"].reshape(-1, DIGEST_BYTES)
    vectors = stored["vectors"]
    if vectors.shape != (len(packed), width) or vectors.dtype != np.float32:
        raise ValueError(f"{len(packed)} keys, vectors of shape {vectors.shape} and type {vectors.dtype}")
    keys = [key.hex() for key in packed.view(f"V{DIGEST_BYTES}").ravel().tolist()]
    if len(set(keys)) != len(keys):
        raise ValueError("a key stands twice")
    return np.array([*keys, None], dtype=object)[:-1], vectors
