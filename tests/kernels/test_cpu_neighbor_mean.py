from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from hgmm.kernels import neighbor_mean
from hgmm.kernels.neighbor_mean import cpu
from tests.kernels.against_reference import (
    SIZES,
    backend,
    equals_reference,
    gradients,
    name_of,
    nan_goes_as_in_the_reference,
    random_case,
    same_when_compiled,
    star,
    strided,
    threads,
    use_isa,
    what_is_absent_gets_nothing,
)
from tests.kernels.cases import CASES, Case, generator, presence, relation
from tests.kernels.pairwise import pairwise
from tests.kernels.problems import BAD, FUNCTIONS, NEIGHBOR_DTYPES, NEIGHBORS
from tests.kernels.problems import neighbor_call as call
from tests.kernels.problems import neighbor_leaves as leaves_of

GRAPHS = {**CASES, "random": random_case()}
AXES: dict[str, Any] = {
    **NEIGHBORS,
    "graph": tuple(GRAPHS),
    "M": (*SIZES["M"], 9),
    "D": SIZES["D"],
    "dtype": tuple(NEIGHBOR_DTYPES),
    "index": (torch.int32, torch.int64),
    "contiguous": (True, False),
    "threads": (1, 2),
    "isa": ("portable", "avx2"),
}


@pytest.mark.parametrize("row", pairwise(AXES), ids=name_of)
def test_equals_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    use_isa(row["isa"], monkeypatch)
    case = GRAPHS[row["graph"]]
    leaves = leaves_of(case, row["dtype"], row["weight"], M=row["M"], D=row["D"])
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    run = call(case, M=row["M"], function=row["function"], present=row["present"], index=row["index"])
    with threads(row["threads"]):
        equals_reference(run, leaves)


NAN_AXES: dict[str, Any] = {
    **NEIGHBORS,
    "dtype": ("float64", "float32", "bfloat16"),
    "bad": BAD,
    "isa": ("portable", "avx2"),
}


@pytest.mark.parametrize("row", pairwise(NAN_AXES), ids=name_of)
def test_nan_goes_as_in_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    use_isa(row["isa"], monkeypatch)
    case = CASES["plain"]
    leaves = leaves_of(case, row["dtype"], row["weight"], M=3, D=5)
    run = call(case, M=3, function=row["function"], present=row["present"])
    nan_goes_as_in_the_reference(run, leaves, row["bad"], present=presence(case, row["present"]), sources=(0,))


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", NEIGHBOR_DTYPES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_switch_equals_the_reference(graph: str, dtype: str, isa: str) -> None:
    case = GRAPHS[graph]
    for function, present, weight in product(*NEIGHBORS.values()):
        leaves = leaves_of(case, dtype, weight, M=3, D=5)
        equals_reference(call(case, M=3, function=function, present=present), leaves)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", NEIGHBOR_DTYPES)
@pytest.mark.parametrize("M", SIZES["M"])
def test_every_size_equals_the_reference(M: int, dtype: str, isa: str) -> None:
    case = GRAPHS["random"]
    for function, D in product(FUNCTIONS, (*SIZES["D"], 128, 384)):
        equals_reference(call(case, M=M, function=function), leaves_of(case, dtype, "modality", M=M, D=D))


@pytest.mark.parametrize("inwards", [True, False], ids=["in", "out"])
@pytest.mark.parametrize("weight", ["none", "edge", "modality"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_rows_longer_than_a_tile_equal_the_reference(function: str, weight: str, inwards: bool, isa: str) -> None:
    case = star(9000, inwards=inwards)
    for dtype, factor in (("float64", 1.0), ("float32", 10.0)):
        equals_reference(call(case, M=2, function=function), leaves_of(case, dtype, weight, M=2, D=8), factor=factor)


@pytest.mark.parametrize("inwards", [True, False], ids=["in", "out"])
def test_rows_as_long_as_a_part_equal_the_reference(inwards: bool, isa: str) -> None:
    # Rows of more than 4,096 edges are cut.
    one = tuple(i for i, degree in enumerate((4095, 4096, 4097)) for _ in range(degree))
    other = tuple(7 * e % 50 for e in range(len(one)))
    case = Case(other, one, 50, 3) if inwards else Case(one, other, 3, 50)
    equals_reference(call(case, M=2, function="mean"), leaves_of(case, "float64", "modality", M=2, D=3))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_a_source_lacks_gets_nothing_of_a_gradient_that_is_not_finite(function: str, isa: str) -> None:
    case, mask = CASES["plain"], presence(CASES["plain"], "some")
    assert mask is not None
    leaves = leaves_of(case, "float32", "modality", M=3, D=5)
    what_is_absent_gets_nothing(call(case, M=3, function=function), leaves, present=mask, sources=(0,))


@pytest.mark.parametrize("weight", [[0.0, 0.0], [2.0, -2.0]])
def test_weights_that_sum_to_zero_give_zero_and_zero_gradients(weight: list[float], isa: str) -> None:
    case = Case((0, 1), (0, 0), 2, 1)
    leaves = [leaves_of(case, "float32", "none", M=1, D=2)[0], torch.tensor(weight, requires_grad=True)]
    with backend("cpu"):
        out = neighbor_mean(relation(case), leaves[0], edge_weight=leaves[1])
        assert not out.any()
        assert all(not grad.any() for grad in gradients((out,), leaves))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_signed_weights_equal_the_reference(function: str, isa: str) -> None:
    case = GRAPHS["random"]
    x, weight = leaves_of(case, "float64", "modality", M=3, D=5)
    signs = torch.where(torch.rand(weight.shape, generator=generator(3)) < 0.3, -1.0, 1.0)
    equals_reference(call(case, M=3, function=function), [x, (weight.detach() * signs).requires_grad_()])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_number_of_threads_does_not_change_a_bit(function: str, isa: str) -> None:
    case = random_case(300, 200, 12000)
    case = case._replace(dst=tuple(0 if e < 5000 else d for e, d in enumerate(case.dst)))
    leaves = leaves_of(case, "float32", "modality", M=3, D=16)
    found = []
    for number in (1, 2, 3):
        with threads(number), backend("cpu"):
            result = call(case, M=3, function=function)(*leaves)
            found.append([result[0], *gradients(result, leaves)])
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_of_absent_modalities_do_not_matter_and_inputs_are_not_written(function: str, isa: str) -> None:
    case = GRAPHS["random"]
    x, weight = (y.detach() for y in leaves_of(case, "float32", "modality", M=3, D=5))
    mask = presence(case, "some")
    assert mask is not None
    other = x.masked_fill(~mask.unsqueeze(-1), 99)
    copies = [x.clone(), weight.clone()]
    pairs = [(y.requires_grad_(), weight.requires_grad_()) for y in (x, other)]
    with backend("cpu"):
        results = [call(case, M=3, function=function)(*pair) for pair in pairs]
        grads = [gradients(result, pair) for result, pair in zip(results, pairs, strict=True)]
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert not grads[0][0][~mask].any()
    assert all(torch.equal(a, b) for a, b in zip((x, weight), copies, strict=True))


def test_nothing_is_allocated_by_edge(isa: str, largest_allocation: Any) -> None:
    found = []
    for edges in (5000, 10000):
        case = random_case(40, 30, edges)
        (x,) = (y.detach() for y in leaves_of(case, "float32", "none", M=2, D=8))
        arguments = (relation(case, torch.int32), x, presence(case, "some", M=2), None, True)
        with largest_allocation() as seen:
            out, total = cpu.forward(*arguments)
            cpu.backward(*arguments, out, total, torch.ones_like(out), True, False)
        found.append(seen.numel)
    assert 0 < found[0] < 5000
    assert found[0] == found[1]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
def test_a_compiled_graph_is_whole_and_gives_the_same_bits(index: torch.dtype, function: str, isa: str) -> None:
    case = GRAPHS["random"]
    leaves = leaves_of(case, "float32", "edge", M=3, D=5)
    run = call(case, M=3, function=function, index=index)
    same_when_compiled(run, leaves, "auto")
