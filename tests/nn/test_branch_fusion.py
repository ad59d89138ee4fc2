from __future__ import annotations

import math

import pytest
import torch

from hgmm.errors import ConfigError, ShapeError
from hgmm.nn import fuse_branches, label_free_reliability
from hgmm.nn.branch_fusion import FUSIONS

N, P, C = 5, 3, 4


def case() -> tuple[torch.Tensor, torch.Tensor]:
    """Node 0 has no branch, node 1 the second only."""
    logits = torch.randn(N, P, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    available = torch.ones(N, P, dtype=torch.bool)
    available[0] = False
    available[1] = torch.tensor([False, True, False])
    return logits, available


def reliability(z: list[float]) -> float:
    top = max(z)
    total = sum(math.exp(x - top) for x in z)
    first, second = sorted(z, reverse=True)[:2]
    return (1 / total + 1 / (1 + math.exp(second - first))) / 2


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 2.5]], ids=["equal", "given"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_equals_its_definition(fusion: str, weights: list[float] | None) -> None:
    logits, available = case()
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    fused, shares = fuse_branches(logits, available, fusion=fusion, weights=given)
    for i in range(N):
        score = [
            (reliability(logits[i, p].tolist()) if fusion == "reliability" else 1.0) * (weights or [1.0] * P)[p]
            if available[i, p]
            else 0.0
            for p in range(P)
        ]
        expected = [x / (sum(score) or 1.0) for x in score]
        assert shares[i].tolist() == pytest.approx(expected, rel=1e-12)
        row = [sum(expected[p] * float(logits[i, p, c]) for p in range(P)) for c in range(C)]
        assert fused[i].tolist() == pytest.approx(row, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_pass_through_logits_alone(fusion: str) -> None:
    logits, available = case()
    logits.requires_grad_()
    fused, shares = fuse_branches(logits, available, fusion=fusion)
    assert not shares.requires_grad
    (grad,) = torch.autograd.grad(fused.sum(), logits)
    torch.testing.assert_close(grad, shares.unsqueeze(-1).expand_as(grad))


def test_a_sure_branch_counts_more() -> None:
    logits = torch.tensor([[[5.0, 0.0], [0.1, 0.0]]])
    _, shares = fuse_branches(logits, torch.ones(1, 2, dtype=torch.bool), fusion="reliability")
    assert shares[0, 0] > 0.6


def test_half_precision_and_huge_logits() -> None:
    sure = label_free_reliability(torch.tensor([[300.0, -300.0], [0.0, 0.0]], dtype=torch.bfloat16))
    assert sure.dtype == torch.float32
    torch.testing.assert_close(sure, torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(label_free_reliability(torch.zeros(2, 1)), torch.full((2,), 0.75))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_an_unavailable_branch_holds_does_not_matter(fusion: str) -> None:
    logits, available = case()
    expected = fuse_branches(logits, available, fusion=fusion)
    spoilt = logits.masked_fill(~available.unsqueeze(2), math.nan).requires_grad_()
    fused, shares = fuse_branches(spoilt, available, fusion=fusion)
    assert fused.equal(expected[0])
    assert shares.equal(expected[1])
    (grad,) = torch.autograd.grad(fused.sum(), spoilt)
    assert grad.isfinite().all()


def test_wrong_shapes() -> None:
    logits, available = case()
    with pytest.raises(ShapeError, match=r"fuse_branches, logits: expected shape \(n, P, C\), got \(5, 3\)"):
        fuse_branches(logits[..., 0], available)
    with pytest.raises(ShapeError, match=r"fuse_branches, available: expected shape \(5, 3\), got \(5, 1\)"):
        fuse_branches(logits, available[:, :1])
    with pytest.raises(ShapeError, match=r"fuse_branches, available: expected dtype bool, got float32"):
        fuse_branches(logits, available.float())
    with pytest.raises(ShapeError, match=r"fuse_branches, weights: expected shape \(3,\), got \(1,\)"):
        fuse_branches(logits, available, weights=torch.ones(1))


def test_unknown_fusion() -> None:
    with pytest.raises(ConfigError, match=r"fuse_branches, fusion: unknown fusion 'max'; known: mean, reliability"):
        fuse_branches(*case(), fusion="max")
