"""Comparison of a compiled backend with the reference: results and every gradient."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.kernels import _native
from hgmm.kernels._checks import HALF_DTYPES
from hgmm.settings import using_backend as backend
from tests.kernels.cases import Case, generator
from tests.tolerances import TOLERANCE

# Dtype of keys and values, and of queries.
STORAGES = {
    "float64": (torch.float64, torch.float64),
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float16": (torch.float16, torch.float16),
    "stored-bfloat16": (torch.bfloat16, torch.float32),
    "stored-float16": (torch.float16, torch.float32),
}
SIZES = {"M": range(1, 9), "H": (1, 2, 3, 4, 5, 8), "D": (1, 3, 4, 7, 8, 12, 16, 31, 32, 40, 64)}

Results = tuple[Tensor | None, ...]


def use_isa(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the compiled kernels on one library for the rest of the test.

    The test is skipped where the library is missing, and fails if ``HGMM_REQUIRE_NATIVE=1`` says that it must be there.
    """
    monkeypatch.setenv("HGMM_CPU_ISA", name)
    reason = _native.missing_reason()
    if reason is None:
        return
    if os.environ.get("HGMM_REQUIRE_NATIVE") == "1" and "this processor lacks" not in reason:
        pytest.fail(f"HGMM_REQUIRE_NATIVE=1, but with HGMM_CPU_ISA={name}: {reason}")
    pytest.skip(reason)


def name_of(row: dict[str, Any]) -> str:
    """Name a combination of options by its values."""
    return "-".join(str(value).removeprefix("torch.") for value in row.values())


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def random_case(num_src: int = 30, num_dst: int = 20, edges: int = 150, seed: int = 8) -> Case:
    """Edges drawn with repetition; a tenth of them enters destination 1, a tenth leaves source 2."""
    rng = generator(seed)
    src, dst = (torch.randint(nodes, (edges,), generator=rng) for nodes in (num_src, num_dst))
    dst[: edges // 10] = 1
    src[-(edges // 10) :] = 2
    return Case(tuple(src.tolist()), tuple(dst.tolist()), num_src, num_dst)


def star(edges: int, *, inwards: bool) -> Case:
    """One node that holds nearly all edges, among a few others."""
    many, one = tuple(range(edges)), (1,) * edges
    if inwards:
        return Case((*many, 3, 4), (*one, 0, 2), edges, 3)
    return Case((*one, 0, 2), (*many, 3, 4), 3, edges)


def rows_around_a_tile(*, inwards: bool) -> Case:
    """Rows of 8 to 40 edges: of 8 modalities and 64 heads in float64, 14 to 25 edges fill a tile of the CPU kernels."""
    one = tuple(i for i in range(33) for _ in range(8 + i))
    other = tuple(7 * e % 50 for e in range(len(one)))
    return Case(other, one, 50, 33) if inwards else Case(one, other, 33, 50)


def strided(x: Tensor) -> Tensor:
    """Return a leaf with the same numbers, its first and last dimension swapped in memory."""
    return x.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_(x.requires_grad)


def gradients(results: Results, leaves: Sequence[Tensor], seed: int = 2) -> list[Tensor]:
    """Gradients of a random linear form of all results, whose factors every dtype holds exactly."""
    rng = generator(seed)
    outputs, factors = [], []
    for x in results:
        if x is not None:
            factor = torch.randn(x.shape, generator=rng, dtype=torch.float64).bfloat16()
            if x.requires_grad:
                outputs.append(x)
                factors.append(factor.to(x))
    if not outputs:
        return [torch.zeros_like(x) for x in leaves]
    return list(torch.autograd.grad(outputs, leaves, factors, allow_unused=True, materialize_grads=True))


def near(actual: Tensor, expected: Tensor, dtype: torch.dtype, *, factor: float = 1.0) -> None:
    """Assert that two tensors agree within the tolerance of `dtype` for numbers as large as the largest here."""
    rtol, atol = (factor * x for x in TOLERANCE[dtype])
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol * max(1.0, largest))


def equals_reference(
    run: Callable[..., Results], leaves: Sequence[Tensor], *, factor: float = 1.0, name: str = "cpu"
) -> None:
    """Run the backend `name` on `leaves` and the reference on the same numbers in float64, and compare all there is.

    `run` maps leaves to results; it gets float64 leaves for the reference and casts what else it needs.
    """
    wide = [x.detach().double().requires_grad_() for x in leaves]
    with backend(name):
        actual = run(*leaves)
        actual_grads = gradients(actual, leaves)
    with backend("reference"):
        expected = run(*wide)
        expected_grads = gradients(expected, wide)
    for x, y in zip(actual, expected, strict=True):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            near(x, y, x.dtype, factor=factor)
    lowest = max((x.dtype for x in actual if x is not None), key=_tolerance)
    if lowest in HALF_DTYPES:
        # The backward pass takes <grad, out> from the rounded result: D roundings, of which the root adds up; of the
        # thousands of sums in all sizes the farthest lie at three times that.
        factor *= 4 * max(1.0, leaves[0].shape[-1] ** 0.5)
    for x, y, leaf in zip(actual_grads, expected_grads, leaves, strict=True):
        assert x.dtype == leaf.dtype
        near(x, y, max(lowest, leaf.dtype, key=_tolerance), factor=factor)


def nan_goes_as_in_the_reference(
    run: Callable[..., Results],
    leaves: Sequence[Tensor],
    bad: float,
    *,
    places: Sequence[tuple[int, int]] | None = None,
    present: Tensor | None = None,
    sources: Sequence[int] = (),
    by_edge: Sequence[int] = (),
    name: str = "cpu",
) -> None:
    """Put `bad` into row 1 of one leaf and modality after the other: no NaN of the reference may be lost.

    `places` are leaves and modalities, by default all. A NaN must not go further either, except that gradients of the
    leaves `by_edge` may get it for the whole of a row. Gradients of the leaves `sources` are 0 where `present` is
    false, whatever the rest of the row is.
    """
    reached = 0
    everywhere = list(product(range(len(leaves)), range(leaves[0].shape[1])))
    for i, m in everywhere if places is None else places:
        changed = [x.detach().clone() for x in leaves]
        changed[i][(1, m)[: changed[i].dim()]].view(-1)[-1] = bad
        for x in changed:
            x.requires_grad_()
        found = []
        for backend_name in (name, "reference"):
            with backend(backend_name):
                results = run(*changed)
            found.append(([x for x in results if x is not None], gradients(results, changed)))
        (actual, actual_grads), (expected, expected_grads) = found
        reached += int(expected[0].isnan().any())
        for x, y in zip(actual, expected, strict=True):
            assert not (y.isnan() & ~x.isnan()).any()
            assert math.isinf(bad) or torch.equal(x.isnan(), y.isnan())
        for j, (x, y) in enumerate(zip(actual_grads, expected_grads, strict=True)):
            assert math.isinf(bad) or j in by_edge or not (x.isnan() & ~y.isnan()).any()
            lost = y.isnan() & ~x.isnan()
            if present is not None and j in sources:
                assert not x[~present].any()
                lost = lost[present]
            assert not lost.any()
    assert reached or math.isinf(bad) or places is not None


def what_is_absent_gets_nothing(
    run: Callable[..., Results], leaves: Sequence[Tensor], *, present: Tensor, sources: Sequence[int], name: str = "cpu"
) -> None:
    """Assert that gradients of the leaves `sources` are 0 where `present` is false, if what comes in is not finite."""
    for bad in (math.nan, math.inf):
        with backend(name):
            out = run(*leaves)[0]
            assert out is not None
            grads = torch.autograd.grad(out, leaves, torch.full_like(out, bad))
        for i in sources:
            assert not grads[i][~present].any()
            assert not grads[i][present].isfinite().all()


def same_when_compiled(run: Callable[..., Results], leaves: Sequence[Tensor], name: str) -> None:
    """Assert that torch.compile finds one whole graph, whose results and gradients have the same bits."""
    torch._dynamo.reset()
    with backend(name):
        expected, actual = run(*leaves), torch.compile(run, fullgraph=True, backend="aot_eager")(*leaves)
    assert "Compiled" in type(actual[0].grad_fn).__name__
    found = [x for x in actual if x is not None]
    assert all(torch.equal(x, y) for x, y in zip(found, (y for y in expected if y is not None), strict=True))
    assert all(torch.equal(x, y) for x, y in zip(gradients(actual, leaves), gradients(expected, leaves), strict=True))


def _tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE[dtype][0]
