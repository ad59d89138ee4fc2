"""How a run learns to complete triples: the section ``link`` of a configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hgmm.errors import ConfigError, unknown_name
from hgmm.training._fields import check_types

__all__ = ["LOSSES", "SAMPLERS", "LinkConfig"]

SAMPLERS = {
    "normal": "normal",
    "mans-v": "visual",
    "mans-t": "two-stage",
    "mans-h": "hybrid",
    "mans-a": "adaptive",
}
"""Names on the command line and the strategies of `hgmm.sampling.ModalityAwareNegativeSampler`."""

LOSSES = ("margin", "softplus", "sigmoid", "self-adversarial", "cross-entropy")
PROPOSALS = ("bernoulli", "uniform")
FILTERS = ("train", "all", "none")
ADAPTIVE_RULES = ("share", "rows")


@dataclass(frozen=True)
class LinkConfig:
    """How a model of triples is trained and ranked.

    Parameters
    ----------
    sampler : str, optional
        Which modalities of a corrupted end a negative replaces: ``normal``, all of them; ``mans-v``, one; ``mans-t``
        one, then all; ``mans-h`` and ``mans-a`` one in a share of the negatives that is fixed or follows the scores.
    modality : str, optional
        The one modality of the ``mans`` samplers. Default: ``image`` where there is one, else the first.
    share : float, optional
        Of the epochs for ``mans-t``, of the negatives for ``mans-h``, in [0, 1].
    adaptive_rule : str, optional
        For ``mans-a``: ``share``, as many negatives as pass the test, whichever they are, or ``rows``, those that pass.
    num_negs_per_pos : int, optional
        K, at least 1.
    proposal : str, optional
        Which end is corrupted: ``bernoulli``, by the relation's heads a tail and tails a head, or ``uniform``.
    filter : str, optional
        Which triples are no negatives: those of ``train``, of ``all`` splits, or ``none``.
    batch_size : int, optional
        Positive triples a step, at least 1.
    loss : str, optional
        ``margin``, ``softplus``, ``sigmoid``, ``self-adversarial``, or ``cross-entropy`` over all entities, which needs
        no negatives.
    margin : float, optional
        Of ``margin``, ``sigmoid`` and ``self-adversarial``, at least 0.
    adversarial_temperature : float, optional
        Of ``self-adversarial``, at least 0.
    regularizer : str, optional
        ``none``, ``l2`` or ``n3``.
    regularizer_weight : float, optional
        At least 0.
    sparse : bool, optional
        Update only the rows of entities that a step has seen: for graphs of many entities.

    Raises
    ------
    ConfigError
        If a value has the wrong type or is out of range.
    """

    sampler: str = "normal"
    modality: str | None = None
    share: float = 0.3
    adaptive_rule: str = "share"
    num_negs_per_pos: int = 64
    proposal: str = "bernoulli"
    filter: str = "train"
    batch_size: int = 1024
    loss: str = "self-adversarial"
    margin: float = 6.0
    adversarial_temperature: float = 1.0
    regularizer: str = "none"
    regularizer_weight: float = 0.0
    sparse: bool = False

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


_CHOICES = {
    "sampler": tuple(SAMPLERS),
    "adaptive_rule": ADAPTIVE_RULES,
    "proposal": PROPOSALS,
    "filter": FILTERS,
    "loss": LOSSES,
    "regularizer": ("none", "l2", "n3"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "share": (0, 1),
    "num_negs_per_pos": (1, math.inf),
    "batch_size": (1, math.inf),
    "margin": (0, math.inf),
    "adversarial_temperature": (0, math.inf),
    "regularizer_weight": (0, math.inf),
}
