from __future__ import annotations

import math

import pytest
import torch

from hgmm.errors import ConfigError, ShapeError
from hgmm.kg import ModalityPairs, PairScores

B, K, M = 3, 4, 3
PAIRS = [(0, 0), (1, 2), (2, 1), (1, 1)]


def scores() -> PairScores:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(*shape, len(PAIRS), generator=generator, dtype=torch.float64) for shape in ((B,), (B, K)))
    masks = (torch.rand(*shape, len(PAIRS), generator=generator) < 0.5 for shape in ((B,), (B, K)))
    return PairScores(*values, *masks)


def test_totals_count_present_pairs_only() -> None:
    pairs, found = ModalityPairs(PAIRS, [1.0, 2.0, 0.5, 3.0]), scores()
    present = found.positive_present
    assert present is not None
    present[:, 0] = True
    dirty = found.positive.masked_fill(~present, torch.nan).requires_grad_()
    expected = []
    for row, mask in zip(found.positive.tolist(), present.tolist(), strict=True):
        terms = [(w, s) for w, s, ok in zip(pairs.weights, row, mask, strict=True) if ok]
        expected.append(sum(w * s for w, s in terms) / sum(w for w, _ in terms) * 6.5)
    total = pairs.total(dirty, present)
    assert total.tolist() == pytest.approx(expected)
    (grad,) = torch.autograd.grad(total.sum(), dirty)
    assert grad[~present].eq(0).all()
    assert grad.isfinite().all()
    whole = pairs.total(found.positive)
    assert whole.tolist() == pytest.approx((found.positive * torch.tensor([1.0, 2.0, 0.5, 3.0])).sum(1).tolist())


def test_composition_takes_the_other_entity_where_the_mask_is_set() -> None:
    pairs, found = ModalityPairs(PAIRS), scores()
    generator = torch.Generator().manual_seed(1)
    side = torch.randint(2, (B, K), generator=generator).to(torch.int8)
    modality = torch.rand(B, K, M, generator=generator) < 0.5
    composed, present = pairs.compose(found, side, modality)
    assert found.positive_present is not None
    assert found.negative_present is not None
    assert present is not None
    for b in range(B):
        for k in range(K):
            for p, pair in enumerate(PAIRS):
                taken = modality[b, k, pair[int(side[b, k])]]
                assert composed[b, k, p] == (found.negative[b, k, p] if taken else found.positive[b, p])
                assert present[b, k, p] == (found.negative_present[b, k, p] if taken else found.positive_present[b, p])
    assert pairs.compose(PairScores(found.positive, found.negative), side, modality)[1] is None
    everything = pairs.compose(found, side, torch.ones_like(modality))[0]
    assert everything.equal(found.negative)


@pytest.mark.parametrize("holes", [False, True])
def test_changed_pairs_alone_score_a_corruption_of_some_modalities(holes: bool) -> None:
    pairs, found = ModalityPairs(PAIRS), scores()
    if not holes:
        found = PairScores(found.positive, found.negative)
    generator = torch.Generator().manual_seed(1)
    side = torch.randint(2, (B, K), generator=generator).to(torch.int8)
    modality = torch.rand(B, K, M, generator=generator) < 0.3
    modality[0, 0], modality[0, 1] = False, True
    values, present, differs = pairs.changed(found, side, modality)
    for b in range(B):
        for k in range(K):
            there = [True] * len(PAIRS) if found.negative_present is None else found.negative_present[b, k].tolist()
            whole = [True] * len(PAIRS) if found.positive_present is None else found.positive_present[b].tolist()
            taken = [bool(modality[b, k, pair[int(side[b, k])]]) and ok for pair, ok in zip(PAIRS, there, strict=True)]
            assert differs[b, k] == any(taken)
            assert present[b, k].tolist() == (taken if any(taken) else whole)
            expected = found.negative[b, k] if any(taken) else found.positive[b]
            assert values[b, k].equal(expected)
    assert not differs[0, 0]
    assert bool(differs.any())
    if not holes:
        assert bool(present[0, 1].all())
    with pytest.raises(ShapeError, match=r"ModalityPairs.changed, modality: pairs reach modality 2, got 2 columns"):
        pairs.changed(found, side, modality[..., :2])


def test_distances_within_and_across_modalities() -> None:
    square = ModalityPairs([(0, 0), (0, 1), (1, 0), (1, 1)])
    values = torch.tensor([[-1.0, -2.0, -4.0, -8.0]], requires_grad=True)
    intra, inter = square.intra_and_inter(values)
    assert (intra.tolist(), inter.tolist()) == ([9.0], [6.0])
    assert not intra.requires_grad
    intra, inter = square.intra_and_inter(values, torch.tensor([[True, True, False, False]]))
    assert (intra.tolist(), inter.tolist()) == ([2.0], [4.0])
    assert ModalityPairs([(0, 0)]).intra_and_inter(values[:, :1])[1].tolist() == [0.0]


def test_presence_and_indices() -> None:
    pairs = ModalityPairs([(0, 1), (2, 0)])
    assert pairs.index("cpu").tolist() == [[[1, 0], [0, 2]], [[0, 1], [2, 0]]]
    head, tail = torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])
    assert pairs.present(head, tail).tolist() == [[True, False]]
    assert len(pairs) == 2


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"pairs: at least one pair and each once, got \[\]"):
        ModalityPairs([])
    with pytest.raises(ConfigError, match=r"got \[\(0, 1\), \(0, 1\)\]"):
        ModalityPairs([(0, 1), (0, 1)])
    for weights in ([1.0], [0.0, 1.0], [1.0, math.inf], [math.nan, 1.0]):
        with pytest.raises(ConfigError, match=r"weights: expected 2 finite numbers above 0, got \["):
            ModalityPairs([(0, 1), (1, 1)], weights)
    pairs, found = ModalityPairs(PAIRS), scores()
    side, modality = torch.zeros(B, K), torch.ones(B, K, M, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"side: expected shape \(3, 4\), got \(3,\)"):
        pairs.compose(found, side[:, 0], modality)
    with pytest.raises(ShapeError, match="modality: expected dtype bool, got float32"):
        pairs.compose(found, side, modality.float())
    with pytest.raises(ShapeError, match="modality: pairs reach modality 2, got 2 columns"):
        pairs.compose(found, side, modality[..., :2])
