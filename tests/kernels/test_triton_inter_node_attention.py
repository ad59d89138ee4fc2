from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from hgmm.errors import BackendError
from hgmm.kernels import inter_node_attention
from tests.kernels.against_reference import (
    STORAGES,
    backend,
    name_of,
    nan_goes_as_in_the_reference,
    near,
    same_when_compiled,
    strided,
)
from tests.kernels.cases import CASES, Case, presence
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
from tests.kernels.problems import BAD, INTER_NODE, SEED, dropout_at_a_word, dropout_of_one_edge
from tests.kernels.problems import inter_node_call as call
from tests.kernels.problems import inter_node_leaves as leaves_of

pytestmark = pytest.mark.usefixtures("triton")
AXES: dict[str, Any] = {
    **INTER_NODE,
    "graph": tuple(GRAPHS),
    **SIZES,
    "H": (1, 3, 5),
    "storage": tuple(STORAGES),
    "index": (torch.int32, torch.int64),
    "contiguous": (True, False),
    "shares": tuple(SHARES),
}


@pytest.mark.parametrize("row", pairwise(AXES), ids=name_of)
def test_equals_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    case, sizes = GRAPHS[row["graph"]], {name: row[name] for name in SIZES}
    leaves = leaves_of(case, row["storage"], biased=row["biased"], **sizes)
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    check(call(case, M=row["M"], present=row["present"], dropout=row["dropout"], index=row["index"]), leaves)


@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_no_edges_or_nodes(case: Case) -> None:
    check(call(case, M=2, dropout=0.4), leaves_of(case, "float32", M=2, H=2, D=3, biased=True))


@pytest.mark.parametrize("position", [3, 2**31 + 3, 2**32 + 3, 2**40 + 5])
def test_dropout_counts_edges_in_64_bits(position: int) -> None:
    with backend("triton"):
        actual, expected = dropout_of_one_edge(position, 0.5, DEVICE)
    assert torch.equal(actual, expected)


def test_a_random_word_at_the_limit_of_dropout_keeps_its_edge() -> None:
    with backend("triton"):
        actual, expected = dropout_of_one_edge(0, dropout_at_a_word(), DEVICE)
    assert actual[0, 0, 0] > 0
    torch.testing.assert_close(actual, expected)


NAN_AXES: dict[str, Any] = {**INTER_NODE, "bad": BAD, "shares": tuple(SHARES), "leaf": range(4), "m": (0, 1)}


# The interpreter computes with NumPy, which warns of what this is about.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("row", pairwise(NAN_AXES), ids=name_of)
def test_nan_goes_as_in_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    leaves = there(leaves_of(NAN_CASE, "float32", M=2, H=1, D=3, biased=row["biased"]))
    run = call(NAN_CASE, M=2, present=row["present"], dropout=row["dropout"])
    mask, places = presence(NAN_CASE, row["present"], M=2), [(row["leaf"] % len(leaves), row["m"])]
    nan_goes_as_in_the_reference(
        run, leaves, row["bad"], places=places, present=mask, sources=(0, 2), by_edge=(3,), name="triton"
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_switch_equals_the_reference(
    graph: str, storage: str, shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_rows(shares, monkeypatch)
    case = GRAPHS[graph]
    for present, biased, dropout in product(*INTER_NODE.values()):
        leaves = leaves_of(case, storage, M=3, H=2, D=5, biased=biased)
        check(call(case, M=3, present=present, dropout=dropout), leaves)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("M", range(1, 9))
def test_every_size_equals_the_reference(M: int, storage: str) -> None:
    case = GRAPHS["random"]
    for H, D in product((1, 3, 4, 8), (1, 3, 16, 33, 64, 200)):
        check(call(case, M=M, dropout=0.3), leaves_of(case, storage, M=M, H=H, D=D, biased=True))


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_attention_equals_the_reference_where_no_gradient_is_recorded(
    dropout: float, shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_rows(shares, monkeypatch)
    case = GRAPHS["tiles"]
    mask = presence(case, "some")
    assert mask is not None
    leaves = there(leaves_of(case, "float32", M=3, H=5, D=4))
    csc = relation_there(case)
    options: dict[str, Any] = {
        "present": mask.to(DEVICE), "dropout": dropout, "seed": SEED, "return_attention": True
    }  # fmt: skip
    with torch.no_grad(), backend("triton"):
        actual = inter_node_attention(csc, *leaves, **options).attn
    with torch.no_grad(), backend("reference"):
        expected = inter_node_attention(csc, *(x.double() for x in leaves), **options).attn
    assert actual is not None
    assert expected is not None
    near(actual, expected, torch.float32)
    assert torch.equal(actual == 0, expected == 0)


@pytest.mark.parametrize("shares", SHARES)
def test_extreme_logits_equal_the_reference(shares: str, monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(shares, monkeypatch)
    case = GRAPHS["tiles"]
    k, q, v = leaves_of(case, "float32", M=2, H=2, D=3)
    leaves = [k.detach().mul(30).requires_grad_(), q.detach().mul(30).requires_grad_(), v]
    # Logits of a thousand are known to within a thousandth of float32's precision of 1.
    check(call(case, M=2), leaves, factor=1e3)


@pytest.mark.parametrize("wanted", range(4), ids=["k", "q", "v", "bias"])
@pytest.mark.parametrize("shares", SHARES)
def test_one_gradient_alone_equals_the_reference(shares: str, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(shares, monkeypatch)
    case = GRAPHS["tiles"]
    leaves = [
        x.requires_grad_(i == wanted) for i, x in enumerate(leaves_of(case, "float64", M=2, H=2, D=3, biased=True))
    ]
    results = []
    for name in ("triton", "reference"):
        with backend(name):
            own = there(leaves)
            (out, _) = call(case, M=2)(*own)
            results.append(torch.autograd.grad(out.square().sum(), own[wanted])[0])
    near(results[0], results[1], torch.float64)


def test_what_is_not_needed_is_empty() -> None:
    from hgmm.kernels.inter_node_attention import triton_kernels

    case = CASES["plain"]
    k, q, v, bias = (x.detach() for x in there(leaves_of(case, "float32", M=2, H=2, D=3, biased=True)))
    arguments = (relation_there(case), k, q, v, None, bias, 0.0, 0)
    out, _, lse = triton_kernels.forward(*arguments, False)
    grads = triton_kernels.backward(*arguments, out, lse, torch.ones_like(out), False, False, True)
    assert [x.numel() for x in grads] == [0, 0, 0, bias.numel()]


def test_runs_do_not_change_a_bit_and_inputs_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    case = GRAPHS["tiles"]
    same_bits_and_inputs(
        call(case, M=2, dropout=0.3), leaves_of(case, "float32", M=2, H=2, D=5, biased=True), monkeypatch
    )


def test_a_compiled_graph_is_whole_and_gives_the_same_bits() -> None:
    case = CASES["plain"]
    leaves = there(leaves_of(case, "float32", M=3, H=2, D=5, biased=True))
    run = call(case, M=3, dropout=0.3)
    same_when_compiled(run, leaves, "triton")


def test_weights_with_gradients_are_refused() -> None:
    case = CASES["plain"]
    csc = relation_there(case)
    with backend("triton"), pytest.raises(BackendError, match="triton: the weights of edges are differentiable in the"):
        inter_node_attention(csc, *there(leaves_of(case, "float64", M=2, H=1, D=2)), return_attention=True)
