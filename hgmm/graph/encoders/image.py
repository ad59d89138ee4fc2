"""Image vectors without a model: statistics of colours and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hgmm.graph.encoders.base import BUILTIN

__all__ = ["ImageStatistics"]

SIDE = 64
GRID = 4
LEVELS = 4
DIRECTIONS = 9


class ImageStatistics:
    """Three blocks of numbers, each of norm 1 before they are joined.

    The image is scaled to 64 x 64. Block one: square roots of a histogram over 4 x 4 x 4 colours. Block two: the mean
    colour of each cell of a 4 x 4 grid. Block three: gradient magnitude by direction (9 between 0 and pi) in each cell,
    after Dalal and Triggs (2005) without their overlapping blocks. The choice of blocks is ours.
    """

    name = BUILTIN
    revision = "1"
    width = LEVELS**3 + GRID * GRID * (3 + DIRECTIONS)
    cached = True

    def encode(self, images: Sequence[Any], /) -> NDArray[np.float32]:
        """Return ``(n, 256)`` float32 of norm at most 1 for images of any size."""
        vectors = np.zeros((len(images), self.width), dtype=np.float32)
        for row, image in enumerate(images):
            vectors[row] = _statistics(image)
        return vectors


def _statistics(image: Any) -> NDArray[np.float64]:
    scaled = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(scaled, dtype=np.float64) / 255.0
    blocks = [_colours(pixels), _means(pixels), _gradients(pixels.mean(axis=2))]
    joined: NDArray[np.float64] = np.concatenate([_unit(block) for block in blocks]) / np.sqrt(len(blocks))
    return joined


def _colours(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    level = np.minimum((pixels * LEVELS).astype(np.int64), LEVELS - 1)
    code = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]
    counts = np.bincount(code.ravel(), minlength=LEVELS**3)
    roots: NDArray[np.float64] = np.sqrt(counts.astype(np.float64))
    return roots


def _means(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    cell = SIDE // GRID
    means: NDArray[np.float64] = pixels.reshape(GRID, cell, GRID, cell, 3).mean(axis=(1, 3))
    return means.ravel()


def _gradients(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    down, right = np.gradient(grey)
    angle = np.mod(np.arctan2(down, right), np.pi)
    direction = np.minimum((angle * (DIRECTIONS / np.pi)).astype(np.int64), DIRECTIONS - 1)
    place = np.arange(SIDE) // (SIDE // GRID)
    cell = place[:, None] * GRID + place[None, :]
    code = (cell * DIRECTIONS + direction).ravel()
    weight: NDArray[np.float64] = np.hypot(down, right).ravel()
    return np.bincount(code, weights=weight, minlength=GRID * GRID * DIRECTIONS).astype(np.float64)


def _unit(block: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = float(np.linalg.norm(block))
    return block / norm if norm > 0 else block
