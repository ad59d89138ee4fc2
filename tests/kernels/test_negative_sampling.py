"""The draws of each backend against loops over Python's integers and sets."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from hgmm.errors import BackendError, ConfigError
from hgmm.kernels import _native
from hgmm.kernels.negative_sampling import DrawInputs, KnownTriples, Pools, cpu, draw_entities, draw_shared, draw_sides
from hgmm.settings import using_backend
from tests.kernels.against_reference import threads
from tests.kernels.cases import generator
from tests.oracles_negative_sampling import Triple, negative_oracle, words

BACKENDS = ("reference", "triton", "cpu")
Lists = dict[tuple[int, int], Sequence[int]]


def all_triples(heads: int, relations: int, tails: int) -> list[Triple]:
    return [(h, r, t) for h in range(heads) for r in range(relations) for t in range(tails)]


def some_triples(count: int, heads: int, relations: int, tails: int, seed: int = 1) -> list[Triple]:
    """Draw with repetition; relation 0 and entity 0 take part in none."""
    ends = (torch.randint(1, max(n, 2), (count,), generator=generator(seed)) for n in (heads, relations, tails))
    return list(zip(*(x.tolist() for x in ends), strict=True))


@dataclass(frozen=True)
class Problem:
    """What negatives are drawn for; relation 0 has the head share 1, relation 1 0.3, all others 0.5."""

    positives: Sequence[Triple]
    num_heads: int = 9
    num_tails: int = 9
    num_relations: int = 3
    known: Sequence[Triple] | None = None
    pools: Sequence[Lists] = ()
    level: int = 0
    K: int = 7
    chunk_size: int = 0

    def head_shares(self) -> list[float]:
        return [1.0, 0.3, *[0.5] * self.num_relations][: self.num_relations]

    def inputs(self, *, seed: int = 5, step: int = 0) -> DrawInputs:
        N = max(self.num_heads, self.num_tails)
        positives = torch.tensor(self.positives, dtype=torch.int64).view(-1, 3)
        known = None
        if self.known is not None:
            rows = torch.tensor(self.known, dtype=torch.int64).view(-1, 3)
            known = KnownTriples.build(rows, num_entities=N, num_relations=self.num_relations)
        below = (torch.tensor(self.head_shares(), dtype=torch.float64) * 2**32).round().long()
        return DrawInputs(
            positives,
            self.K,
            below,
            self.num_heads,
            self.num_tails,
            self._pools(),
            known,
            seed,
            step,
            level=self.levels() if self.level else None,
            first=self.first(),
        )

    def first(self) -> Tensor | None:
        """Entities that a run of positives has in common; all of them are candidates on both sides."""
        if not self.chunk_size:
            return None
        rows, most = -(-len(self.positives) // self.chunk_size), min(self.num_heads, self.num_tails)
        return torch.randint(most, (rows, self.K), generator=generator(4))

    def levels(self) -> Tensor:
        """Level 0 for the first and every third negative after it."""
        level = torch.full((len(self.positives), self.K), self.level, dtype=torch.int8)
        level[:, ::3] = 0
        return level

    def _pools(self) -> Pools | None:
        if not self.pools:
            return None
        table = torch.full((len(self.pools), 2, self.num_relations), -1)
        lists: list[list[int]] = []
        for level, pools in enumerate(self.pools):
            for (side, relation), entities in pools.items():
                table[level, side, relation] = len(lists)
                lists.append(sorted(entities))
        indptr = torch.tensor([0, *(len(x) for x in lists)]).cumsum(0)
        return Pools(table, indptr, torch.tensor([e for x in lists for e in x], dtype=torch.int64))


HALF = [t for t in all_triples(9, 3, 9) if sum(t) % 2]
# All heads but 4 and all tails but 7 make a known triple: attempts mostly run out.
NEARLY_ALL = [t for t in all_triples(40, 2, 40) if t[0] != 4 and t[2] != 7]
MANY = some_triples(300, 60, 4, 50)
# Pairs with one to twelve known tails among 2,000 entities.
SPARSE = [(h, h % 3, (31 * h + 257 * j) % 2000) for h in range(48) for j in range(1 + h % 12)]
PROBLEMS: dict[str, Problem] = {
    "unfiltered": Problem(some_triples(30, 9, 3, 9)),
    "no-positives": Problem([]),
    "nothing-known": Problem([(0, 0, 1), (8, 2, 8)], known=[]),
    "half-known": Problem(HALF[::7], known=HALF),
    "of-unknown-pairs": Problem([(0, 0, 0), (0, 1, 3), (3, 0, 0)], known=some_triples(50, 9, 3, 9)),
    "nearly-all-known": Problem(NEARLY_ALL[::170], 40, 40, 2, known=NEARLY_ALL, K=9),
    "groups-of-any-size": Problem(MANY[:40], 60, 50, 4, known=MANY, K=5),
    "heads-and-tails-apart": Problem([(2, 0, 11), (0, 1, 3)], 3, 12, 2, known=all_triples(2, 2, 7), K=20),
    "words-that-are-refused": Problem([(7, 2, 1)] * 9, 1_500_000_000, 1_431_655_766, K=30),
    "shared": Problem(HALF[::7], known=HALF, chunk_size=4),
    "shared-and-mostly-refused": Problem(NEARLY_ALL[::170], 40, 40, 2, known=NEARLY_ALL, K=9, chunk_size=3),
    "shared-by-all": Problem(MANY[:40], 60, 50, 4, known=MANY, K=5, chunk_size=64),
    # What a filter takes for known at first sight must not be left out.
    "shared-among-many": Problem(SPARSE[::4], 2000, 2000, known=SPARSE, K=64, chunk_size=32),
    "shared-beside-lists": Problem(
        HALF[::5],
        known=HALF,
        level=1,
        pools=[{(0, 0): [1, 5, 8]}, {(s, r): [0, 2, 3, 6] for s in (0, 1) for r in range(3)}],
        chunk_size=2,
    ),
    "two-candidates": Problem([(0, 1, 1), (1, 2, 1)], 2, 2, 3),
    "lists": Problem(HALF[::9], known=HALF, pools=[{(0, 0): [1, 5, 8], (1, 1): [0, 2, 3, 4], (1, 2): range(9)}]),
    # Of relation 1 the only tail in the list is the positive's own, or known.
    "lists-used-up": Problem([(0, 1, 3), (5, 1, 2)], known=[(5, 1, 3), (0, 1, 3)], pools=[{(1, 1): [3]}], K=12),
    "levels": Problem(
        HALF[::5],
        known=HALF,
        level=1,
        pools=[{(0, 0): [1, 5, 8]}, {(s, r): [0, 2, 3, 6] for s in (0, 1) for r in range(3)}],
    ),
    # Level 1 has nothing for tails of relation 1 and level 0 only the own one: from all entities.
    "levels-used-up": Problem(
        [(0, 1, 3), (5, 1, 2), (1, 0, 1)],
        known=[(5, 1, 3)],
        level=1,
        pools=[{(1, 1): [3], (0, 1): [4, 5]}, {(1, 1): [], (0, 1): [5], (0, 0): [1, 6]}],
        K=12,
    ),
}


def expected(problem: Problem, seed: int, step: int) -> tuple[list[list[Any]], list[list[int]], list[list[int]]]:
    known = None if problem.known is None else set(problem.known)
    level, shares = problem.levels() if problem.level else None, problem.head_shares()
    first = problem.first()
    found = [
        [
            negative_oracle(
                triple,
                words(seed, step, i, k),
                head_share=shares[triple[1]],
                num_heads=problem.num_heads,
                num_tails=problem.num_tails,
                known=known,
                pools=problem.pools,
                level=0 if level is None else int(level[i, k]),
                first=None if first is None else int(first[i // -(-len(problem.positives) // len(first)), k]),
            )
            for k in range(problem.K)
        ]
        for i, triple in enumerate(problem.positives)
    ]
    entity, side, levels = ([[one[part] for one in row] for row in found] for part in range(3))
    return entity, side, levels


@pytest.fixture(autouse=True)
def _library(request: pytest.FixtureRequest) -> None:
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    reason = _native.missing_reason()
    if parameters.get("backend") == "cpu" and reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_the_loops(name: str, backend: str) -> None:
    problem, seed, step = PROBLEMS[name], -3, 2**32 - 1
    entity, side, level = expected(problem, seed, step)
    inputs = problem.inputs(seed=seed, step=step)
    with using_backend(backend):
        drawn = draw_entities(inputs)
        assert torch.equal(draw_sides(inputs), drawn.side)
    assert drawn.entity.tolist() == entity
    assert drawn.side.tolist() == side
    assert (drawn.level is None) == (problem.level == 0)
    if drawn.level is not None:
        assert drawn.level.tolist() == level
    assert (drawn.entity.dtype, drawn.side.dtype) == (torch.int64, torch.int8)


def test_the_problems_reach_what_they_are_for() -> None:
    _, _, level = expected(PROBLEMS["levels-used-up"], 5, 0)
    asked = PROBLEMS["levels-used-up"].levels()
    assert 0 < int((torch.tensor(level) < asked).sum()) < int(asked.sum())
    entity, side, _ = expected(PROBLEMS["lists-used-up"], 5, 0)
    assert any(e != 3 for row, sides in zip(entity, side, strict=True) for e, s in zip(row, sides, strict=True) if s)


@pytest.mark.parametrize("name", ["unfiltered", "groups-of-any-size", "nearly-all-known", "levels", "shared"])
def test_threads_and_instruction_sets_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    problem = PROBLEMS[name]
    inputs = replace(
        problem, positives=list(problem.positives) * 20, K=max(4200 // 20 // len(problem.positives), 1) + 9
    )
    with using_backend("reference"):
        expected = draw_entities(inputs.inputs())
    for number in (1, 2, 3):
        with threads(number), using_backend("cpu"):
            drawn = draw_entities(inputs.inputs())
        assert torch.equal(drawn.entity, expected.entity)
        assert torch.equal(drawn.side, expected.side)
        assert (drawn.level is None) == (expected.level is None)
        assert drawn.level is None or torch.equal(drawn.level, torch.as_tensor(expected.level))


def test_what_is_shared_is_uniform_and_different_for_every_chunk_and_step() -> None:
    inputs = Problem([(0, 0, 1)] * 1000, 60, 50, K=40).inputs()
    shared = draw_shared(inputs, 7)
    assert shared.shape == (143, 40)
    counts = torch.bincount(shared.flatten(), minlength=50)
    assert counts.numel() == 50
    assert float(((counts - 143 * 40 / 50) ** 2 / (143 * 40 / 50)).sum()) < chi2.ppf(0.999, 49)
    assert torch.equal(shared, draw_shared(inputs, 7))
    for other in (draw_shared(inputs._replace(step=1), 7), draw_shared(inputs._replace(seed=6), 7), shared.roll(1, 0)):
        assert float((other == shared).double().mean()) < 0.05
    assert draw_shared(inputs._replace(positives=inputs.positives[:0]), 7).shape == (0, 40)


def test_the_library_refuses_what_it_does_not_know(isa: str) -> None:
    args, failed = cpu._DrawArgs(K=0), ctypes.c_int64()
    with pytest.raises(BackendError, match="status -1"):
        _native.call(_native.library().hgmm_draw_negatives, ctypes.byref(args), ctypes.byref(failed))


def test_inputs_are_not_written(isa: str) -> None:
    inputs = PROBLEMS["levels-used-up"].inputs()
    assert inputs.level is not None
    before = inputs.level.clone()
    for backend in ("reference", "cpu"):
        with using_backend(backend):
            draw_entities(inputs)
        assert torch.equal(inputs.level, before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("names", "name"), [(None, "1"), (("likes", "is in"), "'is in'")])
def test_a_positive_without_a_false_triple_names_its_relation(
    names: tuple[str, ...] | None, name: str, backend: str
) -> None:
    known = [t for t in all_triples(5, 2, 5) if t[1] == 0 or t[2] != 4]
    problem = Problem([(0, 0, 4), (1, 1, 2), (1, 1, 4)], 5, 5, 2, known=[t for t in known if t[1]], K=30)
    inputs = problem.inputs()._replace(relation_names=names)
    message = rf"positives: .* in row 1, \(1, 1, 2\) of relation {name}, every other head makes a known one"
    with using_backend(backend), pytest.raises(ConfigError, match=message):
        draw_entities(inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_negative_without_an_entity_is_named_whatever_list_it_came_from(backend: str) -> None:
    full = all_triples(4, 3, 4)
    problem = Problem([(0, 0, 1), (1, 1, 2)], 4, 4, 3, known=full, pools=[{(0, 0): [2, 3]}])
    with using_backend(backend), pytest.raises(ConfigError, match=r"row 0, \(0, 0, 1\) of relation 0, every other hea"):
        draw_entities(problem.inputs())


def test_a_single_candidate_is_the_own_one() -> None:
    with pytest.raises(ConfigError, match=r"row 0, \(0, 0, 0\) of relation 0"):
        draw_entities(Problem([(0, 0, 0)], 1, 1).inputs())


def test_long_complements_are_listed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from hgmm.kernels.negative_sampling import reference

    problem = PROBLEMS["nearly-all-known"]
    whole = reference.run(problem.inputs())
    monkeypatch.setattr(reference, "_LISTED", 50)
    assert torch.equal(reference.run(problem.inputs()).entity, whole.entity)


def test_the_index_of_the_docstring() -> None:
    triples = torch.tensor([[1, 0, 2], [0, 0, 2], [0, 0, 1], [0, 0, 1]])
    known = KnownTriples.build(triples, num_entities=3, num_relations=1)
    assert known.keys.tolist() == [1, 2, 3, 4]
    assert known.indptr.tolist() == [0, 1, 3, 5, 6]
    assert known.flat.tolist() == [0, 3, 4, 7, 8, 11]
    assert known.entities().tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", PROBLEMS)
def test_cuda_draws_the_same(name: str) -> None:
    inputs, cuda = PROBLEMS[name].inputs(), torch.device("cuda")

    def there(x: Any) -> Any:
        if isinstance(x, KnownTriples):
            return x.to(cuda)
        if isinstance(x, Pools):
            return Pools(*map(there, x))
        return x.to(cuda) if isinstance(x, Tensor) else x

    actual = draw_entities(DrawInputs(*map(there, inputs)))
    assert torch.equal(actual.entity.cpu(), draw_entities(inputs).entity)
