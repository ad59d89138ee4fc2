from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import BackendError
from hgmm.kernels import cross_modal_attention
from hgmm.kernels.cross_modal_attention import cpu
from hgmm.kernels.cross_modal_attention.inputs import Options
from hgmm.typing import RelationCSC
from tests.kernels.against_reference import (
    SIZES,
    STORAGES,
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
from tests.kernels.cases import CASES, Case, generator, node_tensors, presence, relation
from tests.kernels.pairwise import pairwise
from tests.kernels.problems import BAD, CROSS_MODAL, ROWS, of_a_lone_source
from tests.kernels.problems import cross_modal_call as call
from tests.kernels.problems import cross_modal_leaves as leaves_of
from tests.tolerances import TOLERANCE

GRAPHS = {**CASES, "random": random_case()}
AXES: dict[str, Any] = {
    **CROSS_MODAL,
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
    leaves = leaves_of(case, row["storage"], **sizes)
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    switches = {name: row[name] for name in (*CROSS_MODAL, "index")}
    with threads(row["threads"]):
        equals_reference(call(case, M=row["M"], **switches), leaves)


@pytest.mark.exhaustive
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("combine", ROWS)
def test_every_switch_equals_the_reference(combine: str, graph: str, storage: str, isa: str) -> None:
    case = GRAPHS[graph]
    for values in product(*(CROSS_MODAL[name] for name in CROSS_MODAL if name != "combine")):
        switches = dict(zip(("align", "uniform", "present", "weighted"), values, strict=True))
        equals_reference(call(case, M=3, combine=combine, **switches), leaves_of(case, storage, M=3, H=2, D=5))


@pytest.mark.exhaustive
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("combine", ROWS)
@pytest.mark.parametrize("M", SIZES["M"])
def test_every_size_equals_the_reference(M: int, combine: str, storage: str, isa: str) -> None:
    case = GRAPHS["random"]
    for H, D in product(SIZES["H"], SIZES["D"]):
        # Two logits of seed 0 are 1e-8 apart, and the sign of that is a matter of rounding; of seed 6, none so near.
        equals_reference(call(case, M=M, combine=combine), leaves_of(case, storage, M=M, H=H, D=D, seed=6))


@pytest.mark.parametrize("storage", ["float64", "float32", "stored-bfloat16"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", ROWS)
def test_attention_equals_the_reference_where_no_gradient_is_recorded(
    combine: str, present: str, storage: str, isa: str
) -> None:
    case, M = GRAPHS["random"], 3
    leaves = leaves_of(case, storage, M=M, H=2, D=5)
    options: dict[str, Any] = {"combine": combine, "present": presence(case, present), "return_attention": True}
    with torch.no_grad(), backend("cpu"):
        actual = cross_modal_attention(relation(case), *leaves, **options).attn
    with torch.no_grad(), backend("reference"):
        expected = cross_modal_attention(relation(case), *(x.double() for x in leaves), **options).attn
    assert actual is not None
    assert expected is not None
    assert actual.dtype == leaves[1].dtype
    near(actual, expected, actual.dtype)


@pytest.mark.parametrize("inwards", [True, False], ids=["in", "out"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", ROWS)
def test_rows_longer_than_a_tile_equal_the_reference(combine: str, present: str, inwards: bool, isa: str) -> None:
    case = star(9000, inwards=inwards)
    for storage, align in (("float64", True), ("float32", False)):
        leaves = leaves_of(case, storage, M=2, H=2, D=4)
        # Sums of 9,000 float32 numbers lose about the root of that in roundings.
        factor = 1.0 if storage == "float64" else 10.0
        equals_reference(call(case, M=2, combine=combine, align=align, present=present), leaves, factor=factor)


@pytest.mark.parametrize("inwards", [True, False], ids=["in", "out"])
def test_rows_as_long_as_a_tile_equal_the_reference(inwards: bool, isa: str) -> None:
    case = rows_around_a_tile(inwards=inwards)
    equals_reference(call(case, M=8, combine="poster"), leaves_of(case, "float64", M=8, H=64, D=1))


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", ROWS)
def test_attention_of_a_row_longer_than_a_tile_equals_the_reference(combine: str, present: str, isa: str) -> None:
    case, M = star(9000, inwards=True), 2
    leaves = [x.detach() for x in leaves_of(case, "float64", M=M, H=2, D=4)]
    options: dict[str, Any] = {"present": presence(case, present, M=M), "return_attention": True}
    found = []
    for name in ("cpu", "reference"):
        with backend(name):
            found.append(cross_modal_attention(relation(case), *leaves, combine=combine, **options).attn)
    actual, expected = (x for x in found if x is not None)
    # Weights of one edge in 9,000 are small beside the absolute tolerance.
    near(9000 * actual, 9000 * expected, torch.float64)


@pytest.mark.parametrize("size", [100.0, 200.0, 1e4])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", ROWS)
def test_extreme_logits_equal_the_reference(combine: str, present: str, size: float, isa: str) -> None:
    case = CASES["hub"]
    signs = [torch.sign(x.detach()) * math.sqrt(size) for x in node_tensors(case, "sdd", D=1)]
    (v,) = node_tensors(case, "s", D=1)
    leaves = [x.detach().float().requires_grad_() for x in (*signs, v)]
    # A logit of this size is known to within size * eps, which is the relative error of its weight; gradients multiply
    # it by keys or queries, which are as large as its root.
    error = size**1.5 * torch.finfo(torch.float32).eps
    factor = max(1.0, error / TOLERANCE[torch.float32][1])
    equals_reference(call(case, M=3, combine=combine, present=present), leaves, factor=factor)


@pytest.mark.parametrize("combine", ROWS)
def test_the_only_source_with_a_modality_gives_all_of_it(combine: str, isa: str) -> None:
    with backend("cpu"):
        assert of_a_lone_source(combine) == 7


NAN_AXES: dict[str, Any] = {
    **CROSS_MODAL,
    "storage": ("float64", "float32", "stored-bfloat16"),
    "bad": BAD,
    "H": (1, 2, 5),
    "isa": ("portable", "avx2"),
}


@pytest.mark.parametrize("row", pairwise(NAN_AXES), ids=name_of)
def test_nan_goes_as_in_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    use_isa(row["isa"], monkeypatch)
    case = CASES["plain"]
    leaves = leaves_of(case, row["storage"], M=3, H=row["H"], D=5)
    run = call(case, M=3, **{name: row[name] for name in CROSS_MODAL})
    nan_goes_as_in_the_reference(run, leaves, row["bad"], present=presence(case, row["present"]), sources=(0, 3))


@pytest.mark.parametrize("combine", ROWS)
def test_what_a_source_lacks_gets_nothing_of_a_gradient_that_is_not_finite(combine: str, isa: str) -> None:
    case, mask = CASES["plain"], presence(CASES["plain"], "some")
    assert mask is not None
    leaves = leaves_of(case, "float32", M=3, H=2, D=5)
    what_is_absent_gets_nothing(call(case, M=3, combine=combine), leaves, present=mask, sources=(0, 3))


@pytest.mark.parametrize("node", [0, 8999], ids=["first-segment", "last-segment"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", ROWS)
def test_nan_goes_through_the_parts_of_a_long_row(combine: str, present: str, node: int, isa: str) -> None:
    case, M = star(9000, inwards=True), 2
    mask = torch.ones(case.num_src, M, dtype=torch.bool) if present == "some" else None
    if mask is not None:
        mask[5] = False
    k, q_node, q_modal, v = (x.detach() for x in leaves_of(case, "float32", M=M, H=2, D=4))
    k[node, 0] = math.nan
    leaves = [x.requires_grad_() for x in (k, q_node, q_modal, v)]
    with backend("cpu"):
        result = cross_modal_attention(relation(case), *leaves, present=mask, combine=combine)
        attn = cross_modal_attention(
            relation(case), *(x.detach() for x in leaves), present=mask, combine=combine, return_attention=True
        ).attn
    # The long row is that of destination 1; the sources 3 and 4 alone enter the others.
    assert result.out[1].isnan().all()
    assert not result.out[[0, 2]].isnan().any()
    assert attn is not None
    into_1 = relation(case).indptr[1:3].tolist()
    there = attn[slice(*into_1)].isnan().all(1)
    # A source that has no modality stands outside.
    assert there.tolist() == [mask is None or bool(mask[e].any()) for e in range(9000)]
    for x, row in zip(gradients(result[:1], leaves), (node, 1, 1, node), strict=True):
        assert x[row].isnan().all()


@pytest.mark.parametrize("present", ["none", "all", "some"])
@pytest.mark.parametrize("combine", ROWS)
def test_attention_has_the_nan_of_the_reference(combine: str, present: str, isa: str) -> None:
    case = CASES["plain"]
    leaves = [x.detach() for x in leaves_of(case, "float32", M=3, H=2, D=5)]
    options: dict[str, Any] = {"combine": combine, "present": presence(case, present), "return_attention": True}
    for m in range(3):
        k = leaves[0].clone()
        k[1, m, 0, 0] = math.nan
        found = []
        for name in ("cpu", "reference"):
            with backend(name):
                found.append(cross_modal_attention(relation(case), k, *leaves[1:], **options).attn)
        actual, expected = (x.isnan() for x in found if x is not None)
        assert expected.any()
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("size", [1e3, 2e4, 1e6])
def test_large_weights_of_sharp_lose_in_the_backward_pass_what_the_documentation_says(size: float, isa: str) -> None:
    # Both modalities' logits are `size` apart, the same on all edges, so w is -size - log 3 and beta 1/3.
    k = torch.tensor([size / 2, -size / 2]).view(1, 2, 1, 1).expand(3, -1, -1, -1)
    q, v = torch.ones(1, 2, 1, 1), torch.ones(3, 2, 1, 1, requires_grad=True)
    csc = relation(Case((0, 1, 2), (0, 0, 0), 3, 1))
    with backend("cpu"):
        out = cross_modal_attention(csc, k, q, q, v, combine="sharp").out
    (grad,) = torch.autograd.grad(out.sum(), v)
    error = float((3 * grad - 1).abs().max())
    # The forward pass subtracts the maximum and loses nothing; 1e-6 are roundings that do not grow.
    assert torch.allclose(out, torch.ones(()), rtol=1e-6)
    assert error <= math.expm1(size * 2**-24) + 1e-6
    assert (error > 1e-4) == (size > 1e3)


def large() -> tuple[RelationCSC, list[Tensor], dict[str, Any]]:
    case = random_case(300, 200, 6000)
    case = case._replace(dst=tuple(0 if e < 2500 else d for e, d in enumerate(case.dst)))
    weight = torch.rand(case.num_src, 3, generator=generator(4))
    options = {"combine": "sharp", "present": presence(case, "some"), "lambda_weight": weight}
    return relation(case), leaves_of(case, "float32", M=3, H=4, D=16), options


@pytest.mark.parametrize("combine", ROWS)
def test_the_number_of_threads_does_not_change_a_bit(combine: str, isa: str) -> None:
    csc, leaves, options = large()
    found = []
    for number in (1, 2, 3):
        with threads(number), backend("cpu"):
            result = cross_modal_attention(csc, *leaves, **{**options, "combine": combine})
            found.append([result.out, result.lambda_sum, *gradients(result, leaves)])
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


@pytest.mark.parametrize("combine", ROWS)
def test_int32_and_int64_indices_give_the_same_bits(combine: str, isa: str) -> None:
    case = GRAPHS["random"]
    leaves = leaves_of(case, "float32", M=3, H=2, D=5)
    with backend("cpu"):
        a, b = (call(case, M=3, combine=combine, index=index)(*leaves) for index in (torch.int32, torch.int64))
    for x, y in zip((*a[:2], *gradients(a, leaves)), (*b[:2], *gradients(b, leaves)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("combine", ROWS)
def test_values_of_absent_modalities_do_not_matter_and_inputs_are_not_written(combine: str, isa: str) -> None:
    case = GRAPHS["random"]
    leaves = [x.detach() for x in leaves_of(case, "float32", M=3, H=2, D=5)]
    mask = presence(case, "some")
    assert mask is not None
    absent = ~mask[..., None, None]
    other = [x.masked_fill(absent, 99) if i in (0, 3) else x for i, x in enumerate(leaves)]
    copies = [x.clone() for x in leaves]
    with backend("cpu"):
        results = [call(case, M=3, combine=combine)(*(x.requires_grad_() for x in xs)) for xs in (leaves, other)]
        grads = [gradients(result, xs) for result, xs in zip(results, (leaves, other), strict=True)]
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(x, y) for x, y in zip(*grads, strict=True))
    assert not grads[0][0][absent.expand_as(leaves[0])].any()
    assert all(torch.equal(x, y) for x, y in zip(leaves, copies, strict=True))


def test_nothing_is_allocated_by_edge(isa: str, largest_allocation: Any) -> None:
    found = []
    for edges in (5000, 10000):
        case = random_case(40, 30, edges)
        options = Options("sharp", True, 1.0, False, False)
        k, q_node, q_modal, v = (x.detach() for x in leaves_of(case, "float32", M=2, H=2, D=4))
        weight, mask = torch.rand(case.num_src, 2), presence(case, "some", M=2)
        arguments = (relation(case, torch.int32), k, q_node, q_modal, v, mask, weight, options)
        with largest_allocation() as seen:
            out, lambda_sum, _, stats = cpu.forward(*arguments, False)
            cpu.backward(*arguments, out, stats, torch.ones_like(out), torch.ones_like(lambda_sum), True, True)
        found.append(seen.numel)
    assert 0 < found[0] < 5000
    assert found[0] == found[1]


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
def test_a_compiled_graph_is_whole_and_gives_the_same_bits(index: torch.dtype, isa: str) -> None:
    case = GRAPHS["random"]
    leaves = leaves_of(case, "float32", M=3, H=2, D=5)
    run = call(case, M=3, combine="sharp", index=index)
    same_when_compiled(run, leaves, "auto")


@pytest.mark.parametrize(
    ("M", "options", "message"),
    [
        (2, {"combine": "inf"}, "cpu: combine='inf' runs on the reference only"),
        (9, {"combine": "sum"}, "cpu: at most 8 modalities, got 9"),
        (2, {"combine": "sum", "return_attention": True}, "cpu: the weights of edges are differentiable in the ref"),
    ],
)
def test_what_it_refuses_runs_on_the_reference_under_auto(
    M: int, options: dict[str, Any], message: str, isa: str
) -> None:
    case = CASES["plain"]
    leaves = leaves_of(case, "float64", M=M, H=1, D=2)
    with backend("cpu"), pytest.raises(BackendError, match=message):
        cross_modal_attention(relation(case), *leaves, **options)
    with backend("auto"):
        actual = cross_modal_attention(relation(case), *leaves, **options)
    with backend("reference"):
        assert torch.equal(actual.out, cross_modal_attention(relation(case), *leaves, **options).out)
