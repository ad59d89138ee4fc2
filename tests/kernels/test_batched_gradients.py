"""Several gradients in one backward pass, as ``is_grads_batched`` and vectorised Jacobians ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from tests.kernels.against_reference import Results, backend, use_isa
from tests.kernels.cases import Case
from tests.kernels.problems import (
    ROWS,
    cross_modal_call,
    cross_modal_leaves,
    inter_node_call,
    inter_node_leaves,
    neighbor_call,
    neighbor_leaves,
)
from tests.tolerances import close

CASE = Case((1, 2, 0, 3, 2), (0, 0, 0, 1, 1), 4, 3)
SIZES = {"M": 2, "H": 1, "D": 2}
PROBLEMS: dict[str, tuple[Callable[..., Results], Sequence[Tensor]]] = {
    **{
        combine: (cross_modal_call(CASE, M=2, combine=combine), cross_modal_leaves(CASE, "float64", **SIZES))
        for combine in ROWS
    },
    "inter_node_attention": (
        inter_node_call(CASE, M=2, dropout=0.4),
        inter_node_leaves(CASE, "float64", biased=True, **SIZES),
    ),
    "neighbor_mean": (
        neighbor_call(CASE, M=2, function="mean"),
        neighbor_leaves(CASE, "float64", "modality", M=2, D=2),
    ),
}


def function_of(run: Callable[..., Results]) -> Callable[..., Tensor]:
    """Return the results as one vector."""
    return lambda *leaves: torch.cat([x.reshape(-1) for x in run(*leaves) if x is not None])


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_vectorised_jacobian_equals_one_row_after_the_other(
    problem: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "cpu":
        use_isa("portable", monkeypatch)
    run, leaves = PROBLEMS[problem]
    function = function_of(run)
    with backend(name):
        expected = jacobian(function, tuple(leaves))
        actual = jacobian(function, tuple(leaves), vectorize=True)
    assert all(x.any() for x in expected)
    for x, y in zip(actual, expected, strict=True):
        close(x, y, torch.float64)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_vectorised_hessian_of_the_reference_equals_one_row_after_the_other(problem: str) -> None:
    run, leaves = PROBLEMS[problem]
    function = function_of(run)
    with backend("reference"):
        expected, actual = (
            hessian(lambda *x: function(*x).square().sum(), tuple(leaves), vectorize=vectorize)
            for vectorize in (False, True)
        )
    for rows, expected_rows in zip(actual, expected, strict=True):
        for x, y in zip(rows, expected_rows, strict=True):
            assert y.any()
            close(x, y, torch.float64)
