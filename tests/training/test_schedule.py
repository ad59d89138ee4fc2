from __future__ import annotations

import pytest
import torch

from hgmm.training.schedule import Schedule


def optimizer() -> torch.optim.AdamW:
    return torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)


@pytest.mark.parametrize(("num_steps", "warmup"), [(1000, 0.05), (10, 0.3), (7, 0.5)])
def test_one_cycle_is_that_of_torch(num_steps: int, warmup: float) -> None:
    theirs = optimizer()
    scheduler = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=1e-3, total_steps=num_steps, pct_start=warmup)
    ours = optimizer()
    schedule = Schedule("one-cycle", 1e-3, num_steps, warmup)
    for step in range(num_steps):
        rate = schedule.apply(ours, step)
        there, here = theirs.param_groups[0], ours.param_groups[0]
        assert here["lr"] == rate == pytest.approx(there["lr"], rel=1e-9)
        assert here["betas"] == pytest.approx(there["betas"], rel=1e-9)
        theirs.step()
        if step < num_steps - 1:
            scheduler.step()


def test_one_cycle_as_published() -> None:
    schedule = Schedule("one-cycle", 1e-3, 1000, 0.05)
    assert schedule.learning_rate(0) == pytest.approx(4e-5)
    assert schedule.learning_rate(49) == pytest.approx(1e-3)
    assert schedule.learning_rate(2000) == schedule.learning_rate(999) == pytest.approx(4e-9)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_one_cycle_of_hardly_any_step_is_finite(num_steps: int) -> None:
    schedule = Schedule("one-cycle", 1e-3, num_steps, 0.05)
    assert all(0 < schedule.learning_rate(step) <= 1e-3 for step in range(3))


def test_cosine_rises_in_a_line_and_falls_to_nothing() -> None:
    schedule = Schedule("cosine", 2.0, 100, 0.1)
    assert [schedule.learning_rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert schedule.learning_rate(55) == pytest.approx(1.0)
    assert schedule.learning_rate(100) == schedule.learning_rate(500) == pytest.approx(0.0)


def test_cosine_without_warmup_starts_at_the_peak() -> None:
    assert Schedule("cosine", 2.0, 100, 0.0).learning_rate(0) == 2.0


def test_none_is_constant_and_leaves_momentum() -> None:
    changed = optimizer()
    assert Schedule("none", 0.25, 10, 0.5).apply(changed, 7) == 0.25
    assert changed.param_groups[0]["betas"] == (0.9, 0.999)
