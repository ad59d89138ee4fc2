from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.kernels.translational_score import TranslationalInputs, cpu, inputs
from tests.kernels.against_reference import (
    STORAGES,
    backend,
    equals_reference,
    gradients,
    name_of,
    nan_goes_as_in_the_reference,
    same_when_compiled,
    strided,
    threads,
    use_isa,
)
from tests.kernels.pairwise import pairwise
from tests.kernels.problems import BAD, DRAWS, TRANSLATIONAL_NORMS, Draws, translational_ids
from tests.kernels.problems import translational_call as call
from tests.kernels.problems import translational_leaves as leaves_of

# Rows of one query and draws of one entity that are cut into segments.
LONG = {"queries": Draws(2, 9000, 40), "entities": Draws(90, 100, 4, one_entity=True)}
AXES: dict[str, Any] = {
    "norm": TRANSLATIONAL_NORMS,
    "draws": tuple(DRAWS),
    "M": (1, 2, 3),
    # Multiples of two; the halves of complex numbers end anywhere in a vector of eight.
    "D": (2, 4, 6, 8, 10, 16, 30, 32, 40, 64, 100),
    "P": (1, 2, 5),
    "storage": tuple(STORAGES),
    "index": (torch.int32, torch.int64),
    "contiguous": (True, False),
    "threads": (1, 2),
    "isa": ("portable", "avx2"),
}


@pytest.mark.parametrize("row", pairwise(AXES), ids=name_of)
def test_equals_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    use_isa(row["isa"], monkeypatch)
    draws = DRAWS[row["draws"]]
    leaves = leaves_of(draws, row["storage"], M=row["M"], D=row["D"])
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    with threads(row["threads"]):
        equals_reference(call(draws, M=row["M"], P=row["P"], norm=row["norm"], index=row["index"]), leaves)


@pytest.mark.parametrize("D", [1, 5, 7, 9, 31, 33])
@pytest.mark.parametrize("norm", [1, 2])
def test_odd_vectors_equal_the_reference(norm: int, D: int, isa: str) -> None:
    equals_reference(call(DRAWS["plain"], M=2, P=3, norm=norm), leaves_of(DRAWS["plain"], "float32", M=2, D=D))


@pytest.mark.parametrize("storage", ["float64", "stored-bfloat16"])
@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_rows_that_are_cut_equal_the_reference(norm: Any, kind: str, storage: str, isa: str) -> None:
    draws = LONG[kind]
    equals_reference(call(draws, M=2, P=2, norm=norm), leaves_of(draws, storage, M=2, D=8), factor=10)


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_the_number_of_threads_does_not_change_a_bit(norm: Any, kind: str, isa: str) -> None:
    leaves = leaves_of(LONG[kind], "float32", M=2, D=8)
    found = []
    for number in (1, 2, 3):
        with threads(number), backend("cpu"):
            result = call(LONG[kind], M=2, P=2, norm=norm)(*leaves)
            found.append([result[0], *gradients(result, leaves)])
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


@pytest.mark.parametrize("storage", ["float64", "float32", "stored-bfloat16"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_nan_goes_as_in_the_reference(norm: Any, bad: float, storage: str, isa: str) -> None:
    draws = Draws(6, 9, 5)
    nan_goes_as_in_the_reference(
        call(draws, M=2, P=4, norm=norm), leaves_of(draws, storage, M=2, D=10), bad, places=[(0, 0), (0, 1), (1, 0)]
    )


@pytest.mark.parametrize("D", [1, 5, 8, 32, 47, 100])
@pytest.mark.parametrize("storage", ["float64", "float32", "stored-bfloat16"])
@pytest.mark.parametrize("draws", ["plain", "queries"])
def test_differences_of_zero_have_no_slope(draws: str, storage: str, D: int, isa: str) -> None:
    sizes = (DRAWS | LONG)[draws]
    leaves = [x.detach().mul(2).round().clamp(-2, 2).requires_grad_() for x in leaves_of(sizes, storage, M=2, D=D)]
    equals_reference(call(sizes, M=2, P=3, norm=1), leaves)
    # One coordinate of few vectors, so that a row has distances of either kind.
    leaves = leaves_of(sizes, storage, M=2, D=D)
    with torch.no_grad():
        for x in leaves:
            x[:2, ..., D // 2] = 0.5
    equals_reference(call(sizes, M=2, P=3, norm=1), leaves)


def test_signs_that_are_too_many_are_not_kept(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = leaves_of(DRAWS["plain"], "float32", M=2, D=40)
    problem = TranslationalInputs(*leaves, *translational_ids(DRAWS["plain"], M=2, P=3), "1")
    needed = 4 * inputs.sign_words(problem)
    distances = problem.entity.numel() * 3
    assert needed == 4 * (2 * distances + -(-distances // 4))
    for most, words in ((needed, needed // 4), (needed - 1, 0)):
        monkeypatch.setattr(inputs, "_MOST_SIGN_BYTES", most)
        assert inputs.sign_words(problem) == words
        equals_reference(call(DRAWS["plain"], M=2, P=3, norm=1), leaves)
    monkeypatch.undo()
    assert inputs.sign_words(problem._replace(norm="2")) == inputs.sign_words(problem._replace(norm="complex")) == 0


def _signs(problem: TranslationalInputs) -> Tensor:
    return torch.empty(inputs.sign_words(problem), dtype=torch.int32)


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_inputs_are_not_written(norm: Any, isa: str) -> None:
    leaves, ids = leaves_of(DRAWS["plain"], "float32", M=2, D=6), translational_ids(DRAWS["plain"], M=2, P=2)
    before = [x.detach().clone() for x in (*leaves, *ids)]
    problem = TranslationalInputs(*(x.detach() for x in leaves), *ids, str(norm))
    signs = _signs(problem)
    out = cpu.forward(problem, signs)
    grad = torch.ones_like(out)
    kept = out.clone(), signs.clone()
    cpu.backward(problem, signs, out, grad, True, True)
    assert torch.equal(out, kept[0])
    assert torch.equal(signs, kept[1])
    assert torch.equal(grad, torch.ones_like(out))
    assert all(torch.equal(x, y) for x, y in zip((*leaves, *ids), before, strict=True))


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_nothing_is_allocated_by_coordinate_of_a_draw(norm: Any, isa: str, largest_allocation: Any) -> None:
    found = []
    for K in (50, 100):
        draws = Draws(20, K, 30)
        leaves = [x.detach() for x in leaves_of(draws, "float32", M=2, D=64)]
        problem = TranslationalInputs(*leaves, *translational_ids(draws, M=2, P=1), str(norm))
        signs = _signs(problem)
        # A bit a coordinate and a byte a draw, for norm 1 alone.
        assert signs.numel() == (20 * K * 2 + 20 * K // 4 if norm == 1 else 0)
        with largest_allocation() as seen:
            out = cpu.forward(problem, signs)
            cpu.backward(problem, signs, out, out, True, True)
        found.append(seen.numel)
    # The largest are the gradients, which do not grow with the draws.
    assert found == [20 * 2 * 2 * 64] * 2


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_a_compiled_graph_is_whole_and_gives_the_same_bits(norm: Any, isa: str) -> None:
    leaves = leaves_of(DRAWS["plain"], "float32", M=2, D=6)
    same_when_compiled(call(DRAWS["plain"], M=2, P=3, norm=norm), leaves, "auto")
