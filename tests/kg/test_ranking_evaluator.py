from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kg import CATEGORIES, RankingEvaluator, Ranks, relation_categories
from tests import oracles_kg

E, R = 9, 4


class Table:
    """Scores from a table, and how often each question was asked."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.asked: Counter[tuple[str, int, int]] = Counter()
        self.largest = 0

    def score_heads(self, relation: Tensor, tail: Tensor) -> Tensor:
        return self._look_up("head", tail, relation)

    def score_tails(self, head: Tensor, relation: Tensor) -> Tensor:
        return self._look_up("tail", head, relation)

    def _look_up(self, side: str, given: Tensor, relation: Tensor) -> Tensor:
        self.asked.update((side, e, r) for e, r in zip(given.tolist(), relation.tolist(), strict=True))
        self.largest = max(self.largest, len(given))
        heads = self.scores[:, relation, given].T
        return (heads if side == "head" else self.scores[given, relation]).clone()


def problem(dtype: torch.dtype = torch.float64) -> tuple[Table, Tensor, Tensor]:
    """Return scores with many ties, known triples with repetitions, and triples to evaluate, some known, some not."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(4, (E, R, E), generator=generator).to(dtype)
    scores[3] = -torch.inf
    sizes = torch.tensor([E, R, E])
    known = (torch.rand(60, 3, generator=generator) * sizes).long()
    known = torch.cat([known, known[:5]])
    test = torch.cat([known[:20], (torch.rand(10, 3, generator=generator) * sizes).long()])
    return Table(scores), known, torch.cat([test, test[:3]])


def oracle(
    table: Table, known: Tensor, test: Tensor, *, filtered: bool, types: tuple[Tensor, Tensor] | None = None
) -> Ranks:
    true = {tuple(row) for row in torch.cat([known, test]).tolist()} if filtered else set()
    sides = []
    for side in (0, 1):
        rows, right, out, allowed = [], [], [], []
        for h, r, t in test.tolist():
            triples = [(e, r, t) if side == 0 else (h, r, e) for e in range(E)]
            rows.append([table.scores[triple].item() for triple in triples])
            right.append(h if side == 0 else t)
            out.append({e for e in range(E) if triples[e] in true})
            pairs = [] if types is None else types[side].tolist()
            allowed.append(set(range(E)) if types is None else {e for q, e in pairs if q == r})
        sides.append(oracles_kg.ranks(rows, right, out, allowed))
    return Ranks(*(torch.tensor(pair).T for pair in zip(*sides, strict=True)))


def same(found: Ranks | None, expected: Ranks) -> None:
    assert found is not None
    for name, x, y in zip(Ranks._fields, found, expected, strict=True):
        assert x.tolist() == y.tolist(), name


@pytest.mark.parametrize("max_scores", [1, 3 * E, 1 << 22])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_counting_one_by_one(dtype: torch.dtype, max_scores: int) -> None:
    table, known, test = problem(dtype)
    evaluator = RankingEvaluator(known, num_entities=E, num_relations=R, typed=True, max_scores=max_scores)
    result = evaluator.evaluate(table, test)
    same(result.raw, oracle(table, known, test, filtered=False))
    same(result.filtered, oracle(table, known, test, filtered=True))
    seen = torch.cat([known, test])
    same(result.typed, oracle(table, known, test, filtered=True, types=(seen[:, [1, 0]], seen[:, 1:])))
    assert table.largest == min(max(1, max_scores // E), len({(h, r) for h, r, _ in test.tolist()}))


def test_types_of_the_user_may_lack_the_right_entity() -> None:
    table, known, test = problem()
    types = (torch.tensor([[0, 1], [0, 2], [1, 5], [1, 5], [3, 0]]), torch.tensor([[2, 8], [0, 8], [0, 0]]))
    evaluator = RankingEvaluator(known, num_entities=E, num_relations=R, typed=types)
    same(evaluator.evaluate(table, test).typed, oracle(table, known, test, filtered=True, types=types))


def test_equal_questions_are_asked_once() -> None:
    table, known, test = problem()
    RankingEvaluator(known, num_entities=E, num_relations=R, max_scores=2 * E).evaluate(table, test)
    assert set(table.asked.values()) == {1}
    heads = {("head", t, r) for _, r, t in test.tolist()}
    assert set(table.asked) == heads | {("tail", h, r) for h, r, _ in test.tolist()}


def test_parts_of_a_result() -> None:
    table, known, test = problem()
    result = RankingEvaluator(known, num_entities=E, num_relations=R).evaluate(table, test)
    assert result.typed is None
    assert result.metrics() == result.filtered.metrics()
    assert result.metrics("pessimistic")["mean_rank"] > result.metrics("openke")["mean_rank"]
    assert result.by_side()["tail"] == Ranks(*(x[:, 1:] for x in result.filtered)).metrics()
    for number, name in enumerate(CATEGORIES):
        rows = [i for i, (_, r, _) in enumerate(test.tolist()) if relation_categories(known, R)[r] == number]
        assert (name in result.by_category()) == bool(rows)
        if rows:
            assert result.by_category()[name] == result.filtered.of(torch.tensor(rows)).metrics()


def test_categories() -> None:
    one, many_tails, many_heads, many = (
        [[0, 0, 1], [2, 0, 3]],
        [[0, 1, 1], [0, 1, 2], [0, 1, 3], [1, 1, 4]],
        [[1, 2, 0], [2, 2, 0], [3, 2, 1]],
        [[0, 3, 1], [0, 3, 2], [1, 3, 1], [1, 3, 2]],
    )
    triples = torch.tensor([*one, *many_tails, *many_heads, *many])
    assert [CATEGORIES[c] for c in relation_categories(triples, 5)] == ["1-1", "1-n", "n-1", "n-n", "1-1"]
    assert relation_categories(triples, 5, threshold=3).tolist() == [0] * 5
    # A triple that is listed twice counts twice, on both sides.
    assert relation_categories(torch.tensor(one * 2), 1).tolist() == [3]
    with pytest.raises(ConfigError, match="threshold: must be a finite number above 0, got 0"):
        relation_categories(triples, 5, threshold=0)


def test_no_triples() -> None:
    table, known, test = problem()
    result = RankingEvaluator(known, num_entities=E, num_relations=R, typed=True).evaluate(table, test[:0])
    assert result.filtered.rank().shape == (0, 2)
    assert result.by_category() == {}


class Diverged(Table):
    def score_tails(self, head: Tensor, relation: Tensor) -> Tensor:
        scores = super().score_tails(head, relation)
        scores[(head == 7) & (relation == 2), 4] = torch.nan
        return scores


class Short(Table):
    def score_heads(self, relation: Tensor, tail: Tensor) -> Tensor:
        return super().score_heads(relation, tail)[:, 1:]


def test_scores_that_are_no_ranking() -> None:
    table, known, _ = problem()
    evaluator = RankingEvaluator(known, num_entities=E, num_relations=R)
    rows = torch.tensor([[7, 2, 1], [0, 0, 1]])
    with pytest.raises(ConfigError, match=r"scorer\.score_tails: .* got NaN for entity 7 and relation 2"):
        evaluator.evaluate(Diverged(table.scores), rows)
    with pytest.raises(ShapeError, match=r"scorer\.score_heads: expected shape \(2, 9\), got \(2, 8\)"):
        evaluator.evaluate(Short(table.scores), rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_entities": 0}, "num_entities: must be a finite number at least 1, got 0"),
        ({"num_relations": 0}, "num_relations: must be a finite number at least 1, got 0"),
        ({"max_scores": 0}, "max_scores: must be a finite number at least 1, got 0"),
        ({"category_threshold": -1.0}, r"threshold: must be a finite number above 0, got -1\.0"),
        ({"num_entities": 4}, r"known: heads lie in \[0, 4\), got \d"),
        ({"num_relations": 2}, r"known: relations lie in \[0, 2\), got [23]"),
        ({"known": torch.tensor([[0, 0, -1]])}, r"known: tails lie in \[0, 9\), got -1"),
        ({"known": torch.zeros(2, 3)}, "known: expected dtype int64, got float32"),
        ({"known": torch.zeros(2, 2)}, r"known: expected shape \(n, 3\), got \(2, 2\)"),
        ({"typed": (torch.tensor([[4, 0]]), torch.tensor([[0, 0]]))}, r"typed\[0\]: relations lie in \[0, 4\), got 4"),
        ({"typed": (torch.tensor([[0, 0]]), torch.tensor([[0, 9]]))}, r"typed\[1\]: entities lie in \[0, 9\), got 9"),
        ({"typed": (torch.zeros(2), torch.zeros(2))}, r"typed\[0\]: expected shape \(n, 2\), got \(2,\)"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], message: str) -> None:
    known = given.pop("known", problem()[1])
    with pytest.raises((ConfigError, ShapeError), match=message):
        RankingEvaluator(known, **{"num_entities": E, "num_relations": R, **given})


def test_triples_out_of_range() -> None:
    table, known, _ = problem()
    evaluator = RankingEvaluator(known, num_entities=E, num_relations=R)
    with pytest.raises(ConfigError, match=r"triples: tails lie in \[0, 9\), got 9"):
        evaluator.evaluate(table, torch.tensor([[0, 0, 9]]))


def openke_triples(path: Path) -> Tensor:
    rows = torch.from_numpy(np.loadtxt(path, dtype=np.int64, skiprows=1))
    return rows[:, [-3, -1, -2]]


def test_categories_of_db15k_are_those_of_its_files(real_data: Path) -> None:
    folder = real_data / "kg" / "DB15K"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    splits = [openke_triples(folder / f"{name}2id.txt") for name in ("train", "valid", "test")]
    test = splits[2]
    listed = np.loadtxt(folder / "test2id_all.txt", dtype=np.int64, skiprows=1)[:, 0]
    assert relation_categories(torch.cat(splits), 279)[test[:, 1]].tolist() == listed.tolist()
    assert np.bincount(listed).tolist() == [337, 175, 3705, 5686]
