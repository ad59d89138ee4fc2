"""How well a model ranks the entities that complete a triple."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.kernels._checks import check_axes, check_number
from hgmm.kernels._segment import block_rows
from hgmm.kg.entity_lists import EntityLists, question_numbers
from hgmm.kg.ranks import SIDES, Ranks

__all__ = ["CATEGORIES", "CandidateScorer", "RankingEvaluator", "RankingResult", "relation_categories"]

CATEGORIES = ("1-1", "1-n", "n-1", "n-n")
_WHERE = "RankingEvaluator"
_HEAD, _RELATION, _TAIL = range(3)
# float32 holds every whole number up to this one.
_EXACT_IN_FLOAT32 = 1 << 24
# By side as in SIDES: the column that is asked for and the one that is given.
_ASKED, _GIVEN = (_HEAD, _TAIL), (_TAIL, _HEAD)


class CandidateScorer(Protocol):
    """What is evaluated: scores of every entity as the missing end; higher is more plausible.

    The tensors that it returns are written to, so each call returns a new one.
    """

    def score_heads(self, relation: Tensor, tail: Tensor) -> Tensor:
        """Return ``(Q, E)`` scores of all heads for ``(Q,)`` relations and tails."""
        ...

    def score_tails(self, head: Tensor, relation: Tensor) -> Tensor:
        """Return ``(Q, E)`` scores of all tails for ``(Q,)`` heads and relations."""
        ...


@dataclass(frozen=True)
class RankingResult:
    """Ranks of one evaluation.

    Attributes
    ----------
    filtered, raw : Ranks
        With and without the other known triples taken out of the candidates.
    typed : Ranks or None
        Filtered, and only among entities that the relation is known to have at that end; None if that was not asked.
    category : Tensor
        ``(n,)`` int64 indices into `CATEGORIES` of the triples' relations.
    """

    filtered: Ranks
    raw: Ranks
    typed: Ranks | None
    category: Tensor

    def metrics(self, ties: str = "realistic") -> dict[str, float]:
        """Return the filtered figures over both sides; see `Ranks.metrics`."""
        return self.filtered.metrics(ties)

    def by_side(self, ties: str = "realistic") -> dict[str, dict[str, float]]:
        """Return the filtered figures of ``head`` and ``tail``."""
        return {side: self.filtered.of(side=side).metrics(ties) for side in SIDES}

    def by_category(self, ties: str = "realistic") -> dict[str, dict[str, float]]:
        """Return the filtered figures of each category that some triple has."""
        rows = {name: self.category == number for number, name in enumerate(CATEGORIES)}
        return {name: self.filtered.of(mask).metrics(ties) for name, mask in rows.items() if mask.any()}


class RankingEvaluator:
    """Rank the right entity among all, for both ends of each triple.

    Parameters
    ----------
    known : Tensor
        ``(n, 3)`` int64 rows (head, relation, tail) that are true: candidates that complete one of these, or one of the
        triples under evaluation, are taken out of the filtered ranking.
    num_entities, num_relations : int
        E and R.
    typed : bool or tuple of Tensor, optional
        Rank among entities of the right type, too: those that `known` and the triples under evaluation have at that
        end of the relation, or ``(heads, tails)``, each ``(n, 2)`` int64 rows (relation, entity).
    category_threshold : float, optional
        Mean number of tails a head, or heads a tail, from which on a relation counts as having many; above 0.
    max_scores : int, optional
        Scores held at a time, at least 1: 2^22 are 16 MiB in float32. One query takes E, however few these are.

    Raises
    ------
    ShapeError
        Triples or types have the wrong shape or dtype.
    ConfigError
        An id or a number is out of range.

    Notes
    -----
    Equal questions, such as all triples with the same head and relation, are scored once. With S the larger of
    `max_scores` and E, memory peaks at S scores, 2 S bytes that mark entities of the wrong type, two blocks of 2 MiB
    of compared scores, and what the scorer needs; nothing grows with the number of triples but the ranks.

    The right entity's score is read from the same row as the candidates'. What is taken out is NaN, which neither beats
    nor ties, so scores of ``-inf`` are ranked as any other; NaN from the scorer is an error.

    References
    ----------
    Filtered ranks: Bordes et al., NeurIPS 2013. Categories with their threshold of 1.5, counted over repeated triples,
    too, and entities of the right type: OpenKE's ``n-n.py``. Realistic ranks: Berrendorf et al., arXiv 2002.06914.

    Examples
    --------
    >>> import torch
    >>> class Sum:
    ...     def score_heads(self, relation, tail): return torch.arange(3.0).repeat(len(tail), 1)
    ...     def score_tails(self, head, relation): return torch.arange(3.0).repeat(len(head), 1)
    >>> known = torch.tensor([[0, 0, 2], [0, 0, 1], [1, 0, 0]])
    >>> evaluator = RankingEvaluator(known, num_entities=3, num_relations=1)
    >>> evaluator.evaluate(Sum(), known[1:2]).filtered.rank()
    tensor([[3., 1.]], dtype=torch.float64)
    """

    def __init__(
        self,
        known: Tensor,
        *,
        num_entities: int,
        num_relations: int,
        typed: bool | tuple[Tensor, Tensor] = False,
        category_threshold: float = 1.5,
        max_scores: int = 1 << 22,
    ) -> None:
        check_number(_WHERE, "num_entities", num_entities, low=1, hint="count the entities")
        check_number(_WHERE, "num_relations", num_relations, low=1, hint="count the relations")
        check_number(_WHERE, "max_scores", max_scores, low=1, hint="more are faster")
        self.num_entities, self.num_relations = num_entities, num_relations
        self.max_scores = max_scores
        self._known = self._checked_triples("known", known)
        self._category = relation_categories(known, num_relations, threshold=category_threshold)
        self._typed: tuple[Tensor, Tensor] | None = None
        self._seen_types = typed is True
        if isinstance(typed, tuple):
            self._typed = self._checked_types("typed[0]", typed[0]), self._checked_types("typed[1]", typed[1])

    @torch.no_grad()
    def evaluate(self, scorer: CandidateScorer, triples: Tensor) -> RankingResult:
        """Rank both ends of triples.

        Parameters
        ----------
        scorer : CandidateScorer
            What gives the scores, on any device.
        triples : Tensor
            ``(n, 3)`` int64.

        Raises
        ------
        ShapeError
            `triples`, or what the scorer returned, has the wrong shape.
        ConfigError
            An id is out of range, or a score is NaN.
        """
        triples = self._checked_triples("triples", triples)
        known = torch.cat([self._known, triples])
        result = RankingResult(
            Ranks.empty(len(triples)),
            Ranks.empty(len(triples)),
            Ranks.empty(len(triples)) if self._typed is not None or self._seen_types else None,
            self._category[triples[:, _RELATION]],
        )
        for side in range(len(SIDES)):
            self._evaluate_side(scorer, triples, known, side, result)
        return result

    def _evaluate_side(
        self, scorer: CandidateScorer, triples: Tensor, known: Tensor, side: int, result: RankingResult
    ) -> None:
        answers = EntityLists.of(question_numbers(known, side, self.num_entities), known[:, _ASKED[side]])
        types = self._types(known, side) if result.typed is not None else None
        keys, question = torch.unique(question_numbers(triples, side, self.num_entities), return_inverse=True)
        # Triples with the same question stand together.
        order = question.argsort(stable=True)
        step = max(1, self.max_scores // self.num_entities)
        bounds = torch.searchsorted(question[order], torch.arange(0, len(keys) + step, step)).tolist()
        for block, first in enumerate(range(0, len(keys), step)):
            asked = keys[first : first + step]
            relation = asked.div(self.num_entities, rounding_mode="floor")
            scores = self._score(scorer, side, asked % self.num_entities, relation)
            places = order[bounds[block] : bounds[block + 1]]
            right = _Right.of(scores, question[places] - first, triples[places, _ASKED[side]])
            _note(result.raw, places, side, right.standing(scores))
            scores[answers.entries(asked, scores.device)] = torch.nan
            _note(result.filtered, places, side, right.standing(scores))
            if types is not None and result.typed is not None:
                scores.masked_fill_(_outside(types, relation, scores), torch.nan)
                _note(result.typed, places, side, right.standing(scores))

    def _types(self, known: Tensor, side: int) -> EntityLists:
        pairs = known[:, [_RELATION, _ASKED[side]]] if self._typed is None else self._typed[side]
        return EntityLists.of(pairs[:, 0], pairs[:, 1])

    def _score(self, scorer: CandidateScorer, side: int, given: Tensor, relation: Tensor) -> Tensor:
        name = f"score_{SIDES[side]}s"
        scores = scorer.score_tails(given, relation) if side else scorer.score_heads(relation, given)
        check_axes(
            _WHERE, f"scorer.{name}", scores, (len(given), self.num_entities), hint="a row a query, a column an entity"
        )
        # The largest of a row is NaN if any is, and costs a tenth of asking each.
        bad = scores.amax(1).isnan().nonzero()
        if len(bad):
            row = int(bad[0])
            raise ConfigError(
                f"{_WHERE}, scorer.{name}: scores must be numbers, got NaN for entity {int(given[row])} and relation "
                f"{int(relation[row])}; the model may have diverged: lower the learning rate"
            )
        return scores

    def _checked_triples(self, name: str, triples: Tensor) -> Tensor:
        check_axes(_WHERE, name, triples, ("n", 3), hint="rows are (head, relation, tail)", dtype=torch.int64)
        for column, what, size in (
            (_HEAD, "heads", self.num_entities),
            (_RELATION, "relations", self.num_relations),
            (_TAIL, "tails", self.num_entities),
        ):
            _check_ids(name, what, triples[:, column], size)
        return triples.cpu()

    def _checked_types(self, name: str, pairs: Tensor) -> Tensor:
        check_axes(_WHERE, name, pairs, ("n", 2), hint="rows are (relation, entity)", dtype=torch.int64)
        _check_ids(name, "relations", pairs[:, 0], self.num_relations)
        _check_ids(name, "entities", pairs[:, 1], self.num_entities)
        return pairs.cpu()


def relation_categories(triples: Tensor, num_relations: int, *, threshold: float = 1.5) -> Tensor:
    """Say whether relations have one or many heads and tails.

    Parameters
    ----------
    triples : Tensor
        ``(n, 3)`` int64; repeated ones count as often as they are there.
    num_relations : int
        R.
    threshold : float, optional
        A relation has many tails (1-n) if its heads have this many or more on average, many heads (n-1) likewise.

    Returns
    -------
    Tensor
        ``(R,)`` int64 indices into `CATEGORIES`; 1-1 for relations without triples.

    Raises
    ------
    ConfigError
        `threshold` is not above 0.

    References
    ----------
    Bordes et al., NeurIPS 2013, section 4.3; repetitions as OpenKE's ``n-n.py``.
    """
    check_number("relation_categories", "threshold", threshold, low=0, open_low=True, hint="1.5 is usual")
    relation = triples[:, _RELATION]
    count = torch.bincount(relation, minlength=num_relations)
    many = []
    for end in (_HEAD, _TAIL):
        pairs = torch.unique(triples[:, end] * num_relations + relation)
        distinct = torch.bincount(pairs % num_relations, minlength=num_relations)
        many.append(count / distinct.clamp(min=1) >= threshold)
    tails, heads = many
    category: Tensor = tails.long() + 2 * heads.long()
    return category


class _Right(NamedTuple):
    """The right entities of some triples: their rows in a matrix of scores, their columns, and their scores."""

    rows: Tensor
    columns: Tensor
    score: Tensor

    @classmethod
    def of(cls, scores: Tensor, rows: Tensor, columns: Tensor) -> _Right:
        rows, columns = rows.to(scores.device), columns.to(scores.device)
        return cls(rows, columns, scores[rows, columns])

    def standing(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return how many stand above, how many others tie, and how many there are; NaN is no candidate."""
        width = min(block_rows(scores), max(1, len(self.rows)))
        rows = scores.new_empty(width, scores.shape[1])
        # Sums of ones are exact in floating point and four times as fast as those of bool.
        exact = torch.float32 if scores.shape[1] < _EXACT_IN_FLOAT32 else torch.float64
        ones = torch.empty_like(rows, dtype=exact)
        counts = torch.empty(3, len(self.rows), dtype=torch.int64, device=scores.device)
        for block in torch.split(torch.arange(len(self.rows), device=scores.device), width):
            row, one, own = rows[: len(block)], ones[: len(block)], self.score[block].unsqueeze(1)
            torch.index_select(scores, 0, self.rows[block], out=row)
            for count, compare, other in (
                (counts[0], torch.gt, own),
                (counts[1], torch.eq, own),
                (counts[2], torch.eq, row),
            ):
                count[block] = compare(row, other, out=one).sum(1).long()
        # The right entity itself ties with its score where it is still in its row.
        there = (~scores[self.rows, self.columns].isnan()).long()
        return counts[0], counts[1] - there, counts[2] + 1 - there


def _outside(types: EntityLists, relation: Tensor, scores: Tensor) -> Tensor:
    """Return ``(Q, E)`` bool, True for entities that are not listed with the row's relation."""
    distinct, row = torch.unique_consecutive(relation, return_inverse=True)
    outside = torch.ones(len(distinct), scores.shape[1], dtype=torch.bool, device=scores.device)
    outside[types.entries(distinct, scores.device)] = False
    return outside[row.to(scores.device)]


def _note(ranks: Ranks, places: Tensor, side: int, counts: tuple[Tensor, Tensor, Tensor]) -> None:
    for column, count in zip(ranks, counts, strict=True):
        column[places, side] = count.to(column.device)


def _check_ids(name: str, what: str, ids: Tensor, size: int) -> None:
    wrong = ids[(ids < 0) | (ids >= size)]
    if len(wrong):
        raise ConfigError(f"{_WHERE}, {name}: {what} lie in [0, {size}), got {int(wrong[0])}; pass ids of this graph")
