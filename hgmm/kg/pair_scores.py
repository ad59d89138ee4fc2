"""Scores of modality pairs: of triples, of their corruptions, and of corruptions of some modalities only."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels._checks import check_axes

__all__ = ["ModalityPairs", "PairScores"]


class PairScores(NamedTuple):
    """Scores of triples and of corruptions of a whole end, by modality pair.

    Attributes
    ----------
    positive, negative : Tensor
        ``(B, P)`` and ``(B, K, P)``; finite, but of no meaning where a modality is absent.
    positive_present, negative_present : Tensor or None
        ``(B, P)`` and ``(B, K, P)`` bool: head and tail have the pair's modalities; None if all do.
    """

    positive: Tensor
    negative: Tensor
    positive_present: Tensor | None = None
    negative_present: Tensor | None = None


class ModalityPairs:
    """Which modality of the head meets which of the tail, and how much each pair counts.

    The score of a triple is ``sum_p w_p s_p / sum_p w_p * W`` over the pairs that are present, with W the sum of all
    weights: pairs of absent modalities do not count, and triples with few pairs compare with those that have all.

    Parameters
    ----------
    pairs : sequence of (int, int)
        P pairs (modality of the head, modality of the tail), each once; P at least 1.
    weights : sequence of float, optional
        ``(P,)`` above 0. Default: 1 each.

    Raises
    ------
    ConfigError
        No pairs, one twice, or weights that do not fit.

    References
    ----------
    MANS, IJCNN 2023, arXiv 2304.11618: the sum over the four pairs of structure and image, all present. Weights and
    absent modalities are ours.
    """

    def __init__(self, pairs: list[tuple[int, int]], weights: list[float] | None = None) -> None:
        where = "ModalityPairs"
        if not pairs or len(set(pairs)) < len(pairs):
            raise ConfigError(
                f"{where}, pairs: at least one pair and each once, got {pairs}; list the pairs that count"
            )
        self.pairs = list(pairs)
        self.weights = [1.0] * len(pairs) if weights is None else list(weights)
        if len(self.weights) != len(pairs) or not all(0 < w < float("inf") for w in self.weights):
            raise ConfigError(
                f"{where}, weights: expected {len(pairs)} finite numbers above 0, got {self.weights}; "
                "leave a pair out that shall not count"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def index(self, device: torch.device | str) -> Tensor:
        """Return ``(2, P, 2)``: by corrupted side (head, tail), the query's modality and the candidate's."""
        ends = torch.tensor(self.pairs, device=device)
        return torch.stack([ends.flip(1), ends])

    def present(self, head: Tensor, tail: Tensor) -> Tensor:
        """Return which pairs are there, ``(*, P)``, from the ends' modalities ``(*, M)``, both bool."""
        a, b = self.index(head.device)[1].T
        return head[..., a] & tail[..., b]

    def total(self, scores: Tensor, present: Tensor | None = None) -> Tensor:
        """Add up the scores of the pairs.

        Parameters
        ----------
        scores : Tensor
            ``(*, P)``.
        present : Tensor, optional
            ``(*, P)`` bool, at least one True in each. Default: all.

        Returns
        -------
        Tensor
            ``(*)``.
        """
        return self.mean(scores, present) * sum(self.weights)

    def mean(self, scores: Tensor, present: Tensor | None = None) -> Tensor:
        """Return `total` divided by the sum of the weights, for losses whose margin is that of a pair."""
        if present is None and len(self.pairs) == 1:
            return scores.squeeze(-1)
        weights = scores.new_tensor(self.weights)
        if present is None:
            return scores @ (weights / weights.sum())
        counted = weights * present
        # A weight of 0 does not keep NaN out.
        return (scores.masked_fill(~present, 0) * counted).sum(-1) / counted.sum(-1)

    def compose(self, scores: PairScores, side: Tensor, modality: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score corruptions of some modalities of one end.

        A pair takes the score of the corrupted triple where its modality of the corrupted end takes the other entity,
        else the score of the triple itself. Nothing is computed again, so a choice that rests on the scores is free.

        Parameters
        ----------
        scores : PairScores
            Of corruptions of a whole end.
        side : Tensor
            ``(B, K)``: 0 where the head, 1 where the tail was corrupted.
        modality : Tensor
            ``(B, K, M)`` bool: which modalities of that end take the other entity.

        Returns
        -------
        scores, present : Tensor
            ``(B, K, P)``; present is None if all are.

        Raises
        ------
        ShapeError
            `side` or `modality` does not fit.
        """
        taken = self._taken("ModalityPairs.compose", scores, side, modality)
        composed = torch.where(taken, scores.negative, scores.positive.unsqueeze(1))
        if scores.negative_present is None or scores.positive_present is None:
            return composed, None
        return composed, torch.where(taken, scores.negative_present, scores.positive_present.unsqueeze(1))

    def changed(self, scores: PairScores, side: Tensor, modality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score corruptions of some modalities of one end by the pairs that they change.

        Parameters
        ----------
        scores, side, modality
            As of `compose`.

        Returns
        -------
        scores, present : Tensor
            ``(B, K, P)``; of those that change none, what `compose` returns.
        differs : Tensor
            ``(B, K)`` bool: False where no pair that is present changes, so that the score is that of the triple.

        Raises
        ------
        ShapeError
            As `compose`.
        """
        taken = self._taken("ModalityPairs.changed", scores, side, modality)
        if scores.negative_present is not None:
            taken = taken & scores.negative_present
        differs = taken.any(2)
        kept = scores.positive_present
        whole = taken.new_ones(()) if kept is None else kept.unsqueeze(1)
        of_triple = ~differs.unsqueeze(2)
        values = torch.where(of_triple, scores.positive.unsqueeze(1), scores.negative)
        return values, torch.where(of_triple, whole, taken), differs

    def _taken(self, where: str, scores: PairScores, side: Tensor, modality: Tensor) -> Tensor:
        """Return ``(B, K, P)`` bool: the pair's modality of the corrupted end takes the other entity."""
        B, K, _ = scores.negative.shape
        check_axes(where, "side", side, (B, K), hint="one side a corruption")
        check_axes(where, "modality", modality, (B, K, "M"), hint="one mask a corruption", dtype=torch.bool)
        most = max(max(pair) for pair in self.pairs)
        if modality.shape[2] <= most:
            raise ShapeError(
                f"{where}, modality: pairs reach modality {most}, got {modality.shape[2]} columns; "
                "column 0 is structure"
            )
        a, b = self.index(modality.device)[1].T
        return torch.where(side.bool().unsqueeze(2), modality[..., b], modality[..., a])

    def intra_and_inter(self, scores: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return distances within and across modalities, for choosing corruptions by them.

        Parameters
        ----------
        scores : Tensor
            ``(*, P)`` scores; distances are minus these.
        present : Tensor, optional
            ``(*, P)`` bool. Default: all.

        Returns
        -------
        intra, inter : Tensor
            ``(*)``, constants: the mean over the present pairs of the kind, times the number of modalities in
            the pairs; 0 where there is none. With all four pairs of two modalities these are sums.
        """
        modalities = len({m for pair in self.pairs for m in pair})
        same = torch.tensor([a == b for a, b in self.pairs], device=scores.device)
        distances = []
        for kind in (same, ~same):
            counts = kind.expand_as(scores) if present is None else kind & present
            total = -scores.detach().masked_fill(~counts, 0).sum(-1)
            distances.append(total / counts.sum(-1).clamp(min=1) * modalities)
        return distances[0], distances[1]
