from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hgmm.errors import ConfigError
from hgmm.graph.encoders import HashedNgrams, encode_texts, text_encoder


def loops(text: str, width: int) -> np.ndarray:
    """The definition, in Python integers."""
    mask = 2**64 - 1

    def mix(word: int) -> int:
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        return word ^ (word >> 31)

    counts = np.zeros(width)
    padded = f" {text} "
    for size in (3, 4, 5):
        for start in range(len(padded) - size + 1):
            code = size
            for character in padded[start : start + size]:
                code = mix(code ^ ord(character))
            counts[code % width] += -1 if code >> 63 else 1
    return counts / np.linalg.norm(counts)


@pytest.mark.parametrize("width", [8, 100, 256])
def test_vectors_are_signed_counts_of_character_ngrams(width: int) -> None:
    texts = ["red shoe", "a", "ярко 😀 end", "abab"]
    vectors = HashedNgrams(width).encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [loops(text, width) for text in texts], atol=1e-6)


def test_vectors_are_the_same_on_every_machine() -> None:
    vectors = HashedNgrams().encode(["The quick brown fox", "jumps", "über"])
    digest = hashlib.blake2b(np.round(vectors * 1e4).astype("<i4").tobytes(), digest_size=8).hexdigest()
    assert digest == "317a11381cf16d9a"


def test_case_width_forms_and_spaces_do_not_matter() -> None:
    one, two = HashedNgrams().encode(["Red  Shoe\n", "red \uff53hoe"])
    np.testing.assert_array_equal(one, two)


def test_a_batch_changes_nothing() -> None:
    texts = [f"text number {number}" for number in range(5000)]
    vectors = HashedNgrams(32).encode(texts)
    np.testing.assert_array_equal(vectors[4500:4501], HashedNgrams(32).encode(texts[4500:4501]))


def test_empty_texts_give_zeros_and_no_texts_nothing() -> None:
    assert not HashedNgrams().encode(["", "  "]).any()
    assert HashedNgrams().encode([]).shape == (0, 256)
    assert encode_texts([], HashedNgrams()).shape == (0, 256)


def test_similar_texts_are_near() -> None:
    one, near, far = HashedNgrams().encode(["running shoes", "running shoe", "velvet hat"])
    assert one @ near > 0.8
    assert abs(one @ far) < 0.4


@pytest.mark.parametrize("width", [7, 0, 12.0, True])
def test_widths_that_make_no_sense(width: int) -> None:
    with pytest.raises(ConfigError, match=f"HashedNgrams width: must be a whole number of at least 8, got {width}"):
        text_encoder(width=width)
