from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError, ShapeError
from hgmm.sampling import TypeConstraints
from tests.sampling.graphs import N, R, knowledge_graph


def rows(constraints: TypeConstraints) -> list[list[int]]:
    return [part.tolist() for part in constraints.entities.tensor_split(constraints.indptr[1:-1])]


def test_from_triples_lists_what_stands_at_a_place() -> None:
    triples = knowledge_graph()
    found = rows(TypeConstraints.from_triples(triples, num_entities=N, num_relations=R))
    for column, lists in ((0, found[:R]), (2, found[R:])):
        assert lists == [sorted({t[column] for t in triples.tolist() if t[1] == r}) for r in range(R)]
    assert found[R - 1] == found[-1] == []


def test_from_lists_sorts_and_drops_repetitions() -> None:
    assert rows(TypeConstraints.from_lists([[3, 1, 3], []], [[0], [2, 1]], num_entities=4)) == [[1, 3], [], [0], [1, 2]]


def test_wrong_lists() -> None:
    with pytest.raises(ShapeError, match=r"tails: expected as many lists as in heads, 2, got 1"):
        TypeConstraints.from_lists([[1], [2]], [[0]], num_entities=4)
    with pytest.raises(ConfigError, match=r"heads and tails: entities lie in \[0, 4\), got 4"):
        TypeConstraints.from_lists([[1]], [[4]], num_entities=4)
    with pytest.raises(ConfigError, match=r"triples: entities lie in \[0, 2\), got 2"):
        TypeConstraints.from_triples(torch.tensor([[0, 0, 2]]), num_entities=2, num_relations=1)
