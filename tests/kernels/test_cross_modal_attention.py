from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels import COMBINES, CrossModalResult, cross_modal_attention, inter_node_attention
from hgmm.typing import RelationCSC
from tests.kernels.cases import CASES, Case, generator, gradients, node_tensors, presence, relation
from tests.kernels.problems import of_a_lone_source
from tests.oracles import cross_modal_attention_oracle
from tests.tolerances import close

PLAIN = CASES["plain"]
UNIFORM = ((False, False), (True, False), (False, True), (True, True))


@pytest.fixture(autouse=True)
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")


def options(
    case: Case, combine: str, present: str, *, M: int = 3, dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    """`present` and, where the row has a lambda, random weights for its sum."""
    weight = torch.rand(case.num_src, M, generator=generator(4), dtype=torch.float64).to(dtype)
    return {
        "combine": combine,
        "present": presence(case, present, M=M),
        "lambda_weight": None if combine == "cross" else weight,
    }


def equal_to_oracle(case: Case, leaves: list[Tensor], **kwargs: Any) -> None:
    csc = relation(case)
    actual = cross_modal_attention(csc, *leaves, return_attention=True, **kwargs)
    expected = cross_modal_attention_oracle(csc, *leaves, **kwargs)
    for x, y in zip(actual, expected, strict=True):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            close(x, y, torch.float64)
    for x, y in zip(gradients(actual, leaves), gradients(expected, leaves), strict=True):
        close(x, y, torch.float64)


@pytest.mark.parametrize("uniform", UNIFORM, ids=["", "nei", "adapt", "nei-adapt"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("align", [True, False], ids=["align", "no-align"])
@pytest.mark.parametrize("combine", COMBINES)
def test_results_and_gradients_equal_the_oracle(
    combine: str, align: bool, present: str, uniform: tuple[bool, bool]
) -> None:
    equal_to_oracle(
        PLAIN,
        node_tensors(PLAIN, "sdds"),
        align=align,
        gamma=0.7,
        uniform_nodes=uniform[0],
        uniform_modalities=uniform[1],
        **options(PLAIN, combine, present),
    )


@pytest.mark.parametrize("combine", COMBINES)
def test_a_mask_without_holes_equals_the_oracle(combine: str) -> None:
    equal_to_oracle(PLAIN, node_tensors(PLAIN, "sdds"), **options(PLAIN, combine, "all"))


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("name", [name for name in CASES if name != "plain"])
def test_edge_cases_equal_the_oracle(name: str, combine: str, present: str) -> None:
    case = CASES[name]
    equal_to_oracle(case, node_tensors(case, "sdds", M=2, H=1), **options(case, combine, present, M=2))


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", COMBINES)
def test_one_modality_equals_the_oracle(combine: str, present: str) -> None:
    leaves = node_tensors(PLAIN, "sdds", M=1, H=1, D=5)
    equal_to_oracle(PLAIN, leaves, **options(PLAIN, combine, present, M=1))


def gradcheck_case(
    combine: str, align: bool, present: str, uniform: tuple[bool, bool]
) -> tuple[Any, tuple[Tensor, ...]]:
    case = Case((1, 2, 0, 3, 2), (0, 0, 0, 1, 1), 4, 3)
    kwargs = options(case, combine, present, M=2)

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        result = cross_modal_attention(
            relation(case),
            *leaves,
            align=align,
            uniform_nodes=uniform[0],
            uniform_modalities=uniform[1],
            return_attention=True,
            **kwargs,
        )
        return tuple(x for x in result if x is not None and x.requires_grad)

    return function, tuple(node_tensors(case, "sdds", M=2, H=1, D=2))


@pytest.mark.parametrize("uniform", UNIFORM, ids=["", "nei", "adapt", "nei-adapt"])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("align", [True, False], ids=["align", "no-align"])
@pytest.mark.parametrize("combine", COMBINES)
def test_gradcheck(combine: str, align: bool, present: str, uniform: tuple[bool, bool]) -> None:
    function, leaves = gradcheck_case(combine, align, present, uniform)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "case", [*product(COMBINES, (True, False), ("none", "some"), UNIFORM)], ids=lambda case: "-".join(map(str, case))
)
def test_gradcheck_of_every_entry(case: tuple[str, bool, str, tuple[bool, bool]]) -> None:
    function, leaves = gradcheck_case(*case)
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", COMBINES)
def test_second_derivatives(combine: str, present: str) -> None:
    function, leaves = gradcheck_case(combine, True, present, (False, False))
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("combine", COMBINES)
def test_a_source_without_any_modality_is_as_good_as_not_there(combine: str) -> None:
    leaves = node_tensors(PLAIN, "sdds")
    kwargs = options(PLAIN, combine, "some")
    stays = torch.tensor([s != 0 for s in PLAIN.src])
    fewer = PLAIN._replace(
        src=tuple(s for s in PLAIN.src if s != 0),
        dst=tuple(d for s, d in zip(PLAIN.src, PLAIN.dst, strict=True) if s != 0),
    )
    whole = cross_modal_attention(relation(PLAIN), *leaves, return_attention=True, **kwargs)
    without = cross_modal_attention(relation(fewer), *leaves, return_attention=True, **kwargs)
    assert torch.equal(whole.out, without.out)
    assert whole.attn is not None
    assert without.attn is not None
    assert torch.equal(whole.attn[stays], without.attn)
    assert not whole.attn[~stays].any()


@pytest.mark.parametrize("combine", COMBINES)
def test_no_modality_anywhere_gives_zeros_and_zero_gradients(combine: str) -> None:
    leaves = node_tensors(PLAIN, "sdds")
    nothing = torch.zeros(PLAIN.num_src, 3, dtype=torch.bool)
    result = cross_modal_attention(relation(PLAIN), *leaves, combine=combine, present=nothing, return_attention=True)
    assert result.attn is not None
    assert not result.out.any()
    assert not result.attn.any()
    assert all(not grad.any() for grad in gradients(result, leaves))


@pytest.mark.parametrize("combine", COMBINES)
def test_values_of_absent_modalities_do_not_matter(combine: str) -> None:
    k, q_node, q_modal, v = (x.detach() for x in node_tensors(PLAIN, "sdds"))
    kwargs = options(PLAIN, combine, "some")
    absent = ~kwargs["present"][..., None, None]
    before = cross_modal_attention(relation(PLAIN), k, q_node, q_modal, v, **kwargs)
    after = cross_modal_attention(
        relation(PLAIN), k.masked_fill(absent, 99), q_node, q_modal, v.masked_fill(absent, -99), **kwargs
    )
    assert torch.equal(before.out, after.out)


def without_a_modality(combine: str) -> CrossModalResult:
    """Destination 0 has the sources 1 and 2; source 2 alone has modality 1, and its beta is about e^-600."""
    case = Case((0, 1), (0, 0), 2, 1)
    k = torch.tensor([[[300.0], [0.0]], [[-300.0], [-300.0]]]).view(2, 2, 1, 1)
    q = torch.ones(1, 2, 1, 1)
    v = torch.tensor([[2.0, 3.0], [5.0, 7.0]]).view(2, 2, 1, 1)
    present = torch.tensor([[True, False], [False, True]])
    return cross_modal_attention(relation(case), k, q, q, v, present=present, combine=combine, return_attention=True)


@pytest.mark.parametrize("combine", COMBINES)
def test_the_only_source_with_a_modality_gives_all_of_it(combine: str) -> None:
    assert without_a_modality(combine).out.view(-1).tolist() == [2, 7]
    assert of_a_lone_source(combine) == 7


@pytest.mark.parametrize("size", [100.0, 200.0, 1e4])
@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("combine", COMBINES)
def test_extreme_logits_stay_finite_in_float32(combine: str, present: str, size: float) -> None:
    case = CASES["hub"]
    signs = [torch.sign(x.detach()) for x in node_tensors(case, "sdd", M=3, H=2, D=1)]
    (v,) = node_tensors(case, "s", D=1, dtype=torch.float32)
    leaves = [(x * math.sqrt(size)).float().requires_grad_() for x in signs] + [v]
    kwargs = options(case, combine, present, dtype=torch.float32)
    result = cross_modal_attention(relation(case), *leaves, return_attention=True, **kwargs)
    exact = cross_modal_attention(
        relation(case),
        *(x.double() for x in leaves),
        **{**kwargs, "lambda_weight": None},
    )
    close(result.out, exact.out, torch.float32)
    assert all(grad.isfinite().all() for grad in gradients(result, leaves))


def test_sharp_picks_the_source_that_both_attentions_prefer() -> None:
    # The logits of source 0 lie 2e4 above those of source 1: in linear space w would be log(0 / 0).
    case = Case((0, 1), (0, 0), 2, 1)
    k = torch.tensor([1e4, 1e4, -1e4, -1e4]).view(2, 2, 1, 1)
    q = torch.ones(1, 2, 1, 1)
    v = torch.tensor([2.0, 3.0, 5.0, 7.0]).view(2, 2, 1, 1)
    result = cross_modal_attention(relation(case), k, q, q, v, combine="sharp", return_attention=True)
    assert result.out.view(-1).tolist() == [2, 3]
    assert result.attn is not None
    assert result.attn.view(-1).tolist() == [1, 0]


def test_gamma_scales_the_alignment_of_sharp_only() -> None:
    leaves = node_tensors(PLAIN, "sdds")

    def out(combine: str, gamma: float, align: bool = True) -> Tensor:
        return cross_modal_attention(relation(PLAIN), *leaves, combine=combine, gamma=gamma, align=align).out

    assert torch.equal(out("sharp", 0.0), out("sharp", 5.0, align=False))
    assert not torch.equal(out("sharp", 1.0), out("sharp", 2.0))
    assert torch.equal(out("product", 1.0), out("product", 2.0))


@pytest.mark.parametrize("present", ["none", "some"])
def test_cross_equals_inter_node_attention(present: str) -> None:
    k, q_node, q_modal, v = node_tensors(PLAIN, "sdds")
    mask = presence(PLAIN, present)
    cross = cross_modal_attention(
        relation(PLAIN), k, q_node, q_modal, v, combine="cross", present=mask, return_attention=True
    )
    single = inter_node_attention(relation(PLAIN), k, q_node, v, present=mask, return_attention=True)
    close(cross.out, single.out, torch.float64)
    assert cross.attn is not None
    assert single.attn is not None
    close(cross.attn, single.attn, torch.float64)


def test_results_that_were_not_asked_for_are_none() -> None:
    result = cross_modal_attention(relation(PLAIN), *node_tensors(PLAIN, "sdds"), combine="sharp")
    assert result.lambda_sum is None
    assert result.attn is None


@pytest.mark.parametrize("combine", COMBINES)
def test_order_of_the_edges_does_not_matter(combine: str) -> None:
    leaves = node_tensors(PLAIN, "sdds")
    kwargs = options(PLAIN, combine, "some")
    order = torch.randperm(len(PLAIN.src), generator=generator(5)).tolist()
    shuffled = PLAIN._replace(src=tuple(PLAIN.src[e] for e in order), dst=tuple(PLAIN.dst[e] for e in order))
    a = cross_modal_attention(relation(PLAIN), *leaves, **kwargs)
    b = cross_modal_attention(relation(shuffled), *leaves, **kwargs)
    close(a.out, b.out, torch.float64)
    for x, y in zip(gradients(a, leaves), gradients(b, leaves), strict=True):
        close(x, y, torch.float64)


@pytest.mark.parametrize("combine", COMBINES)
def test_order_of_the_modalities_does_not_matter(combine: str) -> None:
    leaves = node_tensors(PLAIN, "sdds")
    kwargs = options(PLAIN, combine, "some")
    turned = {**kwargs, "present": kwargs["present"].roll(1, 1)}
    if kwargs["lambda_weight"] is not None:
        turned["lambda_weight"] = kwargs["lambda_weight"].roll(1, 1)
    a = cross_modal_attention(relation(PLAIN), *leaves, **kwargs)
    b = cross_modal_attention(relation(PLAIN), *(x.roll(1, 1) for x in leaves), **turned)
    close(a.out.roll(1, 1), b.out, torch.float64)


@pytest.mark.parametrize("combine", COMBINES)
def test_int32_and_int64_indices_give_the_same_bits(combine: str) -> None:
    leaves = node_tensors(PLAIN, "sdds")
    kwargs = options(PLAIN, combine, "some")
    a, b = (cross_modal_attention(relation(PLAIN, x), *leaves, **kwargs) for x in (torch.int32, torch.int64))
    assert torch.equal(a.out, b.out)
    for x, y in zip(gradients(a, leaves), gradients(b, leaves), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("combine", COMBINES)
def test_lower_precision_accumulates_in_float32(combine: str, dtype: torch.dtype) -> None:
    case = CASES["hub"]
    leaves = node_tensors(case, "sdds", dtype=dtype)
    kwargs = options(case, combine, "some", dtype=dtype)
    result = cross_modal_attention(relation(case), *leaves, return_attention=True, **kwargs)
    if kwargs["lambda_weight"] is not None:
        kwargs["lambda_weight"] = kwargs["lambda_weight"].double()
    exact = cross_modal_attention(relation(case), *(x.double() for x in leaves), return_attention=True, **kwargs)
    assert result.attn is not None
    assert exact.attn is not None
    assert (result.out.dtype, result.attn.dtype) == (dtype, dtype)
    close(result.out, exact.out, dtype)
    close(result.attn, exact.attn, dtype)
    if exact.lambda_sum is not None:
        assert result.lambda_sum is not None
        assert result.lambda_sum.dtype == torch.float32
        close(result.lambda_sum, exact.lambda_sum, torch.float32)
    assert [x.dtype for x in gradients(result, leaves)] == [dtype] * 4


@pytest.mark.parametrize("combine", COMBINES)
def test_inputs_may_have_any_strides_and_are_not_written(combine: str) -> None:
    leaves = [x.detach() for x in node_tensors(PLAIN, "sdds")]
    kwargs = options(PLAIN, combine, "some")
    strided = [torch.stack([x, x], -1)[..., 0].transpose(0, 3).contiguous().transpose(0, 3) for x in leaves]
    kwargs["present"] = kwargs["present"].t().contiguous().t()
    assert not any(x.is_contiguous() for x in [*strided, kwargs["present"]])
    csc = relation(PLAIN)
    arguments = [*csc, *strided, *(x for x in kwargs.values() if isinstance(x, Tensor))]
    copies = [x.clone() for x in arguments]
    for x in strided:
        x.requires_grad_()
    result = cross_modal_attention(csc, *strided, **kwargs)
    grad = torch.ones_like(result.out)
    result.out.backward(grad)
    assert torch.equal(result.out, cross_modal_attention(csc, *leaves, **kwargs).out)
    assert all(torch.equal(x, y) for x, y in zip(arguments, copies, strict=True))
    assert bool((grad == 1).all())


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def large() -> tuple[RelationCSC, list[Tensor], dict[str, Any]]:
    rng = generator(6)
    nodes, edges = 100, 2000
    ends = (torch.randint(nodes, (edges,), generator=rng) for _ in range(2))
    case = Case(*(tuple(x.tolist()) for x in ends), nodes, nodes)
    return relation(case), node_tensors(case, "sdds", H=4, D=16), options(case, "sharp", "some")


@pytest.mark.usefixtures("two_threads")
def test_the_number_of_threads_does_not_change_a_bit() -> None:
    csc, leaves, kwargs = large()

    def run() -> list[Tensor]:
        result = cross_modal_attention(csc, *leaves, **kwargs)
        return [result.out, *gradients(result, leaves)]

    two = run()
    torch.set_num_threads(1)
    assert all(torch.equal(x, y) for x, y in zip(two, run(), strict=True))


def test_backward_keeps_no_more_than_the_stated_floats_an_edge() -> None:
    csc, leaves, kwargs = large()
    storages: dict[int, int] = {x.untyped_storage().data_ptr(): 0 for x in leaves}

    def pack(x: Tensor) -> Tensor:
        storages.setdefault(x.untyped_storage().data_ptr(), x.untyped_storage().nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        alive = cross_modal_attention(csc, *leaves, **kwargs)
    M, H = leaves[0].shape[1:3]
    pairs = M * (M - 1) // 2
    floats = (6 * M + 4 + pairs) * H
    flags = M * (1 + pairs) + 8
    assert alive.out.requires_grad
    assert 0 < sum(storages.values()) <= csc.num_edges * (floats * leaves[0].element_size() + flags)


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = node_tensors(PLAIN, "sdds")
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    named = cross_modal_attention(relation(PLAIN), *leaves, combine="sharp")
    monkeypatch.setenv("HGMM_BACKEND", "auto")
    close(cross_modal_attention(relation(PLAIN), *leaves, combine="sharp").out, named.out, torch.float64)
    monkeypatch.setenv("HGMM_BACKEND", "quantum")
    with pytest.raises(ConfigError, match="'quantum'"):
        cross_modal_attention(relation(PLAIN), *leaves, combine="sharp")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("csc", relation(PLAIN)._replace(indices_t=torch.zeros(3, dtype=torch.int64)), "10 edges .* got 3"),
        ("k", torch.zeros(6, 3, 2), r"N_src = 6 .* got \(6, 3, 2\)"),
        ("k", torch.zeros(6, 3, 2, 3, dtype=torch.int32), "float64, .* got int32"),
        ("q_node", torch.zeros(6, 3, 2, 3), r"\(N_dst, M, H, D\) = \(5, 3, 2, 3\), got \(6, 3, 2, 3\)"),
        ("q_node", torch.zeros(5, 3, 2, 3, dtype=torch.float64), "dtype float32, got float64"),
        ("q_modal", torch.zeros(5, 2, 2, 3), r"\(5, 3, 2, 3\), got \(5, 2, 2, 3\)"),
        ("v", torch.zeros(6, 3, 2, 4), r"\(N_src, M, H, D\) = \(6, 3, 2, 3\), got \(6, 3, 2, 4\)"),
        ("v", torch.zeros(6, 3, 2, 3, device="meta"), "device cpu, got meta"),
        ("present", torch.ones(5, 3, dtype=torch.bool), r"\(N_src, M\) = \(6, 3\), got \(5, 3\)"),
        ("present", torch.ones(6, 3), "dtype bool, got float32"),
        ("lambda_weight", torch.ones(6, 2), r"\(N_src, M\) = \(6, 3\), got \(6, 2\)"),
        ("lambda_weight", torch.ones(6, 3, dtype=torch.bool), "dtype float32, got bool"),
    ],
)
def test_wrong_tensors(name: str, value: Any, message: str) -> None:
    k, q_node, q_modal, v = node_tensors(PLAIN, "sdds", dtype=torch.float32)
    arguments = {"csc": relation(PLAIN), "k": k, "q_node": q_node, "q_modal": q_modal, "v": v, name: value}
    with pytest.raises(ShapeError, match=f"cross_modal_attention, argument {name}.*: expected .*{message}"):
        cross_modal_attention(combine="sharp", **arguments)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"combine": "products"}, "argument combine: unknown combine 'products'; known: b1, .* Did you mean 'product'"),
        ({"combine": "sharp", "gamma": math.inf}, "argument gamma: expected a finite number, got inf"),
        ({"combine": "cross", "lambda_weight": torch.ones(6, 3)}, "argument lambda_weight: combine='cross' has no"),
        (
            {"combine": "sum", "lambda_weight": torch.ones(6, 3, requires_grad=True)},
            "argument lambda_weight: .* requires_grad=True",
        ),
    ],
)
def test_wrong_options(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"cross_modal_attention, {message}"):
        cross_modal_attention(relation(PLAIN), *node_tensors(PLAIN, "sdds", dtype=torch.float32), **kwargs)
