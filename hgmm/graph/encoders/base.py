"""What an encoder is, and how a name becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hgmm.errors import ConfigError

__all__ = ["BUILTIN", "Encoder", "ImageEncoder", "TextEncoder", "image_encoder", "text_encoder"]

BUILTIN = "builtin"


class Encoder(Protocol):
    """What all encoders tell about themselves; it is recorded with the features and compared when they are made again.

    Attributes
    ----------
    name : str
        The name that finds it again.
    revision : str
        Changes whenever the vectors change.
    width : int
        Numbers a vector.
    cached : bool
        Whether reading a stored vector is cheaper than computing it.
    """

    name: str
    revision: str
    width: int
    cached: bool


class TextEncoder(Encoder, Protocol):
    """Turns texts into vectors."""

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return ``(n, width)`` float32 for ``n`` texts."""
        ...


class ImageEncoder(Encoder, Protocol):
    """Turns images into vectors."""

    def encode(self, images: Sequence[Any], /) -> NDArray[np.float32]:
        """Return ``(n, width)`` float32 for ``n`` images (PIL, RGB)."""
        ...


def text_encoder(name: str = BUILTIN, *, width: int | None = None) -> TextEncoder:
    """Return the text encoder called `name`.

    Parameters
    ----------
    name : str, optional
        ``builtin``, or the name of a sentence-transformers model (needs the extra ``encoders``).
    width : int, optional
        Numbers a vector, at least 8; only the built-in encoder can choose. Default: 256.

    Raises
    ------
    ConfigError
        If the package or the model is not to be had, or the width does not fit.
    """
    if name == BUILTIN:
        from hgmm.graph.encoders.text import HashedNgrams

        return HashedNgrams() if width is None else HashedNgrams(width)
    from hgmm.graph.encoders.pretrained import PretrainedEncoder

    pretrained = PretrainedEncoder(name)
    _check_width(pretrained, width)
    return pretrained


def image_encoder(name: str = BUILTIN, *, width: int | None = None) -> ImageEncoder:
    """Return the image encoder called `name`.

    Parameters
    ----------
    name : str, optional
        ``builtin``, or the name of a CLIP model of sentence-transformers, for example ``clip-ViT-B-32`` (needs the
        extra ``encoders``).
    width : int, optional
        Must be the encoder's own width, if given.

    Raises
    ------
    ConfigError
        If the package or the model is not to be had, or the width does not fit.
    """
    if name == BUILTIN:
        from hgmm.graph.encoders.image import ImageStatistics

        encoder: ImageEncoder = ImageStatistics()
    else:
        from hgmm.graph.encoders.pretrained import PretrainedEncoder

        encoder = PretrainedEncoder(name)
    _check_width(encoder, width)
    return encoder


def _check_width(encoder: Encoder, width: int | None) -> None:
    if width is not None and width != encoder.width:
        raise ConfigError(
            f"encoder {encoder.name!r} width: its vectors have {encoder.width} numbers, got {width}; leave width out"
        )
