from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.sampling import BernoulliNegativeSampler, EntityNegativeSampler, TypeConstraints, UniformNegativeSampler
from hgmm.sampling.entities import bernoulli_head_share
from tests.sampling.graphs import N, R, knowledge_graph

TRAIN = knowledge_graph()


def uniform(**options: Any) -> UniformNegativeSampler:
    return UniformNegativeSampler(N, R, **{"num_negs_per_pos": 8, **options})


def found_in(triples: Tensor, known: Tensor, num_relations: int = R, num_entities: int = N) -> Tensor:
    """Return for each triple whether it is known."""
    key = (triples[..., 0] * num_relations + triples[..., 1]) * num_entities + triples[..., 2]
    return torch.isin(key, (known[:, 0] * num_relations + known[:, 1]) * num_entities + known[:, 2])


def p_value(counts: Tensor, expected: Tensor | float) -> float:
    """Return the probability of a chi-square that is larger than that of the counts."""
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(counts.shape)
    return float(chi2.sf(float(((counts - expected) ** 2 / expected).sum()), counts.numel() - 1))


def test_the_chi_square_finds_what_is_not_uniform() -> None:
    counts = torch.full((50,), 100.0)
    assert p_value(counts, 100.0) > 0.99
    counts[:25] += 20
    counts[25:] -= 20
    assert p_value(counts, 100.0) < 1e-6


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("num_known", [0, 10, 33])
def test_every_entity_that_makes_a_false_triple_is_equally_likely(num_known: int, side: int) -> None:
    # Entities 3 … 3 + num_known are known on the corrupted side; 5 is the positive's own. With 33 of 40 known the
    # attempts run out now and then.
    positive = torch.tensor([5, 0, 5])
    known = positive.repeat(num_known, 1)
    known[:, 2 * side] = torch.arange(3, 3 + num_known)
    sampler = EntityNegativeSampler(torch.tensor([1.0 - side]), N, 50, known=known)
    batch = sampler.sample(positive.repeat(400, 1), seed=11)
    assert bool((batch.side == side).all())
    counts = torch.bincount(batch.entity.flatten(), minlength=N)
    allowed = torch.ones(N, dtype=torch.bool)
    allowed[known[:, 2 * side]] = False
    allowed[5] = False
    assert not bool(counts[~allowed].any())
    assert p_value(counts[allowed], 20000 / int(allowed.sum())) > 1e-3


def test_negatives_of_a_positive_have_both_parities_and_are_independent() -> None:
    sampler = UniformNegativeSampler(256, 1, 64)
    entity = sampler.sample(torch.tensor([[0, 0, 1]]).repeat(300, 1), seed=2).entity
    odd = (entity % 2).sum(1)
    assert int(odd.min()) > 10
    assert int(odd.max()) < 54
    assert p_value(torch.bincount(entity.flatten() % 2), entity.numel() / 2) > 1e-3
    for other in (entity[:, 1:], entity[1:]):
        here = entity[: other.shape[0], : other.shape[1]]
        pairs = torch.bincount((here % 8 * 8 + other % 8).flatten(), minlength=64)
        assert p_value(pairs, other.numel() / 64) > 1e-3


def test_side_and_entity_are_independent() -> None:
    sampler = UniformNegativeSampler(64, 1, 64)
    batch = sampler.sample(torch.tensor([[0, 0, 0]]).repeat(300, 1), seed=4)
    together = torch.bincount((batch.side * 64 + batch.entity).flatten(), minlength=128).view(2, 64)
    assert not bool(together[:, 0].any())
    assert p_value(together[:, 1:], batch.entity.numel() / 126) > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.85, 1.0])
def test_the_head_is_corrupted_as_often_as_asked_for(share: float) -> None:
    sampler = EntityNegativeSampler(torch.tensor([0.5, share]), N, 64)
    side = sampler.sample(torch.tensor([[0, 1, 1]]).repeat(500, 1), seed=6).side
    heads = float((side == 0).double().mean())
    assert abs(heads - share) <= 4 * (share * (1 - share) / side.numel()) ** 0.5


def test_bernoulli_shares_are_those_of_the_definition() -> None:
    train = torch.cat([TRAIN, TRAIN[:50]])
    shares = bernoulli_head_share(train, num_entities=N, num_relations=R)
    for r in range(R):
        rows = {tuple(t) for t in train.tolist() if t[1] == r}
        if not rows:
            assert shares[r] == 0.5
            continue
        tph, hpt = len(rows) / len({h for h, _, _ in rows}), len(rows) / len({t for _, _, t in rows})
        assert abs(float(shares[r]) - tph / (tph + hpt)) < 1e-12


def test_bernoulli_corrupts_the_side_that_seldom_makes_a_true_triple() -> None:
    # Relation 0 has ten heads for each tail: another head is often true, another tail seldom.
    train = torch.tensor([[head, 0, head % 2] for head in range(20)])
    sampler = BernoulliNegativeSampler(train, N, R, 64)
    side = sampler.sample(train, seed=0).side
    assert abs(float((side == 0).double().mean()) - 2 / 22) < 0.02
    unfiltered = {
        kind: float(found_in(s.sample(train, seed=1).triples(train), train).double().mean())
        for kind, s in (("bernoulli", sampler), ("uniform", uniform(num_negs_per_pos=64)))
    }
    assert unfiltered["bernoulli"] < unfiltered["uniform"] / 2


def test_with_a_filter_no_true_triple_is_left_and_without_it_some_are() -> None:
    share = found_in(uniform().sample(TRAIN, seed=1).triples(TRAIN), TRAIN).double().mean()
    assert 0.01 < float(share) < 0.5
    filtered = uniform(known=TRAIN).sample(TRAIN, seed=1)
    assert not bool(found_in(filtered.triples(TRAIN), TRAIN).any())
    assert filtered.entity.shape == (len(TRAIN), 8)


def test_what_the_filter_lets_pass_is_what_is_drawn_without_it() -> None:
    free, filtered = (uniform(**options).sample(TRAIN, seed=1) for options in ({}, {"known": TRAIN}))
    assert torch.equal(free.side, filtered.side)
    ok = ~found_in(free.triples(TRAIN), TRAIN)
    assert torch.equal(free.entity[ok], filtered.entity[ok])


def test_the_own_entity_is_never_drawn() -> None:
    positives = torch.tensor([[0, 0, 1]]).repeat(500, 1)
    batch = UniformNegativeSampler(2, 1, 4).sample(positives, seed=3)
    assert bool((batch.triples(positives) != positives.unsqueeze(1)).any(2).all())


def test_pairs_and_relations_that_training_has_not_seen() -> None:
    positives = torch.tensor([[N - 1, R - 1, 0], [0, R - 1, N - 1]])
    sampler = BernoulliNegativeSampler(
        TRAIN,
        N,
        R,
        64,
        known=TRAIN,
        constraints=TypeConstraints.from_triples(TRAIN, num_entities=N, num_relations=R),
    )
    batch = sampler.sample(positives, seed=8)
    assert int(batch.entity.min()) >= 0
    assert int(batch.entity.max()) < N
    assert batch.entity.unique().numel() > 20
    assert {0, 1} == set(batch.side.flatten().tolist())


def test_constrained_candidates_come_from_their_lists_where_one_is_left() -> None:
    constraints = TypeConstraints.from_lists([[1, 2, 3], []], [[], [4]], num_entities=N)
    sampler = UniformNegativeSampler(N, 2, 40, known=torch.tensor([[2, 0, 9]]), constraints=constraints)
    batch = sampler.sample(torch.tensor([[1, 0, 9], [9, 1, 4], [9, 1, 5]]), seed=0)
    heads = batch.side == 0
    assert set(batch.entity[0][heads[0]].tolist()) == {3}
    assert set(batch.entity[2][~heads[2]].tolist()) == {4}
    for free in (batch.entity[0][~heads[0]], batch.entity[1][~heads[1]], batch.entity[1][heads[1]]):
        assert free.unique().numel() > 8


def test_equal_seeds_and_steps_give_equal_negatives_and_others_do_not() -> None:
    first = uniform().sample(TRAIN, seed=1, step=2)
    assert torch.equal(first.entity, uniform().sample(TRAIN, seed=1, step=2, progress=0.7).entity)
    for seed, step in ((2, 2), (1, 3), (1 + 2**32, 2)):
        same = first.entity == uniform().sample(TRAIN, seed=seed, step=step).entity
        assert float(same.double().mean()) < 0.1


def test_the_mask_is_true_in_all_modalities() -> None:
    batch = uniform(num_modalities=3).sample(TRAIN, seed=1)
    assert batch.modality.shape == (len(TRAIN), 8, 3)
    assert bool(batch.modality.all())


def test_no_positives() -> None:
    assert uniform(known=TRAIN).sample(TRAIN[:0], seed=0).entity.shape == (0, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tables_go_to_the_device_of_the_positives() -> None:
    constraints = TypeConstraints.from_triples(TRAIN, num_entities=N, num_relations=R)
    sampler = uniform(known=TRAIN, constraints=constraints)
    assert torch.equal(sampler.sample(TRAIN.cuda(), seed=1).entity.cpu(), sampler.sample(TRAIN, seed=1).entity)


def test_db15k_has_no_true_triple_left(real_data: Path) -> None:
    lines = (real_data / "kg" / "DB15K" / "train2id.txt").read_text().splitlines()[1:]
    train = torch.tensor([list(map(int, line.split())) for line in lines])[:, [0, 2, 1]]
    sampler = BernoulliNegativeSampler(train, 12842, 279, 64, known=train)
    for step, positives in enumerate(train[torch.arange(0, len(train), 40)].split(700)):
        negatives = sampler.sample(positives, seed=1, step=step).triples(positives)
        assert not bool(found_in(negatives, train, 279, 12842).any())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_entities": 0}, ConfigError, r"num_entities: must be a whole number in \[1, 2147483648\), got 0"),
        ({"num_relations": 2**30}, ConfigError, r"num_relations: .* got 1073741824"),
        ({"num_negs_per_pos": 2.0}, ConfigError, r"num_negs_per_pos: must be a whole number .* got 2\.0"),
        ({"num_modalities": True}, ConfigError, r"num_modalities: .* got True"),
        ({"known": torch.tensor([[0, 5, 1]])}, ConfigError, r"known: relations lie in \[0, 5\), got 5 in row 0"),
        ({"known": torch.tensor([[0, 0, 1], [0, 0, 40]])}, ConfigError, r"known: entities lie .* got 40 in row 1, \(0"),
        ({"known": torch.tensor([[0, 0, 1.5]])}, ShapeError, r"known: expected dtype int64, got float32"),
        ({"known": [[0, 0, 1]]}, ShapeError, r"known: expected a torch\.Tensor, got list"),
        ({"relation_names": ["a"]}, ShapeError, r"relation_names: expected 5 names, one a relation, got 1"),
        (
            {"constraints": TypeConstraints.from_lists([[1]], [[2]], num_entities=N)},
            ShapeError,
            r"constraints\.indptr: expected shape \(11,\), got \(3,\)",
        ),
        (
            {"constraints": TypeConstraints(torch.tensor([0, 1] + [1] * 9), torch.tensor([77]))},
            ConfigError,
            r"constraints\.entities: entities lie in \[0, 40\), got 77",
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"UniformNegativeSampler, {message}"):
        UniformNegativeSampler(**{"num_entities": N, "num_relations": R, **options})


@pytest.mark.parametrize(
    ("positives", "options", "error", "message"),
    [
        (torch.zeros(2, 2, dtype=torch.int64), {}, ShapeError, r"positives: expected shape \(n, 3\), got \(2, 2\)"),
        (torch.tensor([[0, 1, -1]]), {}, ConfigError, r"positives: entities lie in \[0, 40\), got -1 in row 0"),
        (TRAIN, {"step": 2**32}, ConfigError, r"step: must be a whole number in \[0, 4294967296\), got 4294967296"),
        (TRAIN, {"seed": 0.5}, ConfigError, r"seed: must be a whole number .* got 0\.5"),
    ],
)
def test_wrong_samples(positives: Tensor, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"UniformNegativeSampler, {message}"):
        uniform().sample(positives, **{"seed": 0, **options})


def test_wrong_shares_and_training_triples() -> None:
    with pytest.raises(ConfigError, match=r"head_share: probabilities lie in \[0, 1\], got 1\.5 for relation 1"):
        EntityNegativeSampler(torch.tensor([0.5, 1.5]), N)
    with pytest.raises(ConfigError, match=r"BernoulliNegativeSampler, train: relations lie in \[0, 2\), got 3"):
        BernoulliNegativeSampler(TRAIN[TRAIN[:, 1] == 3], N, 2)


def test_a_positive_whose_true_set_is_everything_names_the_relation() -> None:
    known = torch.tensor([[h, 1, t] for h in range(4) for t in range(4)])
    sampler = UniformNegativeSampler(4, 2, 3, known=known, relation_names=["knows", "is like"])
    assert sampler.sample(torch.tensor([[0, 0, 1]]), seed=0).entity.shape == (1, 3)
    with pytest.raises(ConfigError, match=r"row 1, \(2, 1, 3\) of relation 'is like', every other (head|tail) makes"):
        sampler.sample(torch.tensor([[0, 0, 1], [2, 1, 3]]), seed=0)


@pytest.mark.parametrize("chunk_size", [2, 16, 1000])
def test_shared_candidates_are_filtered_and_every_other_entity_is_equally_likely(chunk_size: int) -> None:
    positive = torch.tensor([5, 0, 5])
    known = positive.repeat(20, 1)
    known[:, 2] = torch.arange(3, 23)
    sampler = EntityNegativeSampler(torch.tensor([0.5]), N, 40, known=known, chunk_size=chunk_size)
    counts = torch.zeros(2, N)
    for step in range(60):
        batch = sampler.sample(positive.repeat(50, 1), seed=11, step=step)
        assert not bool(found_in(batch.triples(positive.repeat(50, 1)), known, 1).any())
        # One negative of a chunk: the others are not independent of it.
        first = slice(None, None, chunk_size)
        counts += torch.bincount((batch.side[first] * N + batch.entity[first]).flatten(), minlength=2 * N).view(2, N)
    for side, excluded in ((0, [5]), (1, [*range(3, 23)])):
        allowed = torch.ones(N, dtype=torch.bool)
        allowed[excluded] = False
        assert not bool(counts[side, ~allowed].any())
        assert p_value(counts[side, allowed], float(counts[side].sum()) / int(allowed.sum())) > 1e-3


def test_shared_says_what_the_rows_of_a_chunk_have_in_common() -> None:
    batch = uniform(known=TRAIN, chunk_size=8).sample(TRAIN[:37], seed=3)
    assert batch.shared is not None
    assert batch.shared.shape == (5, 8)
    common = batch.shared.repeat_interleave(8, 0)[:37]
    alone = batch.entity != common
    assert 0 < int(alone.sum()) < alone.numel() / 2
    # Just those are drawn anew whose shared entity would make a known triple, or the positive itself.
    refused = found_in(batch._replace(entity=common).triples(TRAIN[:37]), TRAIN)
    assert torch.equal(alone, refused)
    assert uniform().sample(TRAIN[:5], seed=3).shared is None


def test_candidates_of_a_relation_cannot_be_shared() -> None:
    constraints = TypeConstraints.from_triples(TRAIN, num_entities=N, num_relations=R)
    with pytest.raises(ConfigError, match=r"chunk_size: candidates by relation cannot be shared, got 8 with constr"):
        uniform(constraints=constraints, chunk_size=8)
    with pytest.raises(ConfigError, match=r"chunk_size: must be a whole number in \[1, "):
        uniform(chunk_size=0)
