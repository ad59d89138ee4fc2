from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError
from hgmm.kg import TIES, Ranks


def some() -> Ranks:
    return Ranks(torch.tensor([[0, 2], [9, 0]]), torch.tensor([[2, 0], [0, 1]]), torch.tensor([[5, 3], [11, 2]]))


def test_ranks_by_rule() -> None:
    assert some().rank("optimistic").tolist() == [[1, 3], [10, 1]]
    assert some().rank("openke").tolist() == [[1, 3], [10, 1]]
    assert some().rank("pessimistic").tolist() == [[3, 3], [10, 2]]
    assert some().rank().tolist() == [[2, 3], [10, 1.5]]


def test_metrics() -> None:
    found = some().metrics()
    assert found["mrr"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 10 + 1 / 1.5) / 4)
    assert found["mean_rank"] == pytest.approx(16.5 / 4)
    assert [found[f"hits_at_{k}"] for k in (1, 3, 10)] == [0, 0.75, 1]
    # Beyond the first: 1 + 2 + 9 + 0.5; by chance half of the 4 + 2 + 10 + 1 rivals.
    assert found["adjusted_mean_rank_index"] == pytest.approx(1 - 12.5 / 8.5)
    assert some().metrics("optimistic")["hits_at_1"] == 0.5


def test_parts() -> None:
    tail = some().of(side="tail")
    assert tail.rank().tolist() == [[3], [1.5]]
    assert some().of(torch.tensor([False, True])).rank().tolist() == [[10, 1.5]]
    assert some().of(torch.tensor([0]), "head").candidates.tolist() == [[5]]


def test_the_index_of_scores_by_chance_is_near_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(4000, 50, generator=generator)
    greater = (scores > scores[:, :1]).sum(1, keepdim=True)
    ranks = Ranks(greater, torch.zeros_like(greater), torch.full_like(greater, 50))
    assert abs(ranks.metrics()["adjusted_mean_rank_index"]) < 0.03
    perfect = Ranks(*(torch.full((3, 2), x) for x in (0, 0, 7))).metrics()
    assert (perfect["adjusted_mean_rank_index"], perfect["mrr"]) == (1, 1)
    alone = Ranks(*(torch.full((3, 2), x) for x in (0, 0, 1))).metrics()
    assert alone["adjusted_mean_rank_index"] == 0


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="ties: unknown rule 'random'; known: openke, optimistic"):
        some().rank("random")
    with pytest.raises(ConfigError, match="side: unknown side 'left'; known: head, tail"):
        some().of(side="left")
    with pytest.raises(ConfigError, match="there are no ranks, got 0 triples"):
        Ranks.empty(0).metrics()
    assert set(TIES) == {"realistic", "optimistic", "pessimistic", "openke"}
