"""Learning rates as a pure function of the step, so that resuming needs to know nothing but the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer

__all__ = ["SCHEDULERS", "Schedule"]

SCHEDULERS = ("none", "one-cycle", "cosine")

START_DIVISOR = 25.0
END_DIVISOR = 1e4
MOMENTUM = (0.85, 0.95)


@dataclass(frozen=True)
class Schedule:
    """Learning rate, and momentum where it is cycled too, at every optimiser step.

    Parameters
    ----------
    name : str
        ``none``: constant. ``one-cycle``: as `torch.optim.lr_scheduler.OneCycleLR` with its defaults (Smith and Topin
        2019): cosine from 1/25 of the peak up to the peak, then down to 1/10,000 of the start; AdamW's first beta moves
        the other way between 0.95 and 0.85. ``cosine``: linear from 0 to the peak, then cosine to 0.
    peak : float
        Highest learning rate.
    num_steps : int
        Steps that the schedule spans; later steps keep its last value.
    warmup : float
        Share of the steps in which the rate rises, in [0, 1).
    """

    name: str
    peak: float
    num_steps: int
    warmup: float

    def learning_rate(self, step: int) -> float:
        """Return the rate of step `step`, counted from 0."""
        if self.name == "one-cycle":
            start = self.peak / START_DIVISOR
            return self._cycle(step, start, self.peak, start / END_DIVISOR)
        if self.name == "cosine":
            rise = self.warmup * self.num_steps
            if step < rise:
                return self.peak * (step + 1) / math.ceil(rise)
            done = min(1.0, (step - rise) / max(1.0, self.num_steps - rise))
            return _anneal(self.peak, 0.0, done)
        return self.peak

    def momentum(self, step: int) -> float | None:
        """Return AdamW's first beta at step `step`, or None where the schedule leaves it alone."""
        if self.name != "one-cycle":
            return None
        low, high = MOMENTUM
        return self._cycle(step, high, low, high)

    def apply(self, optimizer: Optimizer, step: int) -> float:
        """Set rate and momentum of all parameter groups for step `step` and return the rate."""
        rate, momentum = self.learning_rate(step), self.momentum(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
            if momentum is not None:
                group["betas"] = (momentum, group["betas"][1])
        return rate

    def _cycle(self, step: int, start: float, middle: float, end: float) -> float:
        top = self.warmup * self.num_steps - 1
        last = self.num_steps - 1
        if step <= top:
            return _anneal(start, middle, step / top) if top > 0 else middle
        return _anneal(middle, end, min(1.0, (step - top) / (last - top)) if last > top else 1.0)


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
