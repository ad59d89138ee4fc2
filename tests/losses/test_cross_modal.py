from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.losses import cross_modal_loss
from tests.oracles_hgnn_ima import loss_l_cro

N, P, C = 5, 3, 4


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(N, C, generator=generator, dtype=torch.float64, requires_grad=True)
    branches = torch.randn(N, P, C, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, branches, torch.randint(C, (N,), generator=generator)


@pytest.mark.parametrize("individual", [True, False])
def test_equals_the_released_loss(individual: bool) -> None:
    logits, branches, target = inputs()
    loss = cross_modal_loss(logits, branches, target, branch_weight=float(individual))
    expected = loss_l_cro(logits, branches, target, range(N), individual=individual)
    torch.testing.assert_close(loss, expected)
    grads = torch.autograd.grad(loss, [logits, branches], allow_unused=True)
    wanted = torch.autograd.grad(expected, [logits, branches], allow_unused=True)
    torch.testing.assert_close(grads[0], wanted[0])
    assert (grads[1] is None) == (not individual)
    if individual:
        torch.testing.assert_close(grads[1], wanted[1])


def test_branches_that_a_node_lacks_do_not_count() -> None:
    logits, branches, target = inputs()
    available = torch.tensor([[True, False, True]] * 3 + [[False] * 3, [True] * 3])
    branches.data[~available] = torch.nan
    expected = 0.0
    for i in (0, 1, 2, 4):
        terms = [-logits[i].log_softmax(0)[target[i]].item()]
        weights = [1.0]
        for p in range(P):
            if available[i, p]:
                terms.append(-branches[i, p].log_softmax(0)[target[i]].item())
                weights.append(0.5)
        expected += sum(t * w for t, w in zip(terms, weights, strict=True)) / sum(weights) / 4
    loss = cross_modal_loss(logits, branches, target, branch_weight=0.5, available=available)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert branches.grad is not None
    assert (branches.grad.abs().sum(2) > 0).equal(available)
    # Node 3 has nothing to predict from.
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).tolist() == [True, True, True, False, True]
    nothing = torch.zeros_like(available)
    assert cross_modal_loss(logits, branches, target, branch_weight=0.5, available=nothing).item() == 0


def test_label_smoothing_reaches_every_term() -> None:
    logits, branches, target = inputs()
    smooth = cross_modal_loss(logits, branches, target, label_smoothing=1.0)
    everything = torch.cat([logits.unsqueeze(1), branches], 1)
    torch.testing.assert_close(smooth, -everything.log_softmax(2).mean(2).mean())


def test_without_branches_and_without_nodes() -> None:
    logits, branches, target = inputs()
    expected = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(cross_modal_loss(logits, None, target), expected)
    assert cross_modal_loss(logits[:0], branches[:0], target[:0]).item() == 0


@pytest.mark.parametrize("weight", [-0.5, math.inf])
def test_weight_out_of_range(weight: float) -> None:
    with pytest.raises(ConfigError, match=f"branch_weight: .* got {weight}"):
        cross_modal_loss(*inputs(), branch_weight=weight)


def test_wrong_shapes() -> None:
    logits, branches, target = inputs()
    with pytest.raises(ShapeError, match=r"logits: expected shape \(n, C\), got \(5,\)"):
        cross_modal_loss(logits[:, 0], None, target)
    with pytest.raises(ShapeError, match=r"target: expected shape \(5,\), got \(4,\)"):
        cross_modal_loss(logits, None, target[1:])
    with pytest.raises(ShapeError, match=r"branch_logits: expected shape \(5, P, 4\), got \(5, 4\)"):
        cross_modal_loss(logits, branches[:, 0], target)
    with pytest.raises(ShapeError, match=r"available: expected shape \(5, 3\), got \(5, 2\)"):
        cross_modal_loss(logits, branches, target, available=torch.ones(5, 2, dtype=torch.bool))
