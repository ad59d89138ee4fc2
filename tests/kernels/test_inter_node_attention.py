from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels import inter_node_attention
from hgmm.kernels.inter_node_attention import InterNodeInputs
from tests.kernels.cases import CASES, Case, generator, gradients, node_tensors, presence, relation
from tests.oracles import inter_node_attention_oracle
from tests.tolerances import close

PLAIN = CASES["plain"]
SEED = torch.tensor(-(2**40) - 17)


@pytest.fixture(autouse=True)
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")


def edge_bias(case: Case, *, M: int = 3, H: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    bias = torch.randn(len(case.src), M, H, generator=generator(7), dtype=torch.float64)
    return bias.to(dtype).requires_grad_()


@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("present", ["none", "all", "some"])
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_equal_the_oracle(name: str, present: str, biased: bool) -> None:
    case = CASES[name]
    leaves = node_tensors(case, "sds")
    kwargs: dict[str, Any] = {"present": presence(case, present), "edge_bias": edge_bias(case) if biased else None}
    actual = inter_node_attention(relation(case), *leaves, return_attention=True, **kwargs)
    expected = inter_node_attention_oracle(relation(case), *leaves, **kwargs)
    if biased:
        leaves.append(kwargs["edge_bias"])
    for x, y in zip(actual, expected, strict=True):
        assert x is not None
        close(x, y, torch.float64)
    for x, y in zip(gradients(actual, leaves), gradients(expected, leaves), strict=True):
        close(x, y, torch.float64)


@pytest.mark.parametrize("present", ["none", "some"])
@pytest.mark.parametrize("name", CASES)
def test_dropout_equals_the_oracle(name: str, present: str) -> None:
    case = CASES[name]
    leaves = node_tensors(case, "sds", H=5)
    kwargs: dict[str, Any] = {"present": presence(case, present), "dropout": 0.3, "seed": SEED}
    actual = inter_node_attention(relation(case), *leaves, return_attention=True, **kwargs)
    expected = inter_node_attention_oracle(relation(case), *leaves, **kwargs)
    for x, y in zip(actual, expected, strict=True):
        assert x is not None
        close(x, y, torch.float64)
    for x, y in zip(gradients(actual, leaves), gradients(expected, leaves), strict=True):
        close(x, y, torch.float64)


def test_dropout_drops_as_many_as_asked_and_keeps_the_mean() -> None:
    edges, M, H, dropout = 4000, 2, 3, 0.25
    case = Case(tuple(range(edges)), tuple(range(edges)), edges, edges)
    k, q, v = (torch.zeros(edges, M, H, 1) for _ in range(3))
    attn = inter_node_attention(relation(case), k, q, v, dropout=dropout, seed=SEED, return_attention=True).attn
    assert attn is not None
    assert attn.unique().tolist() == [0.0, pytest.approx(1 / (1 - dropout))]
    # Each of the 6 columns is binomial: its share lies within five standard deviations of 0.25.
    shares = (attn == 0).double().mean(0)
    assert float((shares - dropout).abs().max()) < 5 * (dropout * (1 - dropout) / edges) ** 0.5
    # Columns of one edge, and neighbouring edges, are drawn apart from each other.
    centred = (attn.view(edges, -1) == 0).double() - dropout
    assert float(torch.corrcoef(centred.t()).fill_diagonal_(0).abs().max()) < 5 * edges**-0.5
    assert float((centred[1:] * centred[:-1]).mean(0).abs().max()) < 5 * dropout * edges**-0.5


def test_dropout_depends_on_the_seed_and_on_nothing_else() -> None:
    csc, leaves = relation(CASES["hub"]), node_tensors(CASES["hub"], "sds")

    def attn(seed: int, csc: Any = csc) -> Tensor:
        result = inter_node_attention(csc, *leaves, dropout=0.5, seed=torch.tensor(seed), return_attention=True).attn
        assert result is not None
        return result

    torch.manual_seed(1)
    first = attn(3)
    torch.manual_seed(2)
    assert torch.equal(first, attn(3))
    assert torch.equal(first, attn(3, relation(CASES["hub"], torch.int32)))
    assert not torch.equal(first, attn(4))
    assert not torch.equal(first, attn(3 + 2**32))


def test_without_dropout_the_seed_changes_nothing() -> None:
    leaves = node_tensors(PLAIN, "sds")
    plain = inter_node_attention(relation(PLAIN), *leaves)
    assert torch.equal(plain.out, inter_node_attention(relation(PLAIN), *leaves, dropout=0.0, seed=SEED).out)


@pytest.mark.parametrize("present", ["none", "some"])
def test_gradcheck_with_dropout(present: str) -> None:
    case = Case((1, 2, 0, 3, 2), (0, 0, 0, 1, 1), 4, 3)
    mask = presence(case, present, M=2)

    def function(*x: Tensor) -> Tensor:
        return inter_node_attention(relation(case), *x, present=mask, dropout=0.4, seed=SEED).out

    assert torch.autograd.gradcheck(function, tuple(node_tensors(case, "sds", M=2, H=1, D=2)))


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"dropout": 1.0, "seed": SEED}, ConfigError, "argument dropout: .* below 1, got 1.0; 0 switches it off"),
        ({"dropout": -0.1, "seed": SEED}, ConfigError, "argument dropout: .* got -0.1"),
        ({"dropout": float("nan")}, ConfigError, "argument dropout: .* got nan"),
        ({"dropout": 0.5}, ConfigError, "argument seed: dropout=0.5 needs a seed, got None"),
        ({"seed": SEED.view(1)}, ShapeError, r"argument seed: expected .* int64 \(\) on cpu, got int64 \(1,\) on cpu"),
        ({"seed": SEED.int()}, ShapeError, r"argument seed: .* got int32 \(\) on cpu"),
        ({"seed": 5}, ShapeError, r"argument seed: expected a tensor int64 \(\) on cpu, got 5; torch.randint"),
        ({"seed": SEED.to("meta")}, ShapeError, r"argument seed: .* got int64 \(\) on meta"),
    ],
)
def test_wrong_dropout(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"inter_node_attention, {message}"):
        inter_node_attention(relation(PLAIN), *node_tensors(PLAIN, "sds"), **kwargs)


@pytest.mark.parametrize("present", ["none", "some"])
def test_gradcheck_twice(present: str) -> None:
    case = Case((1, 2, 0, 3, 2), (0, 0, 0, 1, 1), 4, 3)
    mask = presence(case, present, M=2)

    def function(*x: Tensor) -> tuple[Tensor, ...]:
        result = inter_node_attention(relation(case), *x[:3], present=mask, edge_bias=x[3], return_attention=True)
        return tuple(y for y in result if y is not None)

    leaves = (*node_tensors(case, "sds", M=2, H=1, D=2), edge_bias(case, M=2, H=1))
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def test_attention_sums_to_one_where_someone_has_the_modality() -> None:
    csc, mask = relation(PLAIN), presence(PLAIN, "some")
    assert mask is not None
    result = inter_node_attention(csc, *node_tensors(PLAIN, "sds"), present=mask, return_attention=True)
    assert result.attn is not None
    for i in range(csc.num_dst):
        row = slice(int(csc.indptr[i]), int(csc.indptr[i + 1]))
        has = mask[csc.indices[row]].any(0)[:, None].expand(3, 2)
        close(result.attn[row].sum(0), has, torch.float64)
        assert not result.out[i][~has].any()


def test_attention_is_none_unless_asked_for() -> None:
    assert inter_node_attention(relation(PLAIN), *node_tensors(PLAIN, "sds")).attn is None


def test_int32_and_int64_indices_give_the_same_bits() -> None:
    leaves = node_tensors(PLAIN, "sds")
    a, b = (inter_node_attention(relation(PLAIN, x), *leaves) for x in (torch.int32, torch.int64))
    assert torch.equal(a.out, b.out)


def test_inputs_may_have_any_strides_and_are_not_written() -> None:
    leaves = [x.detach() for x in node_tensors(PLAIN, "sds")]
    strided = [x.transpose(0, 3).contiguous().transpose(0, 3) for x in leaves]
    assert not any(x.is_contiguous() for x in strided)
    copies = [x.clone() for x in strided]
    out = inter_node_attention(relation(PLAIN), *strided).out
    assert torch.equal(out, inter_node_attention(relation(PLAIN), *leaves).out)
    assert all(torch.equal(x, y) for x, y in zip(strided, copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_accumulates_in_float32(dtype: torch.dtype) -> None:
    case = CASES["hub"]
    leaves, bias = node_tensors(case, "sds", dtype=dtype), edge_bias(case, dtype=dtype)
    result = inter_node_attention(relation(case), *leaves, edge_bias=bias, return_attention=True)
    exact = inter_node_attention(
        relation(case), *(x.double() for x in leaves), edge_bias=bias.double(), return_attention=True
    )
    for x, y in zip(result, exact, strict=True):
        assert x is not None
        assert y is not None
        assert x.dtype == dtype
        close(x, y, dtype)


def test_logits_at_1e4_stay_finite_in_float32() -> None:
    case = Case((0, 1, 2), (0, 0, 0), 3, 1)
    k = torch.tensor([1e4, -1e4, 1e4]).view(3, 1, 1, 1).requires_grad_()
    q = torch.ones(1, 1, 1, 1)
    v = torch.tensor([2.0, 9.0, 4.0]).view(3, 1, 1, 1)
    result = inter_node_attention(relation(case), k, q, v)
    result.out.sum().backward()
    assert result.out.item() == 3
    assert k.grad is not None
    assert k.grad.view(-1).tolist() == [-0.5, 0, 0.5]


def test_inputs_describe_themselves() -> None:
    k, q, v = node_tensors(PLAIN, "sds", dtype=torch.float32)
    inputs = InterNodeInputs(relation(PLAIN), k, q, v, None, None, 0.5, SEED, False)
    assert str(inputs) == (
        "k float32 (6, 3, 2, 3) on cpu, q float32 (5, 3, 2, 3) on cpu, 10 edges, present None, edge_bias None, "
        "dropout=0.5"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("csc", relation(PLAIN)._replace(indptr=torch.zeros(3, dtype=torch.int64)), "number of edges, 10, got 0 to 0"),
        ("k", torch.zeros(7, 3, 2, 3), r"N_src = 6 .* got \(7, 3, 2, 3\)"),
        ("q", torch.zeros(5, 3, 2, 2), r"\(N_dst, M, H, D\) = \(5, 3, 2, 3\), got \(5, 3, 2, 2\)"),
        ("v", torch.zeros(6, 3, 2, 3, dtype=torch.bfloat16), "dtype float32, got bfloat16"),
        ("present", torch.ones(6, 2, dtype=torch.bool), r"\(N_src, M\) = \(6, 3\), got \(6, 2\)"),
        ("edge_bias", torch.zeros(10, 3, 1), r"\(E, M, H\) = \(10, 3, 2\), got \(10, 3, 1\)"),
        ("edge_bias", torch.zeros(10, 3, 2, device="meta"), "device cpu, got meta"),
    ],
)
def test_wrong_tensors(name: str, value: Any, message: str) -> None:
    k, q, v = node_tensors(PLAIN, "sds", dtype=torch.float32)
    arguments = {"csc": relation(PLAIN), "k": k, "q": q, "v": v, name: value}
    with pytest.raises(ShapeError, match=f"inter_node_attention, argument {name}.*: expected .*{message}"):
        inter_node_attention(**arguments)


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "quantum")
    with pytest.raises(ConfigError, match="'quantum'"):
        inter_node_attention(relation(PLAIN), *node_tensors(PLAIN, "sds"))
