"""From texts and images to feature vectors: built-in encoders without further packages, and pretrained ones."""

from __future__ import annotations

from hgmm.graph.encoders.base import ImageEncoder, TextEncoder, image_encoder, text_encoder
from hgmm.graph.encoders.cache import VectorCache, default_cache_dir
from hgmm.graph.encoders.encoding import encode_images, encode_texts
from hgmm.graph.encoders.image import ImageStatistics
from hgmm.graph.encoders.text import HashedNgrams

__all__ = [
    "HashedNgrams",
    "ImageEncoder",
    "ImageStatistics",
    "TextEncoder",
    "VectorCache",
    "default_cache_dir",
    "encode_images",
    "encode_texts",
    "image_encoder",
    "text_encoder",
]
