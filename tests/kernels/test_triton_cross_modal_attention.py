from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch

from hgmm.errors import BackendError
from hgmm.kernels import cross_modal_attention
from tests.kernels.against_reference import (
    STORAGES,
    backend,
    gradients,
    name_of,
    nan_goes_as_in_the_reference,
    near,
    same_when_compiled,
    strided,
)
from tests.kernels.cases import CASES, Case, node_tensors, presence
from tests.kernels.on_triton import (
    DEVICE,
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
from tests.kernels.problems import BAD, CROSS_MODAL, ROWS, of_a_lone_source
from tests.kernels.problems import cross_modal_call as call
from tests.kernels.problems import cross_modal_leaves as leaves_of
from tests.tolerances import TOLERANCE

pytestmark = pytest.mark.usefixtures("triton")
AXES: dict[str, Any] = {
    **CROSS_MODAL,
    "graph": tuple(GRAPHS),
    **SIZES,
    "storage": tuple(STORAGES),
    "index": (torch.int32, torch.int64),
    "contiguous": (True, False),
    "shares": tuple(SHARES),
}


@pytest.mark.parametrize("row", pairwise(AXES), ids=name_of)
def test_equals_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    case, sizes = GRAPHS[row["graph"]], {name: row[name] for name in SIZES}
    leaves = leaves_of(case, row["storage"], **sizes)
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    check(call(case, M=row["M"], **{name: row[name] for name in (*CROSS_MODAL, "index")}), leaves)


@pytest.mark.parametrize("case", EMPTY, ids=str)
@pytest.mark.parametrize("combine", ROWS)
def test_no_edges_or_nodes(combine: str, case: Case) -> None:
    check(call(case, M=2, combine=combine), leaves_of(case, "float32", M=2, H=2, D=3))


NAN_AXES: dict[str, Any] = {**CROSS_MODAL, "bad": BAD, "shares": tuple(SHARES), "leaf": range(4), "m": (0, 1)}


# The interpreter computes with NumPy, which warns of what this is about.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("row", pairwise(NAN_AXES), ids=name_of)
def test_nan_goes_as_in_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    leaves = there(leaves_of(NAN_CASE, "float32", M=2, H=1, D=3))
    run = call(NAN_CASE, M=2, **{name: row[name] for name in CROSS_MODAL})
    mask, places = presence(NAN_CASE, row["present"], M=2), [(row["leaf"] % len(leaves), row["m"])]
    nan_goes_as_in_the_reference(run, leaves, row["bad"], places=places, present=mask, sources=(0, 3), name="triton")


@pytest.mark.exhaustive
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("combine", ROWS)
def test_every_switch_equals_the_reference(
    combine: str, graph: str, shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_rows(shares, monkeypatch)
    case = GRAPHS[graph]
    for values in product(*(CROSS_MODAL[name] for name in CROSS_MODAL if name != "combine")):
        switches = dict(zip(("align", "uniform", "present", "weighted"), values, strict=True))
        check(call(case, M=3, combine=combine, **switches), leaves_of(case, "float32", M=3, H=2, D=5))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("combine", ROWS)
@pytest.mark.parametrize("M", range(1, 9))
def test_every_size_equals_the_reference(M: int, combine: str, storage: str) -> None:
    case = GRAPHS["random"]
    for H, D in product((1, 3, 4), (1, 3, 16, 33, 64)):
        check(call(case, M=M, combine=combine), leaves_of(case, storage, M=M, H=H, D=D))


@pytest.mark.parametrize("shares", ["whole", "split"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", ROWS)
def test_attention_equals_the_reference_where_no_gradient_is_recorded(
    combine: str, present: str, shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_rows(shares, monkeypatch)
    case, M = CASES["plain"], 3
    leaves = there(leaves_of(case, "float32", M=M, H=2, D=5))
    mask = presence(case, present)
    options: dict[str, Any] = {
        "combine": combine, "present": None if mask is None else mask.to(DEVICE), "return_attention": True
    }  # fmt: skip
    csc = relation_there(case)
    with torch.no_grad(), backend("triton"):
        actual = cross_modal_attention(csc, *leaves, **options).attn
    with torch.no_grad(), backend("reference"):
        expected = cross_modal_attention(csc, *(x.double() for x in leaves), **options).attn
    assert actual is not None
    assert expected is not None
    near(actual, expected, torch.float32)


@pytest.mark.parametrize("size", [100.0, 1e4])
@pytest.mark.parametrize("shares", ["whole", "split"])
@pytest.mark.parametrize("combine", ROWS)
def test_extreme_logits_equal_the_reference(
    combine: str, shares: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_rows(shares, monkeypatch)
    case = GRAPHS["tiles"]
    signs = [torch.sign(x.detach()) * math.sqrt(size) for x in node_tensors(case, "sdd", H=1, D=1)]
    (v,) = node_tensors(case, "s", H=1, D=1)
    leaves = [x.detach().float().requires_grad_() for x in (*signs, v)]
    # As for the compiled kernels: a logit is known to within size * eps, and gradients multiply that by its root.
    factor = max(1.0, size**1.5 * torch.finfo(torch.float32).eps / TOLERANCE[torch.float32][1])
    check(call(case, M=3, combine=combine), leaves, factor=factor)


@pytest.mark.parametrize("combine", ROWS)
def test_the_only_source_with_a_modality_gives_all_of_it(combine: str) -> None:
    with backend("triton"):
        assert of_a_lone_source(combine, DEVICE) == 7


@pytest.mark.parametrize("combine", ROWS)
def test_runs_do_not_change_a_bit_and_inputs_are_not_written(combine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["plain"]
    same_bits_and_inputs(call(case, M=3, combine=combine), leaves_of(case, "float32", M=3, H=1, D=5), monkeypatch)


def test_values_of_absent_modalities_do_not_matter() -> None:
    case = CASES["plain"]
    leaves = [x.detach() for x in leaves_of(case, "float32", M=3, H=2, D=5)]
    mask = presence(case, "some")
    assert mask is not None
    absent = ~mask[..., None, None]
    other = [x.masked_fill(absent, 99) if i in (0, 3) else x for i, x in enumerate(leaves)]
    with backend("triton"):
        pairs = [there([x.requires_grad_() for x in xs]) for xs in (leaves, other)]
        results = [call(case, M=3, combine="sharp")(*xs) for xs in pairs]
        grads = [gradients(result, xs) for result, xs in zip(results, pairs, strict=True)]
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(x, y) for x, y in zip(*grads, strict=True))
    assert not grads[0][0].cpu()[absent.expand_as(leaves[0])].any()


def test_a_compiled_graph_is_whole_and_gives_the_same_bits() -> None:
    case = CASES["plain"]
    leaves = there(leaves_of(case, "float32", M=3, H=2, D=5))
    run = call(case, M=3, combine="sharp")
    same_when_compiled(run, leaves, "triton")


@pytest.mark.parametrize(
    ("M", "options", "message"),
    [
        (2, {"combine": "inf"}, "triton: combine='inf' runs on the reference only"),
        (9, {"combine": "sum"}, "triton: at most 8 modalities, got 9"),
        (2, {"combine": "sum", "return_attention": True}, "triton: the weights of edges are differentiable in the ref"),
    ],
)
def test_what_it_refuses(M: int, options: dict[str, Any], message: str) -> None:
    case = CASES["plain"]
    csc = relation_there(case)
    with backend("triton"), pytest.raises(BackendError, match=message):
        cross_modal_attention(csc, *there(leaves_of(case, "float64", M=M, H=1, D=2)), **options)


@pytest.mark.parametrize("align", [True, False])
def test_nothing_is_fused_where_the_sign_of_a_difference_counts(align: bool) -> None:
    from hgmm.kernels import _triton_rows

    case = CASES["plain"]
    with _triton_rows.recorded() as launches, backend("triton"):
        leaves = there(leaves_of(case, "float32", M=2, H=1, D=4))
        gradients(call(case, M=2, combine="product", align=align)(*leaves), leaves)
    fused = {x.kernel.__name__: x.options["enable_fp_fusion"] for x in launches}
    assert fused == {"forward_pass": True, "destination_pass": not align, "source_pass": not align}
