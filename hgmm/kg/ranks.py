"""Ranks of right entities among candidates, and the figures made of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError, unknown_name

__all__ = ["SIDES", "TIES", "Ranks"]

SIDES = ("head", "tail")
TIES: Mapping[str, float] = MappingProxyType({"realistic": 0.5, "optimistic": 0.0, "pessimistic": 1.0, "openke": 0.0})
"""Share of the candidates with the right entity's score that stand before it; ``openke`` is what OpenKE counts."""
HITS = (1, 3, 10)


class Ranks(NamedTuple):
    """What stood beside the right entities of n triples, by side; columns as in `SIDES`.

    Attributes
    ----------
    greater : Tensor
        ``(n, 2)`` int64: candidates with a higher score.
    ties : Tensor
        ``(n, 2)`` int64: other candidates with the same score.
    candidates : Tensor
        ``(n, 2)`` int64: all candidates, the right entity included.
    """

    greater: Tensor
    ties: Tensor
    candidates: Tensor

    def rank(self, ties: str = "realistic") -> Tensor:
        """Return the ranks ``(n, 2)``, float64, from 1.

        Parameters
        ----------
        ties : str, optional
            A name in `TIES`: ``realistic`` is the mean of ``optimistic`` and ``pessimistic``.

        Raises
        ------
        ConfigError
            `ties` is unknown.
        """
        if ties not in TIES:
            raise ConfigError(f"Ranks.rank, ties: {unknown_name('rule', ties, TIES)}")
        return 1.0 + self.greater.double() + TIES[ties] * self.ties.double()

    def metrics(self, ties: str = "realistic") -> dict[str, float]:
        """Return ``mrr``, ``mean_rank``, ``hits_at_1``, ``hits_at_3``, ``hits_at_10``, ``adjusted_mean_rank_index``.

        Means over triples and sides. The index is ``1 - sum(rank - 1) / sum((candidates - 1) / 2)``: 1 if every right
        entity comes first, 0 for scores by chance, negative below that, and 0 where nothing competes.

        Parameters
        ----------
        ties : str, optional
            As for `rank`.

        Raises
        ------
        ConfigError
            `ties` is unknown, or there are no ranks.

        References
        ----------
        Berrendorf et al., On the Ambiguity of Rank-Based Evaluation of Entity Alignment or Link Prediction Methods,
        2020, arXiv 2002.06914.
        """
        rank = self.rank(ties)
        if not rank.numel():
            raise ConfigError("Ranks.metrics: there are no ranks, got 0 triples; evaluate at least one")
        expected = (self.candidates.double() - 1).sum().item() / 2
        beyond = (rank - 1).sum().item()
        return {
            "mrr": rank.reciprocal().mean().item(),
            "mean_rank": rank.mean().item(),
            **{f"hits_at_{k}": (rank <= k).double().mean().item() for k in HITS},
            "adjusted_mean_rank_index": 1 - beyond / expected if expected else 0.0,
        }

    def of(self, rows: Tensor | None = None, side: str | None = None) -> Ranks:
        """Return a part.

        Parameters
        ----------
        rows : Tensor, optional
            ``(n,)`` bool or ids of triples. Default: all.
        side : str, optional
            ``head`` or ``tail``: which end was asked for. Default: both.

        Raises
        ------
        ConfigError
            `side` is unknown.
        """
        if side is not None and side not in SIDES:
            raise ConfigError(f"Ranks.of, side: {unknown_name('side', side, SIDES)}")
        columns = slice(None) if side is None else slice(SIDES.index(side), SIDES.index(side) + 1)
        return Ranks(*(x[:, columns] if rows is None else x[rows][:, columns] for x in self))

    @classmethod
    def empty(cls, num_triples: int) -> Ranks:
        """Return ranks to be filled in."""
        return cls(*(torch.zeros(num_triples, len(SIDES), dtype=torch.int64) for _ in cls._fields))
