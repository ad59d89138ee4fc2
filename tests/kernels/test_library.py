"""What lies between the public functions and the compiled implementations: torch.library, compile, autocast."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from hgmm.errors import BackendError
from hgmm.kernels import (
    OPERATORS,
    cross_modal_attention,
    inter_node_attention,
    neighbor_mean,
    neighbor_sum,
    translational_score,
)
from tests.kernels import fake_backend
from tests.kernels.cases import CASES, Case, generator, gradients, node_tensors, presence, relation
from tests.kernels.problems import ROWS, UNIFORM, Draws, translational_ids, translational_leaves
from tests.tolerances import close

# The argument that leads, by operator; attentions have keys.
FIRST = {"neighbor_mean": "x", "translational_score": "query"}
ATTENTIONS = ("cross_modal_attention", "inter_node_attention")
PLAIN = CASES["plain"]
SEED = torch.tensor(2**40 + 17)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backend.install(monkeypatch)
    torch._dynamo.reset()


class Op(NamedTuple):
    """One way to call an operator: its leaves, and the function of them."""

    name: str
    leaves: list[Tensor]
    run: Any


def op(
    name: str, case: Case = PLAIN, *, present: str = "some", dtype: torch.dtype = torch.float64, **options: Any
) -> Op:
    index = options.pop("index", torch.int64)
    csc, mask = relation(case, index), presence(case, present)
    if name == "translational_score":
        draws = draws_of(case)
        ids = translational_ids(draws, M=2, P=3, index=index)
        leaves = [x.detach().to(dtype).requires_grad_() for x in translational_leaves(draws, "float64", M=2, D=4)]

        def run(*x: Tensor) -> Any:
            return (translational_score(*x, *ids, norm=2),)

        return Op(name, leaves, run)
    if name == "neighbor_mean":
        leaves = [x.detach()[:, :, 0].requires_grad_() for x in node_tensors(case, "s", dtype=dtype)]
        weight = torch.rand(len(case.src), 3, generator=generator(5), dtype=torch.float64).to(dtype) + 0.1
        function = neighbor_mean if options.pop("mean", True) else neighbor_sum

        def run(*x: Tensor) -> Any:
            return (function(csc, x[0], present=mask, edge_weight=x[1]),)

        return Op(name, [*leaves, weight.requires_grad_()], run)
    if name == "inter_node_attention":
        bias = torch.randn(len(case.src), 3, 2, generator=generator(3), dtype=torch.float64)
        leaves = [*node_tensors(case, "sds", dtype=dtype), bias.to(dtype).requires_grad_()]
        options = {"dropout": 0.4, "seed": SEED, **options}

        def run(*x: Tensor) -> Any:
            return inter_node_attention(csc, *x[:3], present=mask, edge_bias=x[3], **options)

        return Op(name, leaves, run)
    weight = torch.rand(case.num_src, 3, generator=generator(4), dtype=torch.float64).to(dtype)
    options = {"combine": "sharp", "lambda_weight": weight, **options}

    def run(*x: Tensor) -> Any:
        return cross_modal_attention(csc, *x, present=mask, **options)

    return Op(name, node_tensors(case, "sdds", dtype=dtype), run)


def draws_of(case: Case) -> Draws:
    """Draw the sources of a relation for its destinations, as many for each as it has edges."""
    return Draws(case.num_dst, min(len(case.src), 5), case.num_src)


def floats(result: Any) -> tuple[Tensor, ...]:
    return tuple(x for x in result if x is not None)


def with_reference(call: Op, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setenv("HGMM_BACKEND", "reference")
        return call.run(*call.leaves)


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", OPERATORS)
def test_results_and_gradients_pass_through(
    name: str, case: str, present: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = op(name, CASES[case], present=present)
    expected = with_reference(call, monkeypatch)
    actual = call.run(*call.leaves)
    for x, y in zip(floats(actual), floats(expected), strict=True):
        assert torch.equal(x, y)
    for x, y in zip(gradients(actual, call.leaves), gradients(expected, call.leaves), strict=True):
        assert torch.equal(x, y)
    assert fake_backend.calls == [f"{name}.forward", f"{name}.backward"]


@pytest.mark.parametrize("name", ATTENTIONS)
def test_results_that_were_not_asked_for_are_none(name: str) -> None:
    options: dict[str, Any] = {"dropout": 0.0} if name == "inter_node_attention" else {"lambda_weight": None}
    result = op(name, **options).run(*op(name).leaves)
    assert result[1:] == (None,) * (len(result) - 1)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_comes_back_where_no_gradient_is_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = op(name, return_attention=True)
    with torch.no_grad():
        attn = call.run(*call.leaves).attn
    assert torch.equal(attn, with_reference(call, monkeypatch).attn)
    assert fake_backend.calls == [f"{name}.forward"]
    with pytest.raises(BackendError, match="cpu: attention has no gradient here"):
        call.run(*call.leaves)


@pytest.mark.parametrize("name", OPERATORS)
def test_each_leaf_alone_gets_its_gradient(name: str) -> None:
    call = op(name)
    expected = gradients(call.run(*call.leaves), call.leaves)
    for i, grad in enumerate(expected):
        leaves = [x.detach().requires_grad_(i == j) for j, x in enumerate(call.leaves)]
        assert torch.equal(gradients(call.run(*leaves), [leaves[i]])[0], grad)


def test_the_gradient_of_one_result_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    call = op("cross_modal_attention")
    for i in range(2):
        expected = torch.autograd.grad(with_reference(call, monkeypatch)[i].sum(), call.leaves, materialize_grads=True)
        actual = torch.autograd.grad(call.run(*call.leaves)[i].sum(), call.leaves, materialize_grads=True)
        assert all(torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


@pytest.mark.parametrize("name", OPERATORS)
def test_strides_of_leaves_and_of_the_incoming_gradient_do_not_matter(name: str) -> None:
    call = op(name)
    expected = gradients(call.run(*call.leaves), call.leaves)
    leaves = [x.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_() for x in call.leaves]
    assert not any(x.is_contiguous() for x in leaves)
    for x, y in zip(gradients(call.run(*leaves), leaves), expected, strict=True):
        assert torch.equal(x, y)
    out = call.run(*call.leaves)[0]
    expanded = torch.autograd.grad(out, call.leaves, torch.ones(()).double().expand_as(out), retain_graph=True)
    whole = torch.autograd.grad(out, call.leaves, torch.ones_like(out))
    assert all(torch.equal(x, y) for x, y in zip(expanded, whole, strict=True))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_mixed_index_dtypes_are_made_one(name: str) -> None:
    case = relation(PLAIN)
    mixed = case._replace(indptr=case.indptr.int(), indices_t=case.indices_t.int())
    leaves = [x.detach() for x in node_tensors(PLAIN, "sdds")]
    if name == "inter_node_attention":
        one, other = (inter_node_attention(csc, *leaves[:2], leaves[3]).out for csc in (case, mixed))
    else:
        one, other = (cross_modal_attention(csc, *leaves, combine="sum").out for csc in (case, mixed))
    assert torch.equal(one, other)


def dual(run: Any, x: Tensor) -> None:
    with forward_ad.dual_level():
        run(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.parametrize(
    "way", [dual, lambda run, x: torch.func.jvp(run, (x,), (torch.ones_like(x),))], ids=["dual", "jvp"]
)
@pytest.mark.parametrize("recorded", [True, False], ids=["grad", "no-grad"])
@pytest.mark.parametrize("name", OPERATORS)
def test_tangents_are_refused_instead_of_lost(name: str, recorded: bool, way: Any) -> None:
    call = op(name)
    first, *rest = (x.detach().requires_grad_(recorded) for x in call.leaves)
    message = f"{name}, argument {FIRST.get(name, 'k')}: .* got a tensor with a tangent .*=reference"
    with pytest.raises(BackendError, match=message):
        way(lambda x: call.run(x, *rest)[0], first.detach())
    assert fake_backend.calls == []


@pytest.mark.parametrize("name", OPERATORS)
def test_what_the_refusal_of_tangents_advises_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    call = op(name)
    k, *rest = (x.detach() for x in call.leaves)
    direction = torch.randn(k.shape, generator=generator(6), dtype=k.dtype)
    _, product = torch.autograd.functional.jvp(lambda x: call.run(x, *rest)[0], k, direction)
    step = 1e-6 * direction
    difference = (call.run(k + step, *rest)[0] - call.run(k - step, *rest)[0]) / 2e-6
    torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_incoming_gradient_has_no_tangent(name: str) -> None:
    call = op(name)
    out = call.run(*call.leaves)[0]
    with forward_ad.dual_level(), pytest.raises(BackendError, match=f"{name}_backward, argument grad_out: .* tangent"):
        torch.autograd.grad(out, call.leaves, forward_ad.make_dual(torch.ones_like(out), torch.ones_like(out)))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", OPERATORS)
def test_what_runs_of_the_function_transforms(name: str) -> None:
    call = op(name)
    first, *rest = (x.detach() for x in call.leaves)

    def run(x: Tensor) -> Tensor:
        out: Tensor = call.run(x, *rest)[0]
        return out

    actual = torch.func.vmap(run)(torch.stack([first, 2 * first]))
    assert torch.equal(actual, torch.stack([run(first), run(2 * first)]))
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(lambda x: run(x).sum())(first)


@pytest.mark.parametrize("uniform", UNIFORM)
@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("combine", ROWS)
def test_what_is_not_read_gets_no_gradient(
    combine: str, align: bool, uniform: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = op("cross_modal_attention", combine=combine, align=align, uniform_nodes=uniform[0],
              uniform_modalities=uniform[1])  # fmt: skip
    for used in ((0,), (1,), (0, 1)):
        found = []
        for results in (call.run(*call.leaves), with_reference(call, monkeypatch)):
            chosen = [results[i] for i in used if results[i].requires_grad]
            grads = torch.autograd.grad([x.sum() for x in chosen], call.leaves, allow_unused=True) if chosen else ()
            found.append((len(chosen), [x is None for x in grads]))
        assert found[0] == found[1]


@pytest.mark.parametrize("name", OPERATORS)
def test_second_derivatives_are_refused_and_the_reference_named(name: str) -> None:
    call = op(name)
    (first,) = torch.autograd.grad(call.run(*call.leaves)[0].sum(), call.leaves[:1], create_graph=True)
    with pytest.raises(BackendError, match=f"{name}: double backward .* HGMM_BACKEND=reference has second derivatives"):
        first.sum().backward()


def graph_arguments(case: Case, index: torch.dtype) -> tuple[Any, ...]:
    return tuple(relation(case, index))


def forward_arguments(name: str, case: Case, present: str, *, asked: bool) -> tuple[Any, ...]:
    """Arguments of the operator's node in a graph; with `asked`, the optional results too."""
    mask = presence(case, present)
    if name == "translational_score":
        ids = translational_ids(draws_of(case), M=2, P=3, index=torch.int32)
        return (*op(name, case).leaves, *ids, *(("1", 7) if asked else ("complex", 0)), "cpu")
    if name == "neighbor_mean":
        x, weight = op(name, case).leaves
        return (*graph_arguments(case, torch.int32), x, mask, weight if asked else None, asked, "cpu")
    if name == "inter_node_attention":
        *kqv, bias = op(name, case).leaves
        rest = (bias, 0.4, SEED) if asked else (None, 0.0, None)
        if asked:
            kqv = [x.detach() for x in kqv]
            rest = (bias.detach(), 0.4, SEED)
        return (*graph_arguments(case, torch.int64), *kqv, mask, *rest, asked, "cpu")
    leaves = op(name, case).leaves
    weight = torch.rand(case.num_src, 3, generator=generator(4), dtype=torch.float64) if asked else None
    return (
        *graph_arguments(case, torch.int32), *leaves, mask, weight, "sharp", True, 1.0, False, False, False, "cpu"
    )  # fmt: skip


@pytest.mark.parametrize("asked", [False, True], ids=["", "asked"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("case", ["plain", "no-edges", "no-destinations", "no-nodes"])
@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck_forward(name: str, case: str, present: str, asked: bool) -> None:
    function = getattr(torch.ops.hgmm, name).default
    torch.library.opcheck(function, forward_arguments(name, CASES[case], present, asked=asked))


@pytest.mark.parametrize("needs", [(True, True), (False, True), (True, False)], ids=["both", "src", "dst"])
@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck_backward(name: str, needs: tuple[bool, bool]) -> None:
    *forward, backend = forward_arguments(name, PLAIN, "some", asked=True)
    forward = [x.detach() if isinstance(x, Tensor) else x for x in forward]
    results = getattr(torch.ops.hgmm, name).default(*forward, backend)
    if name == "translational_score":
        out, signs = results
        saved = (signs, out, torch.randn_like(out), *needs)
        torch.library.opcheck(torch.ops.hgmm.translational_score_backward.default, (*forward[:-1], *saved, backend))
        return
    if name != "neighbor_mean":
        forward.pop()
    grads: tuple[Any, ...] = (torch.randn_like(results[0]),)
    wanted: tuple[bool, ...] = needs
    if name == "cross_modal_attention":
        grads = (*grads, torch.randn_like(results[1]))
    elif name == "inter_node_attention":
        wanted = (*needs, True)
    saved = (results[0], results[-1], *grads, *wanted)
    torch.library.opcheck(getattr(torch.ops.hgmm, f"{name}_backward").default, (*forward, *saved, backend))


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_compiled_graph_has_one_node_and_the_same_bits(name: str, index: torch.dtype) -> None:
    call = op(name, index=index)
    expected = call.run(*call.leaves)
    compiled = torch.compile(call.run, fullgraph=True, backend="aot_eager")
    actual = compiled(*call.leaves)
    for x, y in zip(floats(actual), floats(expected), strict=True):
        assert torch.equal(x, y)
    for x, y in zip(gradients(actual, call.leaves), gradients(expected, call.leaves), strict=True):
        assert torch.equal(x, y)


def test_a_compiled_graph_may_take_the_relation_as_an_argument() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def run(csc: Any, k: Tensor, q: Tensor, v: Tensor) -> Tensor:
        return cross_modal_attention(csc, k, q, q, v, combine="product").out

    for name in ("plain", "hub", "one-edge"):
        case = CASES[name]
        k, q, v = (x.detach() for x in node_tensors(case, "sds"))
        out = cross_modal_attention(relation(case), k, q, q, v, combine="product").out
        assert torch.equal(run(relation(case), k, q, v), out)


@pytest.mark.parametrize("name", OPERATORS)
def test_autocast_casts_what_is_not_float64(name: str) -> None:
    call = op(name, dtype=torch.float32)
    half = [x.detach().bfloat16() for x in call.leaves]
    expected = op(name, dtype=torch.bfloat16).run(*half)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = call.run(*call.leaves)[0]
        exact = op(name).run(*op(name).leaves)[0]
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, expected)
    assert exact.dtype == torch.float64
    grads = gradients((actual,), call.leaves)
    assert {x.dtype for x in grads} == {torch.float32}


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_half_storage_rounds_keys_and_values_only(
    name: str, backend: str, storage: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HGMM_BACKEND", backend)
    call = op(name, CASES["hub"], dtype=torch.float32)
    stored = [
        x.detach().to(storage).requires_grad_() if i in (0, VALUE[name]) else x for i, x in enumerate(call.leaves)
    ]
    exact = op(name, CASES["hub"])
    wide = [x.detach().double().requires_grad_() for x in stored]
    actual, expected = call.run(*stored), exact.run(*wide)
    assert actual.out.dtype == torch.float32
    # The same rounded keys and values go in on both sides, so what is left is float32 arithmetic ...
    close(actual.out, expected.out, torch.float32)
    for x, y, leaf in zip(gradients(actual, stored), gradients(expected, wide), stored, strict=True):
        assert x.dtype == leaf.dtype
        # ... and the rounding of the gradients that have the storage dtype.
        close(x, y, leaf.dtype)


VALUE = {"inter_node_attention": 2, "cross_modal_attention": 3}


@pytest.mark.parametrize("uniform", [False, True])
def test_cross_runs_on_the_backends_of_inter_node_attention(uniform: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    call = op("cross_modal_attention", combine="cross", lambda_weight=None, uniform_nodes=uniform)
    expected = with_reference(call, monkeypatch)
    actual = call.run(*call.leaves)
    assert torch.equal(actual.out, expected.out)
    for x, y in zip(gradients(actual, call.leaves), gradients(expected, call.leaves), strict=True):
        assert torch.equal(x, y)
    assert fake_backend.calls == ["inter_node_attention.forward", "inter_node_attention.backward"]


def test_neighbor_sum_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    call = op("neighbor_mean", mean=False)
    expected = with_reference(call, monkeypatch)
    actual = call.run(*call.leaves)
    assert torch.equal(actual[0], expected[0])
    for x, y in zip(gradients(actual, call.leaves), gradients(expected, call.leaves), strict=True):
        assert torch.equal(x, y)
    assert fake_backend.calls == ["neighbor_mean.forward", "neighbor_mean.backward"]


def test_every_operator_ends_with_the_reference_which_is_always_there() -> None:
    for backends in OPERATORS.values():
        assert [backend.name for backend in backends] == ["cpu", "triton", "reference"]
        assert backends[-1].unavailable_reasons() == []
