from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, HgmmError, ShapeError
from hgmm.kernels import translational_score
from hgmm.kernels.translational_score import TranslationalInputs, reference
from tests.kernels.cases import gradients
from tests.kernels.problems import DRAWS, TRANSLATIONAL_NORMS, Draws, translational_ids
from tests.kernels.problems import translational_call as call
from tests.kernels.problems import translational_leaves as leaves_of
from tests.oracles import translational_score_oracle
from tests.tolerances import close

PLAIN = DRAWS["plain"]


@pytest.fixture(autouse=True)
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")


@pytest.mark.parametrize("block", [1, 1 << 19])
@pytest.mark.parametrize("P", [1, 3])
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_results_and_gradients_equal_the_oracle(
    norm: Any, name: str, P: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "block_rows", lambda x: block)
    draws = DRAWS[name]
    leaves, ids = leaves_of(draws, "float64", M=2, D=4), translational_ids(draws, M=2, P=P)
    actual, expected = translational_score(*leaves, *ids, norm), translational_score_oracle(*leaves, *ids, norm)
    close(actual, expected, torch.float64)
    for a, b in zip(gradients((actual,), leaves), gradients((expected,), leaves), strict=True):
        close(a, b, torch.float64)


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_gradcheck_twice(norm: Any) -> None:
    draws = Draws(2, 3, 4)
    leaves = tuple((x.detach() + 0.1 * i).requires_grad_() for i, x in enumerate(leaves_of(draws, "float64", M=2, D=4)))
    run = call(draws, M=2, P=2, norm=norm)
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_the_derivative_at_distance_zero_is_zero(norm: Any) -> None:
    leaves = leaves_of(PLAIN, "float64", M=2, D=4)
    out = call(PLAIN, M=2, P=1, norm=norm)(*leaves)[0]
    assert out is not None
    assert out[0, 0, 0] == 0
    assert all(not grad.any() for grad in torch.autograd.grad(out[0, 0, 0], leaves))


def test_norms_by_hand() -> None:
    query = torch.tensor([3.0, 5.0, 0.0, 12.0]).view(1, 1, 1, 4)
    entity, side, pairs = (
        torch.zeros(1, 1, dtype=torch.int64),
        torch.zeros(1, 1, dtype=torch.int8),
        torch.zeros(1, 1, 2),
    )
    table = torch.tensor([0.0, 0.0, 4.0, 0.0]).view(1, 1, 4)
    found = [translational_score(query, table, entity, side, pairs.long(), norm).item() for norm in (1, 2, "complex")]
    # The complex numbers are 3 - 4i and 5 + 12i.
    assert found == pytest.approx([24, 194**0.5, 5 + 13])


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_an_entity_that_was_not_drawn_gets_no_gradient(norm: Any) -> None:
    leaves = leaves_of(DRAWS["one-entity"], "float64", M=2, D=4)
    entity, *_ = translational_ids(DRAWS["one-entity"], M=2, P=4)
    grad = gradients(call(DRAWS["one-entity"], M=2, P=4, norm=norm)(*leaves), leaves)[1]
    drawn = torch.isin(torch.arange(len(grad)), entity)
    assert not drawn.all()
    assert torch.equal(grad.flatten(1).any(1), drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_lower_precision_accumulates_in_float32(norm: Any, dtype: torch.dtype) -> None:
    leaves = [x.detach().to(dtype).requires_grad_() for x in leaves_of(PLAIN, "float64", M=2, D=64)]
    run = call(PLAIN, M=2, P=2, norm=norm)
    (out,), (wide,) = run(*leaves), run(*(x.double() for x in leaves))
    assert out is not None
    assert wide is not None
    assert out.dtype == dtype
    close(out, wide, dtype)
    assert [grad.dtype for grad in gradients((out,), leaves)] == [dtype, dtype]


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_inputs_may_have_any_strides_and_are_not_written(norm: Any) -> None:
    leaves = [x.detach() for x in leaves_of(PLAIN, "float64", M=2, D=4)]
    ids = translational_ids(PLAIN, M=2, P=2)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in (*leaves, *ids)]
    copies = [x.clone() for x in strided]
    assert not any(x.is_contiguous() for x in strided)
    assert torch.equal(translational_score(*strided, norm), translational_score(*leaves, *ids, norm))
    assert all(torch.equal(x, y) for x, y in zip(strided, copies, strict=True))


def test_int32_and_int64_ids_give_the_same_bits() -> None:
    leaves = leaves_of(PLAIN, "float64", M=2, D=4)
    a, b = (call(PLAIN, M=2, P=2, norm=1, index=index)(*leaves)[0] for index in (torch.int32, torch.int64))
    assert a is not None
    assert b is not None
    assert torch.equal(a, b)


def test_nothing_as_large_as_all_differences_is_allocated(largest_allocation: Any) -> None:
    draws = Draws(64, 64, 10)
    leaves = [x.detach() for x in leaves_of(draws, "float32", M=2, D=512)]
    inputs = TranslationalInputs(*leaves, *translational_ids(draws, M=2, P=1), "1")
    with largest_allocation() as seen:
        reference.run(inputs)
    assert 0 < seen.numel <= 1 << 19 < 64 * 64 * 512


def test_inputs_describe_themselves() -> None:
    inputs = TranslationalInputs(*leaves_of(PLAIN, "float32", M=2, D=4), *translational_ids(PLAIN, M=2, P=3), "1")
    assert str(inputs) == (
        "query float32 (5, 2, 2, 4) on cpu, table float32 (6, 2, 4) on cpu, entity int64 (5, 7) on cpu, "
        "pairs int64 (2, 3, 2) on cpu, norm 1"
    )


def arguments(**changed: Any) -> dict[str, Any]:
    names = ("query", "table", "entity", "side", "pairs")
    tensors = (*leaves_of(PLAIN, "float32", M=2, D=5), *translational_ids(PLAIN, M=2, P=3))
    return dict(zip(names, tensors, strict=True)) | changed


def wrong(error: type[HgmmError], name: str, value: Any, message: str) -> None:
    with pytest.raises(error, match=f"translational_score, argument {name}.*: .*{message}"):
        translational_score(**arguments(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("query", np.zeros((5, 2, 2, 5)), "torch.Tensor, got ndarray"),
        ("query", torch.zeros(5, 2, 5), r"\(B, S, A, D\), got \(5, 2, 5\)"),
        ("query", torch.zeros(5, 2, 0, 5), r"at least 1, got shape \(5, 2, 0, 5\)"),
        ("query", torch.zeros(5, 2, 2, 5, dtype=torch.int64), r"float16, got int64 \(5, 2, 2, 5\)"),
        ("table", torch.zeros(6, 2, 4), r"\(N, M, 5\), got \(6, 2, 4\)"),
        ("table", torch.zeros(6, 0, 5), r"at least 1, got shape \(6, 0, 5\)"),
        ("table", torch.zeros(6, 2, 5, dtype=torch.float64), r"half precision beside float32, got float64 \(6, 2, 5\)"),
        ("table", torch.zeros(6, 2, 5, device="meta"), r"device of query, .*cpu, .* on meta"),
        ("table", torch.zeros(6, 2, 5).to_sparse(), "dense tensor, got torch.sparse_coo"),
        ("entity", torch.zeros(4, 7, dtype=torch.int64), r"\(5, K\), got \(4, 7\)"),
        ("entity", torch.zeros(5, 7), r"int32 or int64 .* got float32 \(5, 7\)"),
        ("side", torch.zeros(5, 6, dtype=torch.int8), r"\(5, 7\), got \(5, 6\)"),
        ("side", torch.zeros(5, 7, dtype=torch.int64), r"int8 .* got int64 \(5, 7\)"),
        ("pairs", torch.zeros(1, 3, 2, dtype=torch.int64), r"\(2, P, 2\), got \(1, 3, 2\)"),
        ("pairs", torch.zeros(2, 0, 2, dtype=torch.int64), r"at least 1, got shape \(2, 0, 2\)"),
        ("pairs", torch.zeros(2, 3, 2, dtype=torch.int32), r"int64 .* got int32 \(2, 3, 2\)"),
    ],
)
def test_wrong_tensors(name: str, value: Any, message: str) -> None:
    wrong(ShapeError, name, value, message)


def with_entry(name: str, place: tuple[int, ...], value: int, dtype: torch.dtype | None = None) -> Tensor:
    x: Tensor = arguments()[name].clone()
    x = x if dtype is None else x.to(dtype)
    x[place] = value
    return x


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("entity", with_entry("entity", (1, 2), 6), r"\[0, 6\), got 6 at \(1, 2\)"),
        ("entity", with_entry("entity", (4, 6), -1), r"\[0, 6\), got -1 at \(4, 6\)"),
        ("entity", with_entry("entity", (1, 2), 2**40), rf"\[0, 6\), got {2**40} at \(1, 2\)"),
        ("entity", with_entry("entity", (1, 2), 2**31 - 1, torch.int32), rf"\[0, 6\), got {2**31 - 1} at \(1, 2\)"),
        ("entity", with_entry("entity", (0, 0), -5, torch.int32), r"\[0, 6\), got -5 at \(0, 0\)"),
        ("side", with_entry("side", (3, 0), 2), r"\[0, 2\), got 2 at \(3, 0\)"),
        ("side", with_entry("side", (3, 0), -1), r"\[0, 2\), got -1 at \(3, 0\)"),
        ("pairs", with_entry("pairs", (1, 2, 0), 2), r"\[0, 2\), got 2 at \(1, 2\)"),
        ("pairs", with_entry("pairs", (1, 0, 1), -3), r"\[0, 2\), got -3 at \(1, 0\)"),
    ],
)
def test_what_is_out_of_range(
    name: str, value: Tensor, message: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HGMM_BACKEND", backend)
    wrong(ConfigError, name, value, message)


@pytest.mark.parametrize("norm", [3, "l1", True])
def test_an_unknown_norm(norm: Any) -> None:
    with pytest.raises(ConfigError, match=f"argument norm: .*{norm}.*1, 2, complex"):
        translational_score(**arguments(), norm=norm)


def test_complex_numbers_have_two_parts() -> None:
    with pytest.raises(ShapeError, match="argument query: expected an even D for norm='complex', got 5"):
        translational_score(**arguments(), norm="complex")
