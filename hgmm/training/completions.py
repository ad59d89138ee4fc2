"""What a trained model of triples says: which entities complete a question best, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from hgmm.errors import ConfigError, unknown_name
from hgmm.kg import CandidateScorer, TripleSet
from hgmm.kg.entity_lists import KnownAnswers
from hgmm.sampling.batch import HEAD, TAIL

__all__ = ["Completions", "complete", "questions_of"]

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Completions:
    """The best answers to Q questions.

    Attributes
    ----------
    questions : list of tuple of (str or None)
        Names (head, relation, tail), None for what is asked for.
    answers : list of list of str
        The entities' names, the best first.
    scores : list of list of float
        Their scores, higher is more plausible.
    source : str
        Source of the data: ``official``, ``local``, ``embedded`` or ``synthetic``.
    """

    questions: list[tuple[str | None, str, str | None]]
    answers: list[list[str]]
    scores: list[list[float]]
    source: str

    def table(self) -> pd.DataFrame:
        """Return ``asked, head, relation, tail, position, score, source``, a row an answer, which stands in its place.

        ``asked`` is ``head`` or ``tail``.
        """
        rows = []
        for (head, relation, tail), names, scores in zip(self.questions, self.answers, self.scores, strict=True):
            for position, (name, score) in enumerate(zip(names, scores, strict=True), start=1):
                filled = ("head", name, relation, tail) if head is None else ("tail", head, relation, name)
                rows.append((*filled, position, score, self.source))
        return pd.DataFrame(rows, columns=["asked", "head", "relation", "tail", "position", "score", "source"])


def questions_of(triples: Tensor) -> Tensor:
    """Return the two questions of each triple, each question once: ``(Q, 3)`` with -1 for what is asked for."""
    asked = triples.repeat(2, 1)
    asked[: len(triples), 0] = -1
    asked[len(triples) :, 2] = -1
    distinct: Tensor = torch.unique(asked, dim=0)
    return distinct


def questions_by_name(names: Sequence[tuple[str | None, str, str | None]], triples: TripleSet) -> Tensor:
    """Return questions by name as ids ``(Q, 3)``, -1 for None.

    Raises
    ------
    ConfigError
        If a name is unknown, or a question does not leave out exactly one end.
    """
    entities = {name: number for number, name in enumerate(triples.entity_vocab)}
    relations = {name: number for number, name in enumerate(triples.relation_vocab)}
    rows = []
    for head, relation, tail in names:
        if (head is None) == (tail is None):
            raise ConfigError(
                f"questions: give the head or the tail, got {(head, relation, tail)!r}; the other is asked for"
            )
        if relation not in relations:
            raise ConfigError(f"questions: {unknown_name('relation', relation, relations)}")
        for name in (head, tail):
            if name is not None and name not in entities:
                raise ConfigError(f"questions: {unknown_name('entity', name, entities)}")
        first, last = (-1 if name is None else entities[name] for name in (head, tail))
        rows.append((first, relations[relation], last))
    return torch.tensor(rows, dtype=torch.int64).view(-1, 3)


@torch.no_grad()
def complete(
    scorer: CandidateScorer, triples: TripleSet, questions: Tensor, *, top: int, source: str, known: bool = False
) -> Completions:
    """Answer questions.

    Parameters
    ----------
    scorer : CandidateScorer
        Scores of every entity.
    triples : TripleSet
        Names, and what is known.
    questions : Tensor
        ``(Q, 3)`` int64, -1 for what is asked for.
    top : int
        Answers a question, at least 1.
    source : str
        Where the data comes from.
    known : bool, optional
        Whether answers may be what the training triples say already. Default: these are left out.
    """
    if top < 1:
        raise ConfigError(f"top: must be at least 1, got {top}; it is the number of answers a question")
    answers: list[list[str]] = [[] for _ in questions]
    found: list[list[float]] = [[] for _ in questions]
    train = triples.train.cpu()
    said = KnownAnswers(train, triples.num_entities)
    for side in (HEAD, TAIL):
        places = (questions[:, 2 * side] < 0).nonzero().squeeze(1)
        for block in torch.split(places, max(1, _BLOCK // triples.num_entities)):
            asked = questions[block]
            given, relation = asked[:, 2 - 2 * side], asked[:, 1]
            scores = scorer.score_tails(given, relation) if side == TAIL else scorer.score_heads(relation, given)
            scores = scores.cpu()
            if not known:
                scores.masked_fill_(said.mask(asked, side), -torch.inf)
            best = scores.topk(min(top, triples.num_entities), dim=1)
            for place, values, ids in zip(block.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
                kept = [(value, i) for value, i in zip(values, ids, strict=True) if value > -torch.inf]
                answers[place] = [triples.entity_vocab[i] for _, i in kept]
                found[place] = [value for value, _ in kept]
    names = [_question_names(row, triples) for row in questions.tolist()]
    return Completions(names, answers, found, source)


def _question_names(row: list[int], triples: TripleSet) -> tuple[Any, str, Any]:
    head, relation, tail = row
    ends = [None if end < 0 else triples.entity_vocab[end] for end in (head, tail)]
    return ends[0], triples.relation_vocab[relation], ends[1]
