"""Running an encoder over a column: each distinct content once, through the cache."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hgmm.graph.encoders.base import ImageEncoder, TextEncoder
from hgmm.graph.encoders.cache import VectorCache, content_digest

__all__ = ["encode_images", "encode_texts"]

IMAGES_AT_ONCE = 64


def encode_texts(
    texts: Sequence[str] | NDArray[np.object_], encoder: TextEncoder, *, cache: VectorCache | None = None
) -> NDArray[np.float32]:
    """Return ``(n, width)`` float32 for ``n`` texts; equal texts are encoded once.

    Parameters
    ----------
    texts : sequence of str
        The texts.
    encoder : TextEncoder
        What encodes them.
    cache : VectorCache, optional
        Where vectors are kept, if the encoder is one whose vectors are worth it.
    """
    codes, distinct = pd.factorize(pd.Series(np.asarray(texts, dtype=object), dtype=object))
    items = np.asarray(distinct, dtype=object)
    if cache is None or not encoder.cached:
        vectors = encoder.encode(items.tolist())
        return np.asarray(vectors[codes])
    digests = _array([content_digest(text.encode("utf-8", "surrogatepass")) for text in items])
    vectors, found = cache.lookup("text", encoder, digests)
    if not found.all():
        vectors[~found] = encoder.encode(items[~found].tolist())
        cache.add("text", encoder, digests[~found], vectors[~found])
    return np.asarray(vectors[codes])


def encode_images(
    paths: Sequence[Path], encoder: ImageEncoder, *, cache: VectorCache | None = None
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Return vectors for image files; equal files are encoded once.

    Parameters
    ----------
    paths : sequence of Path
        ``n`` image files of any format that Pillow reads.
    encoder : ImageEncoder
        What encodes them.
    cache : VectorCache, optional
        Where vectors are kept, if the encoder is one whose vectors are worth it.

    Returns
    -------
    vectors : ndarray
        ``(n, width)`` float32, zeros for files that cannot be read.
    failed : dict of int to str
        Why, by position in `paths`.
    """
    failed: dict[int, str] = {}
    contents: dict[str, int] = {}
    digests = _array([""] * len(paths))
    for position, path in enumerate(paths):
        try:
            digests[position] = content_digest(path.read_bytes())
            contents.setdefault(digests[position], position)
        # A path with a null byte is a ValueError.
        except (OSError, ValueError) as error:
            failed[position] = getattr(error, "strerror", None) or str(error)
    distinct = _array(list(contents))
    places = np.array(list(contents.values()), dtype=np.int64)
    vectors, found = np.zeros((len(distinct), encoder.width), np.float32), np.zeros(len(distinct), dtype=bool)
    if cache is not None and encoder.cached:
        vectors, found = cache.lookup("image", encoder, distinct)
    missing = np.flatnonzero(~found)
    reasons: dict[str, str] = {}
    for start in range(0, len(missing), IMAGES_AT_ONCE):
        batch = missing[start : start + IMAGES_AT_ONCE]
        images = [_read_image(paths[places[row]], distinct[row], reasons) for row in batch]
        good = [number for number, image in enumerate(images) if image is not None]
        vectors[batch[good]] = encoder.encode([images[number] for number in good])
        found[batch[good]] = True
    new = missing[found[missing]]
    if cache is not None and encoder.cached:
        cache.add("image", encoder, distinct[new], vectors[new])
    failed |= {position: reasons[digest] for position, digest in enumerate(digests) if digest in reasons}
    result = np.zeros((len(paths), encoder.width), dtype=np.float32)
    row = pd.Index(distinct, dtype=object).get_indexer(pd.Index(digests, dtype=object))
    result[row >= 0] = vectors[row[row >= 0]]
    return result, dict(sorted(failed.items()))


def _read_image(path: Path, digest: str, reasons: dict[str, str]) -> Image.Image | None:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            # Transparent pixels are white, whatever colour lies under them.
            rgba = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reasons[digest] = "no image that Pillow can read" if "cannot identify" in str(error) else str(error)
        return None
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _array(items: list[str]) -> NDArray[np.object_]:
    return np.array([*items, None], dtype=object)[:-1]
