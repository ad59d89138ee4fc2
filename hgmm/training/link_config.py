"""How a run learns to complete triples: the section ``link`` of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from hgmm.errors import ConfigError
from hgmm.sampling import RULES
from hgmm.training._fields import check_choices, check_range, check_types

__all__ = ["LOSSES", "ONE_VS_ALL", "SAMPLERS", "LinkConfig"]

ONE_VS_ALL = "one-vs-all"
"""The loss that ranks among all entities instead of drawn ones."""

LOSSES = ("margin", "softplus", "sigmoid", "self-adversarial", ONE_VS_ALL)
SAMPLERS = {
    "normal": "normal",
    "mans-v": "visual",
    "mans-t": "two-stage",
    "mans-h": "hybrid",
    "mans-a": "adaptive",
}
"""Strategies of `hgmm.sampling.ModalityAwareNegativeSampler` by the name that a configuration has for them."""

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
    type_constrained : bool, optional
        Draw only entities that stand at that end of the relation in a training triple.
    chunk_size : int, optional
        Triples of a batch that share their candidates, at least 1: faster where scores are inner products, and with
        far more entities than a step draws. Each negative for itself is distributed as with 1, and filtered as well.
    filter : str, optional
        Which triples are no negatives: those of ``train``, of ``all`` splits, or ``none``.
    sampler : str, optional
        Which negatives are corrupted in one modality only, see `hgmm.sampling.ModalityAwareNegativeSampler`:
        ``normal``, none; ``mans-v``, all; ``mans-t``, all in the first `modal_share` of the epochs; ``mans-h``, the
        share `modal_share` of each batch; ``mans-a``, as many as the model's scores say.
    corrupted_modalities : sequence of str, optional
        Modalities that are corrupted alone, in turns. Default: all that the model uses beside the structure.
    modal_share : float, optional
        Of ``mans-t`` and ``mans-h``, in [0, 1].
    adaptive_rule : str, optional
        Of ``mans-a``: ``share``, as many negatives as pass its test, or ``rows``, those that pass.
    modal_pairs : str, optional
        Which pairs score a negative of one modality: ``changed``, those that have the other entity; or ``all``, as in
        the released code of MANS, where the pairs of the true triple make it look better than it is.
    batch_size : int, optional
        Positive triples a step, at least 1.
    loss : str, optional
        ``margin``, ``softplus``, ``sigmoid`` or ``self-adversarial`` (`hgmm.losses.ranking_loss`); or ``one-vs-all``
        (`hgmm.losses.one_vs_all_loss`), which draws no negatives: each end competes with all entities, but for those
        of the triples of `filter`.
    margin : float, optional
        Of ``margin``, ``sigmoid`` and ``self-adversarial``, at least 0; on the mean score of the model's pairs.
    adversarial_temperature : float, optional
        Of ``self-adversarial``, at least 0.
    regularizer : str, optional
        ``none``, ``l2`` or ``n3``.
    regularizer_weight : float, optional
        At least 0.

    Raises
    ------
    ConfigError
        If a value has the wrong type or is out of range, or two do not go together.
    """

    num_negs_per_pos: int = 64
    proposal: str = "bernoulli"
    type_constrained: bool = False
    chunk_size: int = 1
    filter: str = "train"
    sampler: str = "normal"
    corrupted_modalities: tuple[str, ...] = ()
    modal_share: float = 0.3
    adaptive_rule: str = "share"
    modal_pairs: str = "changed"
    batch_size: int = 1024
    loss: str = "self-adversarial"
    margin: float = 6.0
    adversarial_temperature: float = 1.0
    regularizer: str = "none"
    regularizer_weight: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "link")
        check_choices(self, "link", _CHOICES)
        for name, low in _AT_LEAST.items():
            check_range(f"link.{name}", getattr(self, name), low=low)
        check_range("link.modal_share", self.modal_share, high=1)
        if self.regularizer_weight and self.regularizer == "none":
            raise ConfigError(
                f"link.regularizer: a weight of {self.regularizer_weight} needs l2 or n3, got 'none'; choose one"
            )
        if self.type_constrained and self.chunk_size > 1:
            raise ConfigError(
                f"link.chunk_size: entities that fit a relation cannot be shared by triples of others, got "
                f"{self.chunk_size} with type_constrained; leave out one of the two"
            )
        if self.loss == ONE_VS_ALL and self.sampler != "normal":
            raise ConfigError(
                f"link.sampler: the loss {ONE_VS_ALL} draws no negatives, got {self.sampler!r}; choose another loss"
            )


_CHOICES = {
    "proposal": PROPOSALS,
    "filter": FILTERS,
    "sampler": SAMPLERS,
    "adaptive_rule": RULES,
    "modal_pairs": ("changed", "all"),
    "loss": LOSSES,
    "regularizer": ("none", "l2", "n3"),
}
_AT_LEAST = {
    "num_negs_per_pos": 1,
    "batch_size": 1,
    "chunk_size": 1,
    "margin": 0,
    "adversarial_temperature": 0,
    "regularizer_weight": 0,
}
