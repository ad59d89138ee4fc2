from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hgmm.kernels import _segment
from hgmm.kernels._segment import (
    EdgeIndex,
    gather_dot,
    gather_sum,
    segment_log_softmax,
    segment_softmax,
    segment_sum,
)
from hgmm.typing import RelationCSC
from tests.kernels.cases import CASES, Case, generator, node_tensors, relation
from tests.tolerances import close


def edges_of(case: Case) -> EdgeIndex:
    return EdgeIndex.from_csc(relation(case))


def edge_tensor(edges: EdgeIndex, *shape: int, seed: int = 3) -> Tensor:
    return torch.randn(edges.src.numel(), *shape, generator=generator(seed), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_edge_index_holds_the_ends_of_each_edge(dtype: torch.dtype) -> None:
    edges = EdgeIndex.from_csc(relation(Case((2, 0, 2), (0, 1, 1), 3, 2), dtype))
    assert edges.src.tolist() == [2, 0, 2]
    assert edges.dst.tolist() == [0, 1, 1]
    assert edges.order_t.tolist() == [1, 0, 2]
    assert {x.dtype for x in edges} == {dtype}


def test_mixed_index_dtypes_become_the_wider_one() -> None:
    csc = relation(CASES["plain"], torch.int32)
    for name in csc._fields:
        edges = EdgeIndex.from_csc(csc._replace(**{name: getattr(csc, name).long()}))
        assert {x.dtype for x in edges} == {torch.int64}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_keep_equals_a_relation_without_the_dropped_edges(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    mask = torch.arange(len(case.src)) % 3 != 1
    pairs = [(s, d) for s, d, stays in zip(case.src, case.dst, mask.tolist(), strict=True) if stays]
    fewer = case._replace(src=tuple(s for s, _ in pairs), dst=tuple(d for _, d in pairs))
    # The mask is in CSC order; a case sorted by destination has that order.
    ordered = sorted(range(len(case.dst)), key=lambda e: case.dst[e])
    edges, kept = EdgeIndex.from_csc(relation(case, dtype)).keep(mask[ordered])
    for name_, actual, expected in zip(
        EdgeIndex._fields, edges, EdgeIndex.from_csc(relation(fewer, dtype)), strict=True
    ):
        torch.testing.assert_close(actual, expected, msg=name_)
    assert kept.tolist() == [position for position, e in enumerate(ordered) if mask[e]]


@pytest.mark.parametrize("block", [1, 37, 1 << 19])
@pytest.mark.parametrize("name", CASES)
def test_gather_dot_equals_the_materialised_product(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    edges = edges_of(CASES[name])
    x_dst, x_src = node_tensors(CASES[name], "ds")
    close(gather_dot(edges, x_dst, x_src), (x_dst[edges.dst] * x_src[edges.src]).sum(-1), torch.float64)


@pytest.mark.parametrize("to_src", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gather_sum_equals_the_materialised_sum(name: str, to_src: bool) -> None:
    edges = edges_of(CASES[name])
    (value,) = node_tensors(CASES[name], "d" if to_src else "s")
    weight = edge_tensor(edges, 3, 2)
    ends = (edges.dst, edges.src) if to_src else (edges.src, edges.dst)
    rows = CASES[name].num_src if to_src else CASES[name].num_dst
    expected = torch.zeros(rows, 3, 2, 3, dtype=torch.float64).index_add(0, ends[1], value[ends[0]] * weight[..., None])
    close(gather_sum(edges, weight, value, to_src=to_src), expected, torch.float64)


def test_primitives_pass_gradcheck_twice() -> None:
    edges = edges_of(CASES["plain"])
    x_dst, x_src = node_tensors(CASES["plain"], "ds", M=2, H=1, D=2)
    weight, logits = edge_tensor(edges, 2, 1), edge_tensor(edges, 3)
    for function, inputs in (
        (lambda a, b: gather_dot(edges, a, b), (x_dst, x_src)),
        (lambda w, b: gather_sum(edges, w, b), (weight, x_src)),
        (lambda w, a: gather_sum(edges, w, a, to_src=True), (weight, x_dst)),
        (lambda x: segment_sum(edges, x), (logits,)),
        (lambda x: segment_softmax(edges, x), (logits,)),
        (lambda x: segment_log_softmax(edges, x), (logits,)),
    ):
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_primitives_skip_gradients_that_nobody_asked_for() -> None:
    edges = edges_of(CASES["plain"])
    x_dst, x_src = node_tensors(CASES["plain"], "ds")
    gather_dot(edges, x_dst, x_src.detach()).sum().backward()
    gather_sum(edges, edge_tensor(edges, 3, 2), x_src.detach()).sum().backward()
    assert x_dst.grad is not None
    assert x_src.grad is None


@pytest.mark.parametrize("name", CASES)
def test_segment_softmax_equals_torch_on_each_row(name: str) -> None:
    csc = relation(CASES[name])
    edges = EdgeIndex.from_csc(csc)
    logits = edge_tensor(edges, 3, 2).detach()
    softmax, log_softmax = segment_softmax(edges, logits), segment_log_softmax(edges, logits)
    sums = segment_sum(edges, logits)
    for i in range(csc.num_dst):
        row = slice(int(csc.indptr[i]), int(csc.indptr[i + 1]))
        close(softmax[row], logits[row].softmax(0), torch.float64)
        close(log_softmax[row], logits[row].log_softmax(0), torch.float64)
        close(sums[i], logits[row].sum(0), torch.float64)


def test_segment_softmax_takes_edges_with_minus_infinity_out() -> None:
    edges = edges_of(Case((0, 1, 2, 3), (0, 0, 1, 1), 4, 2))
    logits = torch.tensor([0.0, -math.inf, -math.inf, -math.inf], requires_grad=True)
    softmax, log_softmax = segment_softmax(edges, logits), segment_log_softmax(edges, logits)
    assert softmax.tolist() == [1, 0, 0, 0]
    assert log_softmax.tolist() == [0, -math.inf, -math.inf, -math.inf]
    (softmax.sum() + log_softmax[0]).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [0, 0, 0, 0]


def test_segment_softmax_is_finite_at_extreme_logits() -> None:
    edges = edges_of(Case((0, 1, 2), (0, 0, 0), 3, 1))
    logits = torch.tensor([1e4, -1e4, 1e4])
    assert segment_softmax(edges, logits).tolist() == [0.5, 0, 0.5]
    torch.testing.assert_close(segment_log_softmax(edges, logits), torch.tensor([0, -2e4, 0]) - math.log(2))


def test_index_tensors_are_made_one_without_cutting_numbers() -> None:
    narrow = RelationCSC(*[torch.tensor([0, 5], dtype=torch.int32)] * 5)
    assert _segment.uniform_index(narrow) is narrow
    mixed = narrow._replace(indptr_t=torch.tensor([0, 2**31 + 5]))
    made = _segment.uniform_index(mixed)
    assert {x.dtype for x in made} == {torch.int64}
    assert made.indptr_t.tolist() == [0, 2**31 + 5]
