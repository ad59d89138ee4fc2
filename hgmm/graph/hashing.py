"""Scrambling of 64-bit words, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["mix64", "unit_numbers"]


def mix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).

    Parameters
    ----------
    words : ndarray
        uint64 of any shape.

    Returns
    -------
    ndarray
        The same shape; a bijection whose every output bit depends on every input bit.
    """
    with np.errstate(over="ignore"):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return words ^ (words >> np.uint64(31))


def unit_numbers(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return numbers in [0, 1) from the upper 53 bits of scrambled words."""
    return (words >> np.uint64(11)).astype(np.float64) / 2.0**53
