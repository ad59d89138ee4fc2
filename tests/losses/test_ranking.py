from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.losses import one_vs_all_loss, ranking_loss, self_adversarial_weights, vector_regularizer
from hgmm.losses.ranking import FORMS
from tests import oracles_kg

B, K, E = 5, 4, 6
EACH = pytest.mark.parametrize("form", FORMS)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(B, generator=generator, dtype=dtype).requires_grad_()
    negative = torch.randn(B, K, generator=generator, dtype=dtype).requires_grad_()
    valid = torch.rand(B, K, generator=generator) < 0.6
    valid[0], valid[1] = False, True
    return positive, negative, valid


def margin_of(form: str) -> float | None:
    return None if form == "softplus" else 0.7


@EACH
@pytest.mark.parametrize("temperature", [None, 0.0, 1.5])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_definition(form: str, temperature: float | None, masked: bool) -> None:
    positive, negative, valid = inputs()
    given: dict[str, Any] = {"form": form, "margin": margin_of(form), "temperature": temperature}
    counts = valid if masked else torch.ones_like(valid)
    expected = oracles_kg.ranking_loss(positive.tolist(), negative.tolist(), counts.tolist(), **given)
    loss = ranking_loss(positive, negative, valid=valid if masked else None, **given)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@EACH
@pytest.mark.parametrize("temperature", [None, 1.5])
def test_gradients_by_finite_differences(form: str, temperature: float | None) -> None:
    positive, negative, valid = inputs()
    # The weights are constants: finite differences must not move them.
    assert torch.autograd.gradcheck(
        lambda s, z: ranking_loss(s, z, form=form, margin=margin_of(form), valid=valid), [positive, negative]
    )
    loss = ranking_loss(positive, negative, form=form, margin=margin_of(form), temperature=temperature, valid=valid)
    weights = self_adversarial_weights(negative, temperature or 0, valid=valid)
    by_row = [
        ranking_loss(positive, negative[:, k : k + 1], form=form, margin=margin_of(form), valid=valid[:, k : k + 1])
        for k in range(K)
    ]
    assert loss.isfinite()
    assert len(by_row) == K
    (grad,) = torch.autograd.grad(loss, negative)
    for k, single in enumerate(by_row):
        (alone,) = torch.autograd.grad(single, negative)
        torch.testing.assert_close(grad[:, k], alone[:, k] * weights[:, k])


@EACH
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_what_does_not_count_may_be_nan(form: str, temperature: float | None) -> None:
    positive, negative, valid = inputs()
    dirty = negative.detach().masked_fill(~valid, torch.nan).requires_grad_()
    given: dict[str, Any] = {"form": form, "margin": margin_of(form), "temperature": temperature, "valid": valid}
    loss = ranking_loss(positive, dirty, **given)
    torch.testing.assert_close(loss, ranking_loss(positive, negative, **given))
    grads = torch.autograd.grad(loss, [positive, dirty])
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[1][~valid].eq(0).all()


@EACH
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_extreme_scores(form: str, temperature: float | None) -> None:
    positive = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    negative = torch.tensor([[-1e4, 1e4], [1e4, 1e4], [-math.inf, -math.inf]], requires_grad=True)
    loss = ranking_loss(positive, negative, form=form, margin=margin_of(form), temperature=temperature)
    assert loss.isfinite()
    assert loss > 1000
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, [positive, negative]))


def test_high_scores_weigh_more() -> None:
    negative = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    weights = self_adversarial_weights(negative, 1.0)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75]]))
    assert not weights.requires_grad
    masked = self_adversarial_weights(negative, 1.0, valid=torch.tensor([[False, True]]))
    assert masked.tolist() == [[0.0, 1.0]]
    assert self_adversarial_weights(negative, 1.0, valid=torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[0.0, 0.0]]


@EACH
def test_without_triples_and_without_corruptions(form: str) -> None:
    positive, negative, valid = inputs()
    given: dict[str, Any] = {"form": form, "margin": margin_of(form)}
    assert ranking_loss(positive[:0], negative[:0], **given).item() == 0
    alone = ranking_loss(positive, negative[:, :0], **given)
    torch.testing.assert_close(alone, ranking_loss(positive, negative, valid=torch.zeros_like(valid), **given))
    assert (alone.item() == 0) == (form == "margin")


def test_options_out_of_range() -> None:
    positive, negative, _ = inputs()
    with pytest.raises(ConfigError, match="unknown form 'hinge'; known: margin, sigmoid, softplus"):
        ranking_loss(positive, negative, form="hinge")
    with pytest.raises(ConfigError, match="margin: got None with form='margin'"):
        ranking_loss(positive, negative)
    with pytest.raises(ConfigError, match=r"margin: got 2\.0 with form='softplus'; softplus has none"):
        ranking_loss(positive, negative, form="softplus", margin=2.0)
    with pytest.raises(ConfigError, match=r"margin: must be a finite number at least 0, got -1\.0"):
        ranking_loss(positive, negative, margin=-1.0)
    with pytest.raises(ConfigError, match=r"temperature: must be a finite number at least 0, got -0\.5"):
        ranking_loss(positive, negative, margin=1.0, temperature=-0.5)


def test_wrong_shapes() -> None:
    positive, negative, valid = inputs()
    with pytest.raises(ShapeError, match=r"positive: expected shape \(B,\), got \(5, 4\)"):
        ranking_loss(negative, negative, margin=1.0)
    with pytest.raises(ShapeError, match=r"negative: expected shape \(5, K\), got \(4, 4\)"):
        ranking_loss(positive, negative[1:], margin=1.0)
    with pytest.raises(ShapeError, match=r"valid: expected shape \(5, 4\), got \(5, 3\)"):
        ranking_loss(positive, negative, margin=1.0, valid=valid[:, 1:])
    with pytest.raises(ShapeError, match="valid: expected dtype bool, got float32"):
        self_adversarial_weights(negative, 1.0, valid=valid.float())
    with pytest.raises(ShapeError, match=r"negative: expected shape \(B, K\), got \(5,\)"):
        self_adversarial_weights(positive, 1.0)


def test_one_vs_all_is_the_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(B, E, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(E, (B,), generator=generator)
    excluded = torch.rand(B, E, generator=generator) < 0.5
    excluded[0] = True
    expected = plain = 0.0
    for b in range(B):
        right = int(target[b])
        row = [math.exp(z) for z in scores[b].tolist()]
        plain += math.log(sum(row)) - scores[b, right].item()
        kept = [row[e] for e in range(E) if e == right or not excluded[b, e]]
        expected += math.log(sum(kept)) - scores[b, right].item()
    assert one_vs_all_loss(scores, target).item() == pytest.approx(plain / B)
    assert one_vs_all_loss(scores, target, excluded=excluded).item() == pytest.approx(expected / B)
    assert torch.autograd.gradcheck(lambda z: one_vs_all_loss(z, target, excluded=excluded), [scores])
    assert one_vs_all_loss(scores[:0], target[:0]).item() == 0
    dirty = scores.detach().masked_fill(excluded.scatter(1, target.unsqueeze(1), False), torch.nan).requires_grad_()
    loss = one_vs_all_loss(dirty, target, excluded=excluded)
    assert loss.item() == pytest.approx(expected / B)
    assert torch.autograd.grad(loss, dirty)[0].isfinite().all()


def test_one_vs_all_refuses() -> None:
    scores, target = torch.zeros(2, 3), torch.tensor([0, 3])
    with pytest.raises(ConfigError, match=r"target: classes lie in \[0, 3\), got 3 in row 1"):
        one_vs_all_loss(scores, target)
    with pytest.raises(ShapeError, match=r"scores: expected shape \(B, E\), got \(3,\)"):
        one_vs_all_loss(scores[0], target)
    with pytest.raises(ShapeError, match=r"target: expected shape \(2,\), got \(1,\)"):
        one_vs_all_loss(scores, target[:1])
    with pytest.raises(ShapeError, match=r"excluded: expected shape \(2, 3\), got \(2, 2\)"):
        one_vs_all_loss(scores, target.clamp(max=2), excluded=scores[:, 1:] > 0)


@pytest.mark.parametrize("power", [2, 3])
def test_regularizers(power: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(n, 4, generator=generator, dtype=torch.float64).requires_grad_() for n in (3, 2))
    real = sum(abs(v) ** power for row in x.tolist() for v in row) / 3
    real += sum(abs(v) ** power for row in y.tolist() for v in row) / 2
    moduli = sum(abs(v) ** power for row in x.tolist() for v in oracles_kg.as_complex(row)) / 3
    assert vector_regularizer(x, y, power=power).item() == pytest.approx(real)
    assert vector_regularizer(x, power=power, complex_numbers=True).item() == pytest.approx(moduli)
    assert torch.autograd.gradcheck(lambda v: vector_regularizer(v, power=power, complex_numbers=True), [x])
    zeros = torch.zeros_like(x).requires_grad_()
    total = vector_regularizer(zeros, power=power, complex_numbers=True)
    assert torch.autograd.grad(total, zeros)[0].eq(0).all()
    assert vector_regularizer(x[:0], power=power).item() == 0


def test_regularizers_refuse() -> None:
    with pytest.raises(ConfigError, match=r"power: must be 2 \(L2\) or 3 \(N3\), got 4"):
        vector_regularizer(torch.ones(1), power=4)
    with pytest.raises(ConfigError, match="vectors: at least one tensor is needed, got none"):
        vector_regularizer()
