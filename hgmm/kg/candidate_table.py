"""All entities as candidates: what a ranking asks of a model, from tables of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.kernels._checks import check_axes
from hgmm.kg.interactions import Interaction
from hgmm.kg.pair_scores import ModalityPairs

__all__ = ["CandidateTable"]


class CandidateTable:
    """Score every entity as the missing end; a `hgmm.kg.CandidateScorer`.

    Parameters
    ----------
    entities : Tensor
        ``(E, M, D)`` vectors, finite where a modality is absent, too.
    relations : Tensor
        ``(R, D_relation)`` vectors as the interaction takes them.
    interaction : Interaction
        What makes a score of them.
    pairs : ModalityPairs, optional
        Which modalities meet. Default: all M x M.
    present : Tensor, optional
        ``(E, M)`` bool: who has what; everybody at least one pair with everybody. Default: all.

    Raises
    ------
    ShapeError
        The tensors do not fit each other.

    Notes
    -----
    Holds the E x M x D numbers; a call for Q queries makes Q x E scores of one pair at a time and nothing larger, see
    `hgmm.kg.measures.measure_all`. Pairs are computed only for the candidates that have the modality. Scores are
    differentiable in `entities` and `relations`.

    Examples
    --------
    >>> from hgmm.kg import TransE
    >>> table = CandidateTable(torch.tensor([[[0.0]], [[1.0]], [[3.0]]]), torch.tensor([[2.0]]), TransE())
    >>> table.score_tails(torch.tensor([1]), torch.tensor([0]))
    tensor([[-3., -2.,  0.]])
    """

    def __init__(
        self,
        entities: Tensor,
        relations: Tensor,
        interaction: Interaction,
        *,
        pairs: ModalityPairs | None = None,
        present: Tensor | None = None,
    ) -> None:
        where = "CandidateTable"
        check_axes(where, "entities", entities, ("E", "M", "D"), hint="one vector an entity and modality")
        E, M, D = entities.shape
        size = interaction.relation_size(D)
        check_axes(where, "relations", relations, ("R", size), hint="the interaction tells their length from D")
        if present is not None:
            check_axes(where, "present", present, (E, M), hint="it masks entities", dtype=torch.bool)
        self.interaction = interaction
        self.pairs = ModalityPairs([(a, b) for a in range(M) for b in range(M)]) if pairs is None else pairs
        self._relations = relations
        # Candidates of one pair lie together.
        self._table = [x.contiguous() for x in entities.unbind(1)]
        self._present = None if present is None or bool(present.all()) else present
        self._who = [] if self._present is None else [has.nonzero().squeeze(1) for has in self._present.unbind(1)]

    def score_tails(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return ``(Q, E)`` scores of all tails for ``(Q,)`` heads and relations."""
        return self._scores(head, relation, side=1)

    def score_heads(self, relation: Tensor, tail: Tensor) -> Tensor:
        """Return ``(Q, E)`` scores of all heads for ``(Q,)`` relations and tails."""
        return self._scores(tail, relation, side=0)

    def _scores(self, given: Tensor, relation: Tensor, *, side: int) -> Tensor:
        device = self._relations.device
        given, r = given.to(device), self._relations[relation.to(device)]
        scores = r.new_zeros(len(given), len(self._table[0]))
        counted = None if self._present is None else torch.zeros_like(scores)
        for (a, m), weight in zip(self.pairs.index("cpu")[side].tolist(), self.pairs.weights, strict=True):
            x = self._table[a][given]
            query = self.interaction.tail_query(x, r) if side else self.interaction.head_query(r, x)
            if self._present is None or counted is None:
                scores.add_(self.interaction.score_all(query, self._table[m]), alpha=weight)
                continue
            asked, who = self._present[given, a].nonzero().squeeze(1), self._who[m]
            found = self.interaction.score_all(query[asked], self._table[m][who])
            scores[asked.unsqueeze(1), who] += weight * found
            counted[asked.unsqueeze(1), who] += weight
        return scores if counted is None else scores.div_(counted).mul_(sum(self.pairs.weights))
