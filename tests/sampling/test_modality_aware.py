from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.sampling import (
    STRATEGIES,
    BernoulliNegativeSampler,
    ModalityAwareNegativeSampler,
    NegativeBatch,
    TypeConstraints,
    UniformNegativeSampler,
)
from hgmm.settings import using_backend
from tests.sampling.graphs import N, R, knowledge_graph

TRAIN = knowledge_graph()
# Structure, an image for two of three, a text for half of the entities; the last entity has structure only.
PRESENCE = torch.stack([torch.ones(N), torch.arange(N) % 3 > 0, torch.arange(N) % 2 > 0], 1).bool()
PRESENCE[-1, 1:] = False


def sampler(strategy: str, *, K: int = 6, base: dict[str, Any] | None = None, **options: Any) -> Any:
    uniform = UniformNegativeSampler(N, R, K, **{"known": TRAIN, **(base or {})})
    return ModalityAwareNegativeSampler(uniform, PRESENCE, strategy=strategy, **options)


def ends(batch: NegativeBatch, positives: Tensor = TRAIN) -> Tensor:
    return torch.where(batch.side == 0, positives[:, :1], positives[:, 2:])


def scores(batch: NegativeBatch, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    intra, inter = (torch.rand(batch.entity.shape, generator=rng) for _ in range(2))
    return intra, inter


def drawn(strategy: str, **options: Any) -> NegativeBatch:
    kind = sampler(strategy, **options)
    batch: NegativeBatch = kind.sample(TRAIN, seed=5, step=1)
    return kind.choose(batch, *scores(batch)) if strategy == "adaptive" else batch


def single(batch: NegativeBatch) -> Tensor:
    """Return ``(B, K)``: the modality that alone is corrupted, 0 where all are."""
    counts = batch.modality.sum(2)
    assert bool(((counts == 1) | (counts == batch.modality.shape[2])).all())
    return torch.where(counts == 1, batch.modality.long().argmax(2), 0)


@pytest.mark.parametrize("K", [1, 6])
@pytest.mark.parametrize("modality", [1, 2, (1, 2)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_corrupted_alone_is_there_on_both_sides(strategy: str, modality: int | tuple[int, ...], K: int) -> None:
    batch = drawn(strategy, modality=modality, K=K)
    alone = single(batch)
    assert batch.entity.shape == batch.side.shape == (len(TRAIN), K)
    assert bool(alone.any()) == (strategy != "normal")
    some = alone > 0
    wanted = (modality,) if isinstance(modality, int) else modality
    assert set(alone[some].tolist()) == (set(wanted) if strategy != "normal" else set())
    assert bool(PRESENCE[batch.entity[some], alone[some]].all())
    assert bool(PRESENCE[ends(batch)[some], alone[some]].all())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_negative_is_its_positive_or_known(strategy: str) -> None:
    batch = drawn(strategy, modality=(1, 2))
    assert bool((batch.entity != ends(batch)).all())
    negatives = batch.triples(TRAIN).flatten(0, 1)
    assert not bool((negatives.unsqueeze(1) == TRAIN).all(2).any())
    # A negative differs where both its own entity and the drawn one have a corrupted modality.
    differs = batch.modality & PRESENCE[batch.entity] & PRESENCE[ends(batch)]
    assert bool(differs.any(2).all())


@pytest.mark.parametrize("K", [1, 4, 7, 64])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.77, 1.0])
def test_hybrid_shares_are_exact_for_any_number_of_negatives(share: float, K: int) -> None:
    kind = sampler("hybrid", share=share, K=K)
    batch = kind.sample(TRAIN, seed=3)
    eligible = PRESENCE[ends(batch), 1]
    chosen = single(batch) > 0
    assert int(chosen.sum()) == round(share * int(eligible.sum()))
    assert kind.delivered == (eligible.numel(), int(eligible.sum()), (0, int(chosen.sum()), 0))
    by_positive = (chosen.sum(1) - share * eligible.sum(1)).abs()
    assert float(by_positive.max()) <= 1


def test_sides_are_those_of_the_base() -> None:
    plain = UniformNegativeSampler(N, R, 6, known=TRAIN).sample(TRAIN, seed=5, step=1)
    for strategy in STRATEGIES:
        batch = drawn(strategy)
        assert torch.equal(batch.side, plain.side)
        everywhere = single(batch) == 0
        assert torch.equal(batch.entity[everywhere], plain.entity[everywhere])


def test_two_stage_switches_when_the_share_of_the_run_is_done() -> None:
    kind = sampler("two-stage", share=0.3)
    visual, normal = (single(drawn(strategy)) for strategy in ("visual", "normal"))
    for progress, expected in ((0.0, visual), (0.299, visual), (0.3, normal), (1.0, normal)):
        assert torch.equal(single(kind.sample(TRAIN, seed=5, step=1, progress=progress)), expected), progress


@pytest.mark.parametrize("K", [1, 5])
def test_adaptive_chooses_as_many_as_pass_or_those_that_pass(K: int) -> None:
    found = {}
    for rule in ("share", "rows"):
        kind = sampler("adaptive", rule=rule, K=K, modality=2)
        batch = kind.sample(TRAIN, seed=5)
        assert bool(batch.modality.all())
        intra, inter = scores(batch)
        inter[::7] = intra[::7]
        eligible = PRESENCE[ends(batch), 2] & PRESENCE[batch.entity, 2]
        passes = eligible & (inter < intra)
        chosen = kind.choose(batch, intra.requires_grad_(), inter)
        assert torch.equal(chosen.entity, batch.entity)
        assert int((single(chosen) > 0).sum()) == int(passes.sum())
        assert kind.delivered == (passes.numel(), int(eligible.sum()), (0, 0, int(passes.sum())))
        found[rule] = single(chosen) > 0
        assert bool((found[rule] <= eligible).all())
    assert torch.equal(found["rows"], passes)
    assert not torch.equal(found["share"], passes)


def test_several_modalities_take_turns_where_an_end_has_both() -> None:
    # Every second negative is chosen, so turns by place would always be the same one's.
    everyone = torch.ones(N, 3, dtype=torch.bool)
    kind = ModalityAwareNegativeSampler(UniformNegativeSampler(N, R, 6), everyone, share=0.5, modality=(1, 2))
    kind.sample(TRAIN, seed=1)
    _, eligible, by_modality = kind.delivered
    assert by_modality[0] == 0
    assert abs(by_modality[1] - by_modality[2]) <= 1
    assert sum(by_modality) == round(0.5 * eligible)


def test_without_a_candidate_that_has_the_modality_all_modalities_are_corrupted() -> None:
    # Entities 0, 1, 2 have an image, and of tail 3 the heads 0, 1, 2 are known.
    presence = torch.ones(6, 2, dtype=torch.bool)
    presence[3:, 1] = False
    known = torch.tensor([[0, 0, 3], [1, 0, 3], [2, 0, 3]])
    kind = ModalityAwareNegativeSampler(UniformNegativeSampler(6, 1, 50, known=known), presence, strategy="visual")
    batch = kind.sample(known[:1], seed=0)
    heads = batch.side == 0
    assert not bool(single(batch).any())
    assert set(batch.entity[heads].tolist()) == {3, 4, 5}
    assert kind.delivered == (50, int(heads.sum()), (0, 0))
    assert kind.delivered.share == 0.0


def test_constraints_and_modality_hold_together() -> None:
    constraints = TypeConstraints.from_lists([list(range(1, 30))] * (R - 1) + [[]], [[]] * R, num_entities=N)
    batch = drawn("visual", base={"constraints": constraints, "known": None})
    alone, heads = single(batch) > 0, batch.side == 0
    listed = heads & (TRAIN[:, 1:2] < R - 1)
    assert set(batch.entity[listed & alone].tolist()) == {e for e in range(1, 30) if e % 3}
    assert set(batch.entity[listed & ~alone].tolist()) == set(range(1, 30))
    assert set(batch.entity[~heads & alone].tolist()) == set(PRESENCE[:, 1].nonzero().flatten().tolist())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_backends_agree(strategy: str) -> None:
    found = []
    for backend in ("reference", "auto"):
        with using_backend(backend):
            found.append(drawn(strategy, modality=(2, 1)))
    assert all(torch.equal(x, y) for x, y in zip(found[0][:3], found[1][:3], strict=True))


def test_counts_add_up_until_they_are_reset() -> None:
    kind = sampler("visual")
    assert kind.delivered == (0, 0, (0, 0, 0))
    assert kind.delivered.share == 0
    for step in range(2):
        kind.sample(TRAIN, seed=0, step=step)
    assert kind.delivered.negatives == 2 * TRAIN.shape[0] * 6
    assert kind.delivered.share == 1
    kind.reset_delivered()
    assert kind.delivered.negatives == 0


def test_no_positives() -> None:
    for strategy in STRATEGIES:
        kind = sampler(strategy)
        batch = kind.sample(TRAIN[:0], seed=0)
        if strategy == "adaptive":
            batch = kind.choose(batch, *scores(batch))
        assert batch.modality.shape == (0, 6, 3)


def test_bernoulli_as_base() -> None:
    base = BernoulliNegativeSampler(TRAIN, N, R, 4, known=TRAIN)
    batch = ModalityAwareNegativeSampler(base, PRESENCE, strategy="visual").sample(TRAIN, seed=2)
    assert torch.equal(batch.side, base.sample(TRAIN, seed=2).side)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cuda_draws_the_same(strategy: str) -> None:
    kind = sampler(strategy)
    batch = kind.sample(TRAIN.cuda(), seed=5, step=1)
    if strategy == "adaptive":
        batch = kind.choose(batch, *(x.cuda() for x in scores(batch)))
    assert all(torch.equal(x.cpu(), y) for x, y in zip(batch[:3], drawn(strategy)[:3], strict=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategy": "mans"}, ConfigError, r"argument strategy: unknown strategy 'mans'; known: adaptive, hybrid"),
        ({"rule": "row"}, ConfigError, r"argument rule: unknown rule 'row'.*Did you mean 'rows'"),
        ({"share": 1.5}, ConfigError, r"share: must be a finite number at least 0 and at most 1, got 1\.5"),
        ({"modality": 3}, ConfigError, r"modality: must be a whole number in \[1, 3\), got 3"),
        ({"modality": 0}, ConfigError, r"modality: must be a whole number in \[1, 3\), got 0"),
        ({"modality": ()}, ConfigError, r"modality: at least one must be corrupted, got \(\)"),
        ({"presence": PRESENCE[:5]}, ShapeError, r"presence: expected shape \(40, M\), got \(5, 3\)"),
        ({"presence": torch.ones(N, 129, dtype=torch.bool)}, ConfigError, r"presence: at most 128 modalities, got 129"),
        ({"presence": PRESENCE.float()}, ShapeError, r"presence: expected dtype bool, got float32"),
        ({"presence": PRESENCE[:, 1:]}, ConfigError, r"presence: modality 0 is the structure.*got False for entity 0"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    presence = options.get("presence", PRESENCE)
    rest = {name: value for name, value in options.items() if name != "presence"}
    with pytest.raises(error, match=f"ModalityAwareNegativeSampler, {message}"):
        ModalityAwareNegativeSampler(UniformNegativeSampler(N, R), presence, **rest)


def test_wrong_calls() -> None:
    with pytest.raises(ConfigError, match=r"progress: must be a finite number .* got 1\.2"):
        sampler("two-stage").sample(TRAIN, seed=0, progress=1.2)
    hybrid = sampler("hybrid").sample(TRAIN, seed=0)
    with pytest.raises(ConfigError, match=r"choose: .* got strategy 'hybrid'"):
        sampler("hybrid").choose(hybrid, *scores(hybrid))
    kind = sampler("adaptive")
    with pytest.raises(ConfigError, match=r"choose: .* got negatives without eligible"):
        kind.choose(hybrid, *scores(hybrid))
    batch = kind.sample(TRAIN, seed=0)
    with pytest.raises(ShapeError, match=r"choose, inter: expected shape \(\d+, 6\), got \(2, 6\)"):
        kind.choose(batch, scores(batch)[0], torch.zeros(2, 6))
