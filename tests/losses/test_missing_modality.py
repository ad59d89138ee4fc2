from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError, ShapeError
from hgmm.losses import missing_modality_loss

A, B = ("user", "buys", "item"), ("shop", "sells", "item")


def sums(*values: float) -> torch.Tensor:
    """One destination, one modality a value, two heads with the same sum."""
    return torch.tensor(values).view(1, -1, 1).expand(1, -1, 2).clone()


def test_code_is_a_mean_over_edges_then_relations_then_layers() -> None:
    layers = [{A: sums(2.0, 0.0), B: sums(0.0, 3.0)}, {A: sums(1.0, 0.0), B: sums(0.0, 0.6)}]
    counts = [{A: torch.tensor([4, 0]), B: torch.tensor([0, 6])}] * 2
    expected = ((2 / 4 + 3 / 6) / 2 + (1 / 4 + 0.6 / 6) / 2) / 2
    assert missing_modality_loss(layers, counts).item() == pytest.approx(expected)


def test_a_relation_without_sums_counts_as_zero() -> None:
    counts = [{A: torch.tensor([4, 0]), B: torch.tensor([2, 0])}]
    assert missing_modality_loss([{A: sums(2.0, 0.0)}], counts).item() == pytest.approx(0.25)
    layers = [{}, {A: sums(2.0, 0.0)}]
    assert missing_modality_loss(layers, [{A: torch.tensor([4, 0])}] * 2).item() == pytest.approx(0.25)


def test_a_layer_without_anything_absent_counts_among_the_layers() -> None:
    counts = [{}, {A: torch.tensor([4, 0])}]
    assert missing_modality_loss([{}, {A: sums(2.0, 0.0)}], counts).item() == pytest.approx(0.25)


def test_poster_is_a_sum_over_layers_times_modalities() -> None:
    layers = [{A: sums(2.0, 1.0)}, {A: sums(0.5, 0.0), B: sums(0.0, 0.5)}]
    counts = [{A: torch.tensor([4, 4])}, {A: torch.tensor([4, 4]), B: torch.tensor([1, 1])}]
    assert missing_modality_loss(layers, counts, form="poster").item() == pytest.approx((3 + 0.5 + 0.5) / (2 * 2))


@pytest.mark.parametrize("form", ["code", "poster"])
def test_nothing_absent(form: str) -> None:
    assert missing_modality_loss([{}, {}], [{}, {}], form=form).item() == 0
    assert missing_modality_loss([], [], form=form).item() == 0


def test_gradient_is_spread_over_heads_and_edges() -> None:
    x = sums(2.0, 1.0).requires_grad_()
    missing_modality_loss([{A: x}], [{A: torch.tensor([4, 0])}]).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[0.125, 0.125], [0.0, 0.0]]]


def test_unknown_form() -> None:
    with pytest.raises(ConfigError, match="unknown form 'paper'; known: code, poster"):
        missing_modality_loss([], [], form="paper")


def test_layers_must_agree() -> None:
    with pytest.raises(ShapeError, match="expected 1 layers as in lambda_sums, got 2"):
        missing_modality_loss([{}], [{}, {}])
    with pytest.raises(ShapeError, match=r"relation .*'buys'.* of lambda_sums is missing"):
        missing_modality_loss([{A: sums(1.0)}], [{}])
