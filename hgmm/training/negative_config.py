"""How branches learn from each other: the section ``negative`` of a configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hgmm.errors import ConfigError
from hgmm.losses.negative_learning import VARIANTS
from hgmm.negative_learning.stability import MEASURES, MODES
from hgmm.training._fields import check_choices, check_range, check_types

__all__ = ["NegativeConfig"]


@dataclass(frozen=True)
class NegativeConfig:
    """How a run puts negative learning on the branches of its model.

    Parameters
    ----------
    weight : float, optional
        lambda: of the negative loss beside the cross-entropies, at least 0; 0 = off.
    variant : str, optional
        ``nckd``, ``mnl`` or ``nl`` (`hgmm.losses.negative_learning_loss`); ``kl`` = agreement instead of negation.
    temperature : float, optional
        Of that loss, above 0.
    warmup_epochs, ramp_epochs : int, optional
        Epochs of cross-entropy alone, and epochs in which the transfer then grows.
    confidence_weight, margin_weight, graph_weight : float, optional
        Of the three terms of a branch's reliability (`hgmm.negative_learning.arbitrate`), at least 0; the first two not
        both 0. A graph weight of 0 leaves the neighbours out, and saves looking at them.
    margin_temperature : float, optional
        Of the margin's sigmoid, above 0.
    delta : float, optional
        By how much the dominant branch must be more reliable, at least 0.
    heterophily : bool, optional
        Translate what the neighbours are into what that lets expect, by the classes that labelled neighbours join.
    gate : str, optional
        ``off``, ``soft`` or ``hard`` (`hgmm.negative_learning.StabilityGate`).
    stability : str, optional
        ``posterior``: between epochs; ``entropy``: with dropout and without, for one more forward pass a step.
    momentum : float, optional
        Of the moving average of posteriors, in [0, 1].
    gamma, exponent : float, optional
        Powers: of the stability in the gate, at least 0; inside the measure ``entropy``, above 0.
    gate_temperature : float, optional
        Of the sigmoid of the dominant branch's lead, above 0.
    min_stability : float, optional
        For ``hard``, in [0, 1].
    max_changes, window : int, optional
        For ``hard``: changes of the dominant branch that are allowed within so many epochs (at most 127).

    Raises
    ------
    ConfigError
        If a value has the wrong type or is out of range.
    """

    weight: float = 0.0
    variant: str = "nckd"
    temperature: float = 4.0
    warmup_epochs: int = 0
    ramp_epochs: int = 0
    confidence_weight: float = 1.0
    margin_weight: float = 1.0
    graph_weight: float = 1.0
    margin_temperature: float = 1.0
    delta: float = 0.0
    heterophily: bool = False
    gate: str = "soft"
    stability: str = "posterior"
    momentum: float = 0.9
    gamma: float = 1.0
    exponent: float = 1.0
    gate_temperature: float = 0.1
    min_stability: float = 0.8
    max_changes: int = 1
    window: int = 5

    def __post_init__(self) -> None:
        check_types(self, "negative")
        check_choices(self, "negative", _CHOICES)
        for name in _NUMBERS:
            low, high = _AT_LEAST.get(name, 0), _AT_MOST.get(name, math.inf)
            check_range(f"negative.{name}", getattr(self, name), low=low, high=high, open_low=name in _ABOVE_0)
        if not (self.confidence_weight or self.margin_weight):
            # Nodes without neighbours have these two only.
            raise ConfigError("negative.confidence_weight and negative.margin_weight: one must be above 0, got 0 and 0")


_CHOICES = {"variant": VARIANTS, "gate": MODES, "stability": MEASURES}
_ABOVE_0 = ("temperature", "margin_temperature", "exponent", "gate_temperature")
_NUMBERS = (
    *("weight", "warmup_epochs", "ramp_epochs", "confidence_weight", "margin_weight", "graph_weight", "delta"),
    *("momentum", "gamma", "min_stability", "max_changes", "window"),
    *_ABOVE_0,
)
_AT_LEAST = {"window": 1}
_AT_MOST = {"momentum": 1, "min_stability": 1, "window": 127}
