from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hgmm.errors import ShapeError
from hgmm.kg import INTERACTIONS, CandidateTable, ModalityPairs, get_interaction
from tests import oracles_kg
from tests.tolerances import close

E, R, M, D = 6, 3, 3, 4
PAIRS = ModalityPairs([(0, 0), (1, 2), (2, 1), (0, 1)], [1.0, 2.0, 0.5, 3.0])


def vectors(name: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    entities = torch.randn(E, M, D, generator=generator, dtype=torch.float64)
    size = get_interaction(name).relation_size(D)
    present = torch.rand(E, M, generator=generator) < 0.6
    present[:, 0] = True
    return entities, torch.randn(R, size, generator=generator, dtype=torch.float64), present


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", INTERACTIONS)
def test_equals_scoring_one_by_one(name: str, masked: bool) -> None:
    entities, relations, present = vectors(name)
    table = CandidateTable(entities, relations, get_interaction(name), pairs=PAIRS, present=present if masked else None)
    has = present if masked else torch.ones_like(present)
    ends = [[x if ok else None for x, ok in zip(*row, strict=True)] for row in zip(entities.tolist(), has, strict=True)]

    def score(h: int, r: int, t: int) -> float:
        relation = relations[r].tolist()
        return oracles_kg.multimodal(oracles_kg.SCORES[name], ends[h], relation, ends[t], PAIRS.pairs, PAIRS.weights)

    given, relation = torch.tensor([0, 4, 5, 4]), torch.tensor([2, 0, 1, 1])
    questions = list(zip(given.tolist(), relation.tolist(), strict=True))
    tails = torch.tensor([[score(e, r, t) for t in range(E)] for e, r in questions], dtype=torch.float64)
    heads = torch.tensor([[score(h, r, e) for h in range(E)] for e, r in questions], dtype=torch.float64)
    close(table.score_tails(given, relation), tails, torch.float64)
    close(table.score_heads(relation, given), heads, torch.float64)


def test_all_pairs_by_default() -> None:
    entities, relations, present = vectors("transe")
    transe = get_interaction("transe")
    every = ModalityPairs([(a, b) for a in range(M) for b in range(M)])
    expected = CandidateTable(entities, relations, transe, pairs=every)
    found = CandidateTable(entities, relations, transe, present=torch.ones_like(present))
    query = (torch.tensor([1]), torch.tensor([2]))
    assert found.score_tails(*query).equal(expected.score_tails(*query))


def test_wrong_shapes() -> None:
    entities, relations, present = vectors("rotate")
    rotate = get_interaction("rotate")
    with pytest.raises(ShapeError, match=r"entities: expected shape \(E, M, D\), got \(6, 4\)"):
        CandidateTable(entities[:, 0], relations, rotate)
    with pytest.raises(ShapeError, match=r"relations: expected shape \(R, 2\), got \(3, 1\)"):
        CandidateTable(entities, relations[:, :1], rotate)
    with pytest.raises(ShapeError, match=r"present: expected shape \(6, 3\), got \(5, 3\)"):
        CandidateTable(entities, relations, rotate, present=present[1:])
