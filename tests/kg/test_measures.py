from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels import _segment
from hgmm.kg.measures import MEASURES, Measure, measure, measure_all, measure_gathered

EACH = pytest.mark.parametrize("kind", MEASURES)
B, K, S, A, M, D, N = 4, 3, 2, 2, 3, 4, 5
BLOCKS = pytest.mark.parametrize("block", [1, 1 << 19], ids=["one-row", "all-rows"])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def gathered_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    entity = torch.randint(N, (B, K), generator=generator)
    side = torch.randint(S, (B, K), generator=generator).to(torch.int8)
    pairs = torch.tensor([[[0, 0], [1, 2], [1, 0], [0, 1]], [[0, 2], [0, 1], [1, 0], [1, 1]]])
    return draw(B, S, A, D), draw(N, M, D, seed=1), entity, side, pairs


def gathered_oracle(query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, kind: Measure) -> Tensor:
    rows = []
    for b in range(B):
        for k in range(K):
            s = int(side[b, k])
            rows += [measure(query[b, s, a], table[entity[b, k], m], kind) for a, m in pairs[s].tolist()]
    return torch.stack(rows).view(B, K, pairs.shape[1])


@BLOCKS
@EACH
def test_gathered_rows_and_their_derivatives(kind: Measure, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    query, table, entity, side, pairs = gathered_inputs()
    out = measure_gathered(query, table, entity, side, pairs, kind)
    expected = gathered_oracle(query, table, entity, side, pairs, kind)
    torch.testing.assert_close(out, expected)
    weight = draw(B, K, pairs.shape[1], seed=5).detach()
    grads = torch.autograd.grad((out * weight).sum(), [query, table])
    wanted = torch.autograd.grad((expected * weight).sum(), [query, table])
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want)


@EACH
def test_gradients_of_gathered_rows_by_finite_differences(kind: Measure) -> None:
    query, table, *rest = gathered_inputs()
    assert torch.autograd.gradcheck(lambda q, t: measure_gathered(q, t, *rest, kind), [query, table])


@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
@pytest.mark.parametrize("columns", [0, 2, 3])
@EACH
def test_sharing_changes_no_result(kind: Measure, columns: int, chunks: int) -> None:
    query, table, entity, side, pairs = gathered_inputs()
    shared = torch.randint(N, (chunks, columns), generator=torch.Generator().manual_seed(5))
    rows = -(-B // chunks)
    # As they are all drawn alone, then with most of them as they are shared.
    drawn = entity.clone()
    drawn[:, K - columns :] = shared.repeat_interleave(rows, 0)[:B]
    drawn[1] = entity[1]
    for given in (entity, drawn):
        out = measure_gathered(query, table, given, side, pairs, kind, shared=shared)
        expected = gathered_oracle(query, table, given, side, pairs, kind)
        torch.testing.assert_close(out, expected)
        weight = draw(B, K, pairs.shape[1], seed=5).detach()
        grads = torch.autograd.grad((out * weight).sum(), [query, table])
        wanted = torch.autograd.grad((expected * weight).sum(), [query, table])
        for grad, want in zip(grads, wanted, strict=True):
            torch.testing.assert_close(grad, want)


@BLOCKS
@EACH
def test_all_candidates_equal_one_by_one(kind: Measure, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    query, candidates = draw(11, D), draw(N, D, seed=1)
    expected = measure(query.unsqueeze(1), candidates, kind)
    torch.testing.assert_close(measure_all(query, candidates, kind), expected)
    assert torch.autograd.gradcheck(lambda q, c: measure_all(q, c, kind), [query, candidates])


@EACH
def test_nothing_to_compare(kind: Measure) -> None:
    query, table, entity, side, pairs = gathered_inputs()
    assert measure_gathered(query, table, entity[:, :0], side[:, :0], pairs, kind).shape == (B, 0, 4)
    assert measure_gathered(query, table, entity, side, pairs[:, :0], kind).shape == (B, K, 0)
    assert measure_all(query[:0, 0, 0], table[:, 0], kind).shape == (0, N)
    assert measure_all(query[:, 0, 0], table[:0, 0], kind).shape == (B, 0)


@pytest.mark.parametrize("kind", [3, "cosine", True])
def test_unknown_measure(kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"unknown measure {kind!r}; known: 1, 2, complex, dot"):
        measure(draw(2), draw(2), kind)


def test_wrong_shapes() -> None:
    query, table, entity, side, pairs = gathered_inputs()
    with pytest.raises(ShapeError, match=r"query: expected shape \(B, S, A, D\), got \(4, 2, 4\)"):
        measure_gathered(query[:, :, 0], table, entity, side, pairs)
    with pytest.raises(ShapeError, match=r"table: expected shape \(N, M, 4\), got \(5, 3, 2\)"):
        measure_gathered(query, table[..., :2], entity, side, pairs)
    with pytest.raises(ShapeError, match=r"entity: expected shape \(4, K\), got \(3, 3\)"):
        measure_gathered(query, table, entity[1:], side, pairs)
    with pytest.raises(ShapeError, match=r"side: expected shape \(4, 3\), got \(4, 2\)"):
        measure_gathered(query, table, entity, side[:, 1:], pairs)
    with pytest.raises(ShapeError, match=r"pairs: expected shape \(2, P, 2\), got \(1, 4, 2\)"):
        measure_gathered(query, table, entity, side, pairs[:1])
    for wrong in (entity.new_zeros(2, K + 1), entity.new_zeros(0, K), entity.new_zeros(B + 1, K)):
        with pytest.raises(ShapeError, match=r"shared: expected \(C, L\) with C in \[1, 4\] and L in \[0, 3\], got \("):
            measure_gathered(query, table, entity, side, pairs, "dot", shared=wrong)
    with pytest.raises(ShapeError, match=r"query: expected shape \(Q, D\), got \(4,\)"):
        measure_all(query[:, 0, 0, 0], table[:, 0], 1)
    with pytest.raises(ShapeError, match=r"candidates: expected shape \(E, 4\), got \(5, 3, 4\)"):
        measure_all(query[:, 0, 0], table, 1)


@EACH
def test_ids_out_of_range_are_refused_and_queries_of_any_layout_taken(kind: Measure) -> None:
    query, table = torch.randn(2, 2, 3, 4).permute(2, 0, 1, 3).requires_grad_(), torch.randn(5, 2, 4)
    entity, side = torch.tensor([[0, 4]] * 3), torch.tensor([[0, 1]] * 3, dtype=torch.int8)
    pairs = torch.tensor([[[0, 0]], [[1, 1]]])
    for broken, name in (((entity, side * 2), "side"), ((entity - 1, side), "entity"), ((entity + 1, side), "entity")):
        with pytest.raises(ConfigError, match=rf"argument {name}: ids lie in \[0, "):
            measure_gathered(query, table, *broken, pairs, kind)
    (grad,) = torch.autograd.grad(measure_gathered(query, table, entity, side, pairs, kind).sum(), query)
    (plain,) = torch.autograd.grad(measure_gathered(query.contiguous(), table, entity, side, pairs, kind).sum(), query)
    assert torch.equal(grad, plain)
