from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError, ShapeError
from hgmm.sampling import TypeConstraints, UniformNegativeSampler
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


@pytest.mark.parametrize(
    ("indptr", "entities", "error", "message"),
    [
        (
            [0, 9, 9],
            [0, 1, 2],
            ConfigError,
            r"constraints.indptr: must ascend from 0 to the number of entities, 3, got 0",
        ),
        ([1, 2, 3], [0, 1, 2], ConfigError, r"constraints.indptr: must ascend from 0 .* got 1 to 3"),
        ([0, 5, 3], [0, 1, 2], ConfigError, r"constraints.indptr: must ascend from 0"),
        ([0, 2, 3], [1, 0, 2], ConfigError, r"constraints.entities: must ascend within a row, got 1 before 0 at 1"),
        ([0, 2, 3], [1, 1, 2], ConfigError, r"constraints.entities: must ascend within a row, got 1 before 1 at 1"),
        (torch.tensor([0, 1, 3], dtype=torch.int32), [0, 1, 2], ShapeError, r"indptr: expected dtype int64, got int32"),
        ([0, 1, 3], torch.zeros(3), ShapeError, r"entities: expected dtype int64, got float32"),
    ],
)
def test_rows_that_are_none(indptr: object, entities: object, error: type[Exception], message: str) -> None:
    own = TypeConstraints(torch.as_tensor(indptr), torch.as_tensor(entities))
    with pytest.raises(error, match=message):
        UniformNegativeSampler(4, 1, constraints=own)
    TypeConstraints(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1])).check("x", num_entities=4, num_relations=1)
