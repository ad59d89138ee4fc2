from __future__ import annotations

import pytest
import torch

from hgmm.kernels import _segment
from hgmm.models._projection import project_rows

E, W, D = 7, 5, 3


@pytest.mark.parametrize("ids", [None, torch.tensor([6, 0, 3, 3]), torch.tensor([], dtype=torch.int64)], ids=str)
@pytest.mark.parametrize("block", [1, 2 * W, 1 << 19])
def test_equals_the_product(ids: torch.Tensor | None, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    generator = torch.Generator().manual_seed(0)
    table, weight = (torch.randn(n, W, generator=generator, dtype=torch.float64) for n in (E, D))
    bias = torch.randn(D, generator=generator, dtype=torch.float64)
    leaves = [weight.requires_grad_(), bias.requires_grad_()]
    expected = (table if ids is None else table[ids]) @ weight.T + bias
    out = project_rows(table, ids, *leaves)
    torch.testing.assert_close(out, expected)
    scale = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    for grad, wanted in zip(
        torch.autograd.grad((out * scale).sum(), leaves),
        torch.autograd.grad((expected * scale).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(grad, wanted)
    assert torch.autograd.gradcheck(lambda w, b: project_rows(table, ids, w, b), leaves)


def test_rows_are_cast_to_the_weights_and_either_may_be_frozen() -> None:
    table, weight, bias = torch.ones(E, W, dtype=torch.float16), torch.ones(D, W), torch.ones(D, requires_grad=True)
    for ids in (None, torch.tensor([1])):
        out = project_rows(table, ids, weight, bias)
        assert out.dtype == torch.float32
        assert out.eq(W + 1).all()
        (grad,) = torch.autograd.grad(out.sum(), bias)
        assert grad.eq(len(out)).all()
