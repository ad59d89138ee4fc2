from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from hgmm.kernels import _triton_rows, neighbor_mean
from tests.kernels.against_reference import (
    backend,
    gradients,
    name_of,
    nan_goes_as_in_the_reference,
    same_when_compiled,
    strided,
)
from tests.kernels.cases import CASES, Case, generator, presence
from tests.kernels.on_triton import (
    EMPTY,
    GRAPHS,
    NAN_CASE,
    SHARES,
    SIZES,
    check,
    relation_there,
    same_bits_and_inputs,
    share_rows,
    there,
)
from tests.kernels.pairwise import pairwise
from tests.kernels.problems import BAD, FUNCTIONS, NEIGHBOR_DTYPES, NEIGHBORS
from tests.kernels.problems import neighbor_call as call
from tests.kernels.problems import neighbor_leaves as leaves_of

pytestmark = pytest.mark.usefixtures("triton")
AXES: dict[str, Any] = {
    **NEIGHBORS,
    "graph": tuple(GRAPHS),
    "M": (*SIZES["M"], 9),
    "D": (1, 5, 40, 130),
    "dtype": tuple(NEIGHBOR_DTYPES),
    "index": (torch.int32, torch.int64),
    "contiguous": (True, False),
    "shares": tuple(SHARES),
}


@pytest.mark.parametrize("row", pairwise(AXES), ids=name_of)
def test_equals_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    case = GRAPHS[row["graph"]]
    leaves = leaves_of(case, row["dtype"], row["weight"], M=row["M"], D=row["D"])
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    check(call(case, M=row["M"], function=row["function"], present=row["present"], index=row["index"]), leaves)


@pytest.mark.parametrize("case", EMPTY, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_edges_or_nodes(function: str, case: Case) -> None:
    check(call(case, M=2, function=function), leaves_of(case, "float32", "modality", M=2, D=3))


NAN_AXES: dict[str, Any] = {**NEIGHBORS, "bad": BAD, "shares": tuple(SHARES), "leaf": range(2), "m": (0, 1)}


# The interpreter computes with NumPy, which warns of what this is about.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("row", pairwise(NAN_AXES), ids=name_of)
def test_nan_goes_as_in_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    leaves = there(leaves_of(NAN_CASE, "float32", row["weight"], M=2, D=3))
    run = call(NAN_CASE, M=2, function=row["function"], present=row["present"])
    mask, places = presence(NAN_CASE, row["present"], M=2), [(row["leaf"] % len(leaves), row["m"])]
    nan_goes_as_in_the_reference(run, leaves, row["bad"], places=places, present=mask, sources=(0,), name="triton")


@pytest.mark.exhaustive
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("dtype", NEIGHBOR_DTYPES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_switch_equals_the_reference(
    graph: str, dtype: str, shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_rows(shares, monkeypatch)
    case = GRAPHS[graph]
    for function, present, weight in product(*NEIGHBORS.values()):
        check(call(case, M=3, function=function, present=present), leaves_of(case, dtype, weight, M=3, D=5))


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("weight", [[0.0, 0.0], [2.0, -2.0]])
def test_weights_that_sum_to_zero_give_zero_and_zero_gradients(
    weight: list[float], shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_rows(shares, monkeypatch)
    monkeypatch.setattr(_triton_rows, "LONGEST_ROW", 1 if shares == "split" else 512)
    case = Case((0, 1), (0, 0), 2, 1)
    leaves = there([leaves_of(case, "float32", "none", M=1, D=2)[0], torch.tensor(weight, requires_grad=True)])
    csc = relation_there(case)
    with backend("triton"):
        out = neighbor_mean(csc, leaves[0], edge_weight=leaves[1])
        assert not out.any()
        assert all(not grad.any() for grad in gradients((out,), leaves))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_signed_weights_equal_the_reference(function: str) -> None:
    case = GRAPHS["random"]
    x, weight = leaves_of(case, "float64", "modality", M=3, D=5)
    signs = torch.where(torch.rand(weight.shape, generator=generator(3)) < 0.3, -1.0, 1.0)
    check(call(case, M=3, function=function), [x, (weight.detach() * signs).requires_grad_()])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_runs_do_not_change_a_bit_and_inputs_are_not_written(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = GRAPHS["tiles"]
    same_bits_and_inputs(
        call(case, M=3, function=function), leaves_of(case, "float32", "modality", M=3, D=5), monkeypatch
    )


def test_a_compiled_graph_is_whole_and_gives_the_same_bits() -> None:
    case = CASES["plain"]
    leaves = there(leaves_of(case, "float32", "edge", M=3, D=5))
    run = call(case, M=3, function="mean")
    same_when_compiled(run, leaves, "triton")
