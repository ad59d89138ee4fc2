"""Counter-based random numbers, the same in torch, C++ and Triton, on every device and for any number of threads.

Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi 10.1145/2063384.2063405.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["keep_scale", "philox"]

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, key0: int, key1: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Map counters to random words.

    Parameters
    ----------
    c0, c1, c2, c3 : Tensor
        The counter's words, int64 in ``[0, 2^32)``, of shapes that broadcast.
    key0, key1 : int
        The key's words, in ``[0, 2^32)``.

    Returns
    -------
    tuple of Tensor
        Four int64 tensors of the common shape with values in ``[0, 2^32)``.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(c0, c1, c2, c3)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for _ in range(_ROUNDS):
        # The product wraps around at 2^64, and the mask takes off the sign that the shift drags in.
        product0, product2 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (product2 >> 32) & _WORD ^ c1 ^ key0, (product0 >> 32) & _WORD ^ c3 ^ key1
        c1, c3 = product2 & _WORD, product0 & _WORD
        key0, key1 = (key0 + _KEY_STEPS[0]) & _WORD, (key1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def keep_scale(edges: Tensor, M: int, H: int, *, dropout: float, seed: int, dtype: torch.dtype) -> Tensor:
    """Return what dropout multiplies attention weights by.

    The key is the seed, low word first; the counter is the edge's position, low word first, ``head // 4`` and the
    modality; the head takes word ``head % 4`` and is dropped if that is below ``floor(dropout * 2^32)``.

    Parameters
    ----------
    edges : Tensor
        ``(E,)`` positions in ``csc.indices``.
    M, H : int
        Numbers of modalities and heads.
    dropout : float
        Probability of a zero, ``0 <= dropout < 1``.
    seed : int
        Any 64-bit integer.
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    Tensor
        ``(E, M, H)``, 0 or ``1 / (1 - dropout)``.
    """
    edges = edges.long().view(-1, 1, 1)
    modality = torch.arange(M, device=edges.device).view(1, -1, 1)
    block = torch.arange((H + 3) // 4, device=edges.device).view(1, 1, -1)
    words = philox(edges & _WORD, (edges >> 32) & _WORD, block, modality, seed & _WORD, (seed >> 32) & _WORD)
    word = torch.stack(words, -1).flatten(2)[..., :H]
    return (word >= math.floor(dropout * 2**32)).to(dtype) * (1 / (1 - dropout))
