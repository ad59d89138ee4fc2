from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hgmm.errors import ConfigError
from hgmm.graph.encoders import ImageStatistics, image_encoder

ENCODER = ImageStatistics()


def stripes(*, upright: bool, side: int = 128) -> Image.Image:
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[(np.arange(side) // 8) % 2 == 0] = 255
    return Image.fromarray(pixels.transpose(1, 0, 2).copy() if upright else pixels)


def test_shape_and_norm() -> None:
    vectors = ENCODER.encode([stripes(upright=True), stripes(upright=False), Image.new("RGB", (3, 200), "red")])
    assert vectors.shape == (3, 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[:2], axis=1), 1, atol=1e-6)
    assert ENCODER.encode([]).shape == (0, 256)


def test_colours_fill_their_bins() -> None:
    vector = ENCODER.encode([Image.new("RGB", (10, 10), (255, 0, 0))])[0]
    assert np.flatnonzero(vector[:64]).tolist() == [3 * 16]
    assert np.flatnonzero(vector[64:112]).tolist() == list(range(0, 48, 3))
    assert not vector[112:].any()


def test_directions_of_gradients_differ() -> None:
    upright, flat = ENCODER.encode([stripes(upright=True), stripes(upright=False)])
    np.testing.assert_allclose(upright[:64], flat[:64], atol=1e-6)
    assert upright[112:].reshape(16, 9).argmax(axis=1).tolist() == [0] * 16
    assert flat[112:].reshape(16, 9).argmax(axis=1).tolist() == [4] * 16


def test_its_width_is_fixed() -> None:
    assert image_encoder(width=256).width == 256
    with pytest.raises(ConfigError, match="encoder 'builtin' width: its vectors have 256 numbers, got 64"):
        image_encoder(width=64)
