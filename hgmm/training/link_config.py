"""How a run learns to complete triples: the section ``link`` of a configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hgmm.errors import ConfigError, unknown_name
from hgmm.training._fields import check_types

__all__ = ["LOSSES", "LinkConfig"]

LOSSES = ("margin", "softplus", "sigmoid", "self-adversarial")
PROPOSALS = ("bernoulli", "uniform")
FILTERS = ("train", "all", "none")


@dataclass(frozen=True)
class LinkConfig:
    """How a model of triples is trained and ranked.

    Parameters
    ----------
    num_negs_per_pos : int, optional
        K, at least 1.
    proposal : str, optional
        Which end is corrupted: ``bernoulli``, by the relation's heads a tail and tails a head, or ``uniform``.
    filter : str, optional
        Which triples are no negatives: those of ``train``, of ``all`` splits, or ``none``.
    batch_size : int, optional
        Positive triples a step, at least 1.
    loss : str, optional
        ``margin``, ``softplus``, ``sigmoid`` or ``self-adversarial`` (`hgmm.losses.ranking_loss`).
    margin : float, optional
        Of ``margin``, ``sigmoid`` and ``self-adversarial``, at least 0.
    adversarial_temperature : float, optional
        Of ``self-adversarial``, at least 0.
    regularizer : str, optional
        ``none``, ``l2`` or ``n3``.
    regularizer_weight : float, optional
        At least 0.

    Raises
    ------
    ConfigError
        If a value has the wrong type or is out of range.
    """

    num_negs_per_pos: int = 64
    proposal: str = "bernoulli"
    filter: str = "train"
    batch_size: int = 1024
    loss: str = "self-adversarial"
    margin: float = 6.0
    adversarial_temperature: float = 1.0
    regularizer: str = "none"
    regularizer_weight: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "link")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"link.{name}: {unknown_name(name, value, known)}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                rule = f"at least {least}" + (f" and at most {most}" if most < math.inf else " and finite")
                raise ConfigError(f"link.{name}: must be {rule}, got {value!r}")
        if self.regularizer_weight and self.regularizer == "none":
            raise ConfigError(
                f"link.regularizer: a weight of {self.regularizer_weight} needs l2 or n3, got 'none'; choose one"
            )


_CHOICES = {
    "proposal": PROPOSALS,
    "filter": FILTERS,
    "loss": LOSSES,
    "regularizer": ("none", "l2", "n3"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "num_negs_per_pos": (1, math.inf),
    "batch_size": (1, math.inf),
    "margin": (0, math.inf),
    "adversarial_temperature": (0, math.inf),
    "regularizer_weight": (0, math.inf),
}
