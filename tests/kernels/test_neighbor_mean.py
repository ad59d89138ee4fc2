from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hgmm.errors import ShapeError
from hgmm.kernels import neighbor_mean, neighbor_sum
from hgmm.kernels.neighbor_mean import NeighborInputs
from tests.kernels.cases import CASES, Case, generator, gradients, presence, relation
from tests.oracles import neighbor_mean_oracle
from tests.tolerances import close

PLAIN = CASES["plain"]
FUNCTIONS = (neighbor_sum, neighbor_mean)
Function = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")


def features(case: Case, *, M: int = 3, D: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(case.num_src, M, D, generator=generator(1), dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def weights(case: Case, kind: str, *, M: int = 3, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """No weights, positive ones an edge, or ones an edge and modality of either sign."""
    if kind == "none":
        return None
    shape = (len(case.src),) if kind == "edge" else (len(case.src), M)
    weight = torch.rand(shape, generator=generator(2), dtype=torch.float64) + 0.1
    if kind == "modality":
        weight = weight * torch.where(torch.rand(shape, generator=generator(3)) < 0.3, -1, 1)
    return weight.to(dtype).requires_grad_()


@pytest.mark.parametrize("kind", ["none", "edge", "modality"])
@pytest.mark.parametrize("present", ["none", "all", "some"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_results_and_gradients_equal_the_oracle(function: Function, name: str, present: str, kind: str) -> None:
    case = CASES[name]
    x, weight, mask = features(case), weights(case, kind), presence(case, present)
    leaves = [x] if weight is None else [x, weight]
    actual = function(relation(case), x, present=mask, edge_weight=weight)
    mean = function is neighbor_mean
    expected = neighbor_mean_oracle(relation(case), x, present=mask, edge_weight=weight, mean=mean)
    close(actual, expected, torch.float64)
    for a, b in zip(gradients((actual,), leaves), gradients((expected,), leaves), strict=True):
        close(a, b, torch.float64)


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradcheck_twice(function: Function, present: str) -> None:
    case = Case((1, 2, 0, 3, 2), (0, 0, 0, 1, 1), 4, 3)
    mask = presence(case, present, M=2)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return function(relation(case), x, present=mask, edge_weight=weight)

    leaves = (features(case, M=2, D=2), weights(case, "modality", M=2))
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("weight", [[0.0, 0.0], [2.0, -2.0]])
def test_weights_that_sum_to_zero_give_zero_and_zero_gradients(weight: list[float]) -> None:
    case = Case((0, 1), (0, 0), 2, 1)
    leaves = [features(case, M=1, D=2), torch.tensor(weight, dtype=torch.float64, requires_grad=True)]
    out = neighbor_mean(relation(case), leaves[0], edge_weight=leaves[1])
    assert not out.any()
    assert all(not grad.any() for grad in gradients((out,), leaves))
    total = neighbor_sum(relation(case), leaves[0], edge_weight=leaves[1])
    assert bool(total.any()) == any(weight)


def test_the_mean_of_equal_features_is_the_feature() -> None:
    case, mask = CASES["hub"], presence(CASES["hub"], "some")
    assert mask is not None
    x = torch.full((case.num_src, 3, 2), 1.5, dtype=torch.float64)
    out = neighbor_mean(relation(case), x, present=mask, edge_weight=weights(case, "edge"))
    reached = neighbor_sum(relation(case), torch.ones_like(x), present=mask) > 0
    close(out, torch.where(reached, 1.5, 0.0), torch.float64)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_of_absent_modalities_do_not_matter(function: Function) -> None:
    mask, x = presence(PLAIN, "some"), features(PLAIN).detach()
    assert mask is not None
    other = x.masked_fill(~mask.unsqueeze(-1), 99)
    assert torch.equal(function(relation(PLAIN), x, present=mask), function(relation(PLAIN), other, present=mask))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_int32_and_int64_indices_give_the_same_bits(function: Function) -> None:
    x = features(PLAIN)
    a, b = (function(relation(PLAIN, index), x) for index in (torch.int32, torch.int64))
    assert torch.equal(a, b)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_inputs_may_have_any_strides_and_are_not_written(function: Function) -> None:
    x, weight = features(PLAIN).detach(), weights(PLAIN, "modality")
    assert weight is not None
    arguments = [x.transpose(0, 2).contiguous().transpose(0, 2), weight.detach().t().contiguous().t()]
    copies = [y.clone() for y in arguments]
    assert not any(y.is_contiguous() for y in arguments)
    out = function(relation(PLAIN), arguments[0], edge_weight=arguments[1])
    assert torch.equal(out, function(relation(PLAIN), x, edge_weight=weight))
    assert all(torch.equal(y, copy) for y, copy in zip(arguments, copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_lower_precision_accumulates_in_float32(function: Function, dtype: torch.dtype) -> None:
    case = CASES["hub"]
    x, weight = features(case, dtype=dtype), weights(case, "edge", dtype=dtype)
    assert weight is not None
    out = function(relation(case), x, edge_weight=weight)
    assert out.dtype == dtype
    close(out, function(relation(case), x.double(), edge_weight=weight.double()), dtype)
    assert [grad.dtype for grad in gradients((out,), [x, weight])] == [dtype, dtype]


def test_inputs_describe_themselves() -> None:
    inputs = NeighborInputs(relation(PLAIN), features(PLAIN, dtype=torch.float32), None, None, True)
    assert str(inputs) == "x float32 (6, 3, 5) on cpu, 10 edges, present None, edge_weight None"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("csc", relation(PLAIN)._replace(indptr=torch.zeros(3, dtype=torch.int64)), "number of edges, 10, got 0 to 0"),
        ("x", torch.zeros(7, 3, 5), r"N_src = 6 .* got \(7, 3, 5\)"),
        ("x", torch.zeros(6, 3), r"N_src = 6 .* got \(6, 3\)"),
        ("x", torch.zeros(6, 0, 5), r"at least 1, got \(6, 0, 5\)"),
        ("x", torch.zeros(6, 3, 5, dtype=torch.int64), r"float16 .* got int64 \(6, 3, 5\)"),
        ("x", torch.zeros(6, 3, 5, device="meta"), "device of csc, cpu, got .* on meta"),
        ("present", torch.ones(6, 2, dtype=torch.bool), r"\(N_src, M\) = \(6, 3\), got \(6, 2\); .* csc and x"),
        ("x", np.zeros((6, 3, 5), np.float32), "torch.Tensor, got ndarray"),
        ("x", torch.zeros(6, 3, 5).to_sparse(), "dense tensor, got torch.sparse_coo"),
        ("csc", tuple(relation(PLAIN)), "RelationCSC, got tuple"),
        ("edge_weight", torch.zeros(9), r"\(E,\) = \(10,\), got \(9,\)"),
        ("edge_weight", torch.zeros(10, 2), r"\(E, M\) = \(10, 3\), got \(10, 2\)"),
        ("edge_weight", torch.zeros(10, dtype=torch.float64), "dtype float32, got float64"),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_tensors(function: Function, name: str, value: Any, message: str) -> None:
    arguments = {"csc": relation(PLAIN), "x": features(PLAIN, dtype=torch.float32), name: value}
    with pytest.raises(ShapeError, match=f"{function.__name__}, argument {name}.*: expected .*{message}"):
        function(**arguments)
