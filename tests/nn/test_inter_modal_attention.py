from __future__ import annotations

import math

import pytest
import torch

from hgmm.errors import ShapeError
from hgmm.nn import InterModalAttention
from tests.nn.graphs import full_block, graph, presence, states

M, F = 3, 6


def test_weights_are_a_softmax_over_what_is_present() -> None:
    fuse, h, present = InterModalAttention(F).double(), states(M, F), presence(M)
    fused, weights = fuse(None, h, present)
    for ntype, x in h.items():
        for i in range(len(x)):
            has = [m for m in range(M) if present[ntype][i, m]] or list(range(M))
            scores = {m: math.exp((x[i, m] @ fuse.score.weight[0] + fuse.score.bias[0]).item()) for m in has}
            expected = torch.tensor([scores.get(m, 0.0) / sum(scores.values()) for m in range(M)], dtype=torch.float64)
            torch.testing.assert_close(weights[ntype][i], expected)
            torch.testing.assert_close(fused[ntype][i], expected @ x[i])


def test_bounded_scores_bound_the_weights() -> None:
    fuse = InterModalAttention(F, bounded=True).double()
    weights = fuse(None, {t: 1e3 * x for t, x in states(M, F).items()})[1]["item"]
    assert (weights.amax(1) / weights.amin(1)).max() <= math.e**2 * (1 + 1e-9)
    free = InterModalAttention(F).double()
    free.load_state_dict(fuse.state_dict())
    assert free(None, {t: 1e3 * x for t, x in states(M, F).items()})[1]["item"].max() > 0.999


def test_dropout_touches_the_scores_only() -> None:
    fuse = InterModalAttention(F, dropout=0.5, bounded=True, score_dropout=0.5).double()
    x = torch.ones(4, 2, F, dtype=torch.float64)
    torch.testing.assert_close(fuse.fuse(x)[0], torch.ones(4, F, dtype=torch.float64))


def test_a_block_gives_its_destination_rows() -> None:
    g, h, fuse = graph(), states(M, F), InterModalAttention(F).double()
    seeds = torch.tensor([2, 0])
    block = full_block(g, {"item": seeds})
    rows = block.srcnodes["item"].data["_ID"]
    expected, expected_weights = fuse(g, h, presence(M))
    fused, weights = fuse(block, {"item": h["item"][rows]}, {"item": presence(M)["item"][rows]})
    torch.testing.assert_close(fused["item"], expected["item"][seeds])
    torch.testing.assert_close(weights["item"], expected_weights["item"][seeds])


def test_wrong_shapes() -> None:
    fuse = InterModalAttention(F)
    with pytest.raises(ShapeError, match=r"h: expected shape \(N, M, 6\), got \(2, 3, 5\)"):
        fuse.fuse(torch.zeros(2, 3, 5))
    with pytest.raises(ShapeError, match=r"present: expected shape \(2, 3\), got \(2, 2\)"):
        fuse.fuse(torch.zeros(2, 3, F), torch.ones(2, 2, dtype=torch.bool))


def test_own_matrices_start_as_the_identity_and_act_by_modality() -> None:
    plain = InterModalAttention(F).double()
    fuse = InterModalAttention(F, num_modalities=M).double()
    fuse.load_state_dict(plain.state_dict(), strict=False)
    h, present = states(M, F), presence(M)
    for ntype, x in h.items():
        torch.testing.assert_close(fuse.fuse(x, present[ntype])[0], plain.fuse(x, present[ntype])[0])
    with torch.no_grad():
        fuse.project.normal_(generator=torch.Generator().manual_seed(0))
    fused, weights = fuse.fuse(h["item"], present["item"])
    for i, x in enumerate(h["item"]):
        z = torch.stack([x[m] @ fuse.project[m] for m in range(M)])
        torch.testing.assert_close(fuse.transform(h["item"])[i], z)
        torch.testing.assert_close(fused[i], weights[i] @ z)


def test_wrong_number_of_modalities() -> None:
    with pytest.raises(ShapeError, match="expected 2 modalities, got 3"):
        InterModalAttention(F, num_modalities=2).fuse(torch.zeros(1, 3, F))
