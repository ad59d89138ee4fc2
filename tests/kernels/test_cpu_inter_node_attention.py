from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import BackendError
from hgmm.kernels import cross_modal_attention, inter_node_attention
from hgmm.kernels.inter_node_attention import cpu
from tests.kernels.against_reference import (
    SIZES,
    STORAGES,
    Results,
    backend,
    equals_reference,
    gradients,
    name_of,
    nan_goes_as_in_the_reference,
    near,
    random_case,
    rows_around_a_tile,
    same_when_compiled,
    star,
    strided,
    threads,
    use_isa,
    what_is_absent_gets_nothing,
)
from tests.kernels.cases import CASES, node_tensors, presence, relation
from tests.kernels.pairwise import pairwise
from tests.kernels.problems import BAD, INTER_NODE, SEED, dropout_at_a_word, dropout_of_one_edge
from tests.kernels.problems import inter_node_call as call
from tests.kernels.problems import inter_node_leaves as leaves_of
from tests.tolerances import TOLERANCE

GRAPHS = {**CASES, "random": random_case()}
AXES: dict[str, Any] = {
    **INTER_NODE,
    "graph": tuple(GRAPHS),
    **SIZES,
    "storage": tuple(STORAGES),
    "index": (torch.int32, torch.int64),
    "contiguous": (True, False),
    "threads": (1, 2),
    "isa": ("portable", "avx2"),
}


@pytest.mark.parametrize("row", pairwise(AXES), ids=name_of)
def test_equals_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    use_isa(row["isa"], monkeypatch)
    case, sizes = GRAPHS[row["graph"]], {name: row[name] for name in SIZES}
    leaves = leaves_of(case, row["storage"], biased=row["biased"], **sizes)
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    run = call(case, M=row["M"], present=row["present"], dropout=row["dropout"], index=row["index"])
    with threads(row["threads"]):
        equals_reference(run, leaves)


@pytest.mark.exhaustive
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_switch_equals_the_reference(graph: str, storage: str, isa: str) -> None:
    case = GRAPHS[graph]
    for present, biased, dropout in product(*INTER_NODE.values()):
        leaves = leaves_of(case, storage, M=3, H=2, D=5, biased=biased)
        equals_reference(call(case, M=3, present=present, dropout=dropout), leaves)


@pytest.mark.exhaustive
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("M", SIZES["M"])
def test_every_size_equals_the_reference(M: int, storage: str, isa: str) -> None:
    case = GRAPHS["random"]
    for H, D in product(SIZES["H"], SIZES["D"]):
        equals_reference(call(case, M=M, dropout=0.3), leaves_of(case, storage, M=M, H=H, D=D, biased=True))


@pytest.mark.parametrize("storage", ["float64", "float32", "stored-bfloat16"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_attention_equals_the_reference_where_no_gradient_is_recorded(
    dropout: float, present: str, storage: str, isa: str
) -> None:
    case = GRAPHS["random"]
    leaves = leaves_of(case, storage, M=3, H=5, D=4)
    options: dict[str, Any] = {
        "present": presence(case, present), "dropout": dropout, "seed": SEED, "return_attention": True
    }  # fmt: skip
    with torch.no_grad(), backend("cpu"):
        actual = inter_node_attention(relation(case), *leaves, **options).attn
    with torch.no_grad(), backend("reference"):
        expected = inter_node_attention(relation(case), *(x.double() for x in leaves), **options).attn
    assert actual is not None
    assert expected is not None
    assert actual.dtype == leaves[1].dtype
    near(actual, expected, actual.dtype)
    assert torch.equal(actual == 0, expected == 0)


@pytest.mark.parametrize("combine_options", [{}, {"uniform_nodes": True}], ids=["", "nei"])
@pytest.mark.parametrize("present", ["none", "some"])
def test_the_ablation_cross_equals_the_reference(present: str, combine_options: dict[str, bool], isa: str) -> None:
    case = GRAPHS["random"]
    mask = presence(case, present)

    def run(k: Tensor, q: Tensor, v: Tensor) -> Results:
        return cross_modal_attention(relation(case), k, q, q, v, combine="cross", present=mask, **combine_options)

    equals_reference(run, leaves_of(case, "float64", M=3, H=2, D=5))


@pytest.mark.parametrize("inwards", [True, False], ids=["in", "out"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_rows_longer_than_a_tile_equal_the_reference(dropout: float, present: str, inwards: bool, isa: str) -> None:
    case = star(9000, inwards=inwards)
    for storage, biased in (("float64", True), ("float32", False)):
        leaves = leaves_of(case, storage, M=2, H=2, D=4, biased=biased)
        # Sums of 9,000 float32 numbers lose about the root of that in roundings.
        factor = 1.0 if storage == "float64" else 10.0
        equals_reference(call(case, M=2, present=present, dropout=dropout), leaves, factor=factor)


@pytest.mark.parametrize("inwards", [True, False], ids=["in", "out"])
def test_rows_as_long_as_a_tile_equal_the_reference(inwards: bool, isa: str) -> None:
    case = rows_around_a_tile(inwards=inwards)
    equals_reference(call(case, M=8, dropout=0.4), leaves_of(case, "float64", M=8, H=64, D=1, biased=True))


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_attention_of_a_row_longer_than_a_tile_equals_the_reference(dropout: float, present: str, isa: str) -> None:
    case, M = star(9000, inwards=True), 2
    leaves = [x.detach() for x in leaves_of(case, "float64", M=M, H=2, D=4)]
    options: dict[str, Any] = {"present": presence(case, present, M=M), "return_attention": True}
    found = []
    for name in ("cpu", "reference"):
        with backend(name):
            found.append(inter_node_attention(relation(case), *leaves, dropout=dropout, seed=SEED, **options).attn)
    actual, expected = (x for x in found if x is not None)
    # Weights of one edge in 9,000 are small beside the absolute tolerance.
    near(9000 * actual, 9000 * expected, torch.float64)


@pytest.mark.parametrize("size", [100.0, 1e4])
@pytest.mark.parametrize("present", ["none", "some"])
def test_extreme_logits_equal_the_reference(present: str, size: float, isa: str) -> None:
    case = CASES["hub"]
    signs = [torch.sign(x.detach()) * math.sqrt(size) for x in node_tensors(case, "sd", D=1)]
    (v,) = node_tensors(case, "s", D=1)
    leaves = [x.detach().float().requires_grad_() for x in (*signs, v)]
    # A logit of this size is known to within size * eps, which is the relative error of its weight; gradients multiply
    # it by keys or queries, which are as large as its root.
    error = size**1.5 * torch.finfo(torch.float32).eps
    factor = max(1.0, error / TOLERANCE[torch.float32][1])
    equals_reference(call(case, M=3, present=present), leaves, factor=factor)


@pytest.mark.parametrize("position", [3, 2**31 + 3, 2**32 + 3, 2**40 + 5])
def test_dropout_counts_edges_in_64_bits(position: int, isa: str) -> None:
    with backend("cpu"):
        actual, expected = dropout_of_one_edge(position, 0.5)
    assert torch.equal(actual, expected)


def test_a_random_word_at_the_limit_of_dropout_keeps_its_edge(isa: str) -> None:
    with backend("cpu"):
        actual, expected = dropout_of_one_edge(0, dropout_at_a_word())
    assert actual[0, 0, 0] > 0
    torch.testing.assert_close(actual, expected)


NAN_AXES: dict[str, Any] = {
    **INTER_NODE,
    "storage": ("float64", "float32", "stored-bfloat16"),
    "bad": BAD,
    "isa": ("portable", "avx2"),
}


@pytest.mark.parametrize("row", pairwise(NAN_AXES), ids=name_of)
def test_nan_goes_as_in_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    use_isa(row["isa"], monkeypatch)
    case = CASES["plain"]
    leaves = leaves_of(case, row["storage"], M=3, H=2, D=5, biased=row["biased"])
    run = call(case, M=3, present=row["present"], dropout=row["dropout"])
    mask = presence(case, row["present"])
    nan_goes_as_in_the_reference(run, leaves, row["bad"], present=mask, sources=(0, 2), by_edge=(3,))


def test_what_a_source_lacks_gets_nothing_of_a_gradient_that_is_not_finite(isa: str) -> None:
    case, mask = CASES["plain"], presence(CASES["plain"], "some")
    assert mask is not None
    leaves = leaves_of(case, "float32", M=3, H=2, D=5)
    what_is_absent_gets_nothing(call(case, M=3, dropout=0.4), leaves, present=mask, sources=(0, 2))


@pytest.mark.parametrize("node", [0, 8999], ids=["first-segment", "last-segment"])
def test_nan_goes_through_the_parts_of_a_long_row(node: int, isa: str) -> None:
    case = star(9000, inwards=True)
    k, q, v = (x.detach() for x in leaves_of(case, "float32", M=2, H=2, D=4))
    k[node, 0] = math.nan
    leaves = [x.requires_grad_() for x in (k, q, v)]
    with backend("cpu"):
        result = inter_node_attention(relation(case), *leaves)
    grads = gradients(result, leaves)
    for m in range(2):
        assert bool(result.out[1, m].isnan().all()) == (m == 0)
        for x, row in zip(grads, (node, 1, node), strict=True):
            assert bool(x[row, m].isnan().any()) == bool(x[row, m].isnan().all()) == (m == 0)
    assert not result.out[[0, 2]].isnan().any()


def test_the_number_of_threads_does_not_change_a_bit(isa: str) -> None:
    case = random_case(300, 200, 6000)
    case = case._replace(dst=tuple(0 if e < 2500 else d for e, d in enumerate(case.dst)))
    leaves = leaves_of(case, "float32", M=3, H=4, D=16, biased=True)
    found = []
    for number in (1, 2, 3):
        with threads(number), backend("cpu"):
            result = call(case, M=3, dropout=0.2)(*leaves)
            found.append([result[0], *gradients(result, leaves)])
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


def test_int32_and_int64_indices_give_the_same_bits(isa: str) -> None:
    case = GRAPHS["random"]
    leaves = leaves_of(case, "float32", M=3, H=2, D=5, biased=True)
    with backend("cpu"):
        a, b = (call(case, M=3, dropout=0.2, index=index)(*leaves) for index in (torch.int32, torch.int64))
    for x, y in zip((a[0], *gradients(a, leaves)), (b[0], *gradients(b, leaves)), strict=True):
        assert torch.equal(x, y)


def test_values_of_absent_modalities_do_not_matter_and_inputs_are_not_written(isa: str) -> None:
    case = GRAPHS["random"]
    leaves = [x.detach() for x in leaves_of(case, "float32", M=3, H=2, D=5)]
    mask = presence(case, "some")
    assert mask is not None
    absent = ~mask[..., None, None]
    other = [x.masked_fill(absent, 99) if i in (0, 2) else x for i, x in enumerate(leaves)]
    copies = [x.clone() for x in leaves]
    with backend("cpu"):
        results = [call(case, M=3)(*(x.requires_grad_() for x in xs)) for xs in (leaves, other)]
        grads = [gradients(result, xs) for result, xs in zip(results, (leaves, other), strict=True)]
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(x, y) for x, y in zip(*grads, strict=True))
    assert not grads[0][0][absent.expand_as(leaves[0])].any()
    assert all(torch.equal(x, y) for x, y in zip(leaves, copies, strict=True))


def test_nothing_is_allocated_by_edge(isa: str, largest_allocation: Any) -> None:
    found = []
    for edges in (5000, 10000):
        case = random_case(40, 30, edges)
        k, q, v = (x.detach() for x in leaves_of(case, "float32", M=2, H=2, D=4))
        arguments = (relation(case, torch.int32), k, q, v, presence(case, "some", M=2), None, 0.3, 5)
        with largest_allocation() as seen:
            out, _, lse = cpu.forward(*arguments, False)
            cpu.backward(*arguments, out, lse, torch.ones_like(out), True, True, False)
        found.append(seen.numel)
    assert 0 < found[0] < 5000
    assert found[0] == found[1]


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
def test_a_compiled_graph_is_whole_and_gives_the_same_bits(index: torch.dtype, isa: str) -> None:
    case = GRAPHS["random"]
    leaves = leaves_of(case, "float32", M=3, H=2, D=5, biased=True)
    run = call(case, M=3, dropout=0.3, index=index)
    same_when_compiled(run, leaves, "auto")


@pytest.mark.parametrize(
    ("M", "options", "message"),
    [
        (9, {}, "cpu: at most 8 modalities, got 9"),
        (2, {"return_attention": True}, "cpu: the weights of edges are differentiable in the reference only"),
    ],
)
def test_what_it_refuses_runs_on_the_reference_under_auto(
    M: int, options: dict[str, Any], message: str, isa: str
) -> None:
    case = CASES["plain"]
    leaves = leaves_of(case, "float64", M=M, H=1, D=2)
    with backend("cpu"), pytest.raises(BackendError, match=message):
        inter_node_attention(relation(case), *leaves, **options)
    with backend("auto"):
        actual = inter_node_attention(relation(case), *leaves, **options)
    with backend("reference"):
        assert torch.equal(actual.out, inter_node_attention(relation(case), *leaves, **options).out)
