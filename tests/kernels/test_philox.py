from __future__ import annotations

import math

import pytest
import torch

from hgmm.kernels._philox import keep_scale, philox
from tests.kernels.cases import generator
from tests.oracles import philox_oracle

# From the file kat_vectors of the authors' library Random123: counter, key, result.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_published_vectors(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert tuple(x.item() for x in philox(*map(torch.tensor, counter), *key)) == expected
    assert philox_oracle(counter, key) == expected


def test_many_counters_equal_the_oracle() -> None:
    counters = torch.randint(2**32, (50, 4), generator=generator(1))
    words = torch.stack(philox(*counters.unbind(1), 7, 2**32 - 1), 1)
    assert [tuple(row) for row in words.tolist()] == [
        philox_oracle(tuple(c), (7, 2**32 - 1)) for c in counters.tolist()
    ]


@pytest.mark.parametrize("seed", [0, 5, 2**40 + 3, 2**63 - 1, -1, -(2**63)])
def test_keep_scale_numbers_edges_heads_and_modalities_as_documented(seed: int) -> None:
    edges = torch.tensor([0, 3, 2**31, 2**35 + 1])
    M, H, dropout = 2, 6, 0.6
    scale = keep_scale(edges, M, H, dropout=dropout, seed=seed, dtype=torch.float64)
    for i, e in enumerate(edges.tolist()):
        for m in range(M):
            for h in range(H):
                word = philox_oracle((e % 2**32, e >> 32, h // 4, m), (seed % 2**32, (seed % 2**64) >> 32))[h % 4]
                expected = 0 if word < math.floor(dropout * 2**32) else 1 / (1 - dropout)
                assert scale[i, m, h] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keep_scale_without_edges_and_without_dropout(dtype: torch.dtype) -> None:
    none = keep_scale(torch.zeros(0, dtype=torch.int32), 2, 3, dropout=0.5, seed=1, dtype=dtype)
    assert (none.shape, none.dtype) == ((0, 2, 3), dtype)
    assert bool((keep_scale(torch.arange(9), 1, 5, dropout=0.0, seed=1, dtype=dtype) == 1).all())
