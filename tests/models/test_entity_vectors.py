from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hgmm.kernels import _segment
from hgmm.models._entity_vectors import Projected, entity_vectors

E, W, D = 7, 5, 3
TAKEN = torch.tensor([2, 0, 2, 1])


def inputs(seed: int = 0) -> tuple[Tensor, Projected]:
    generator = torch.Generator().manual_seed(seed)
    structure, features, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((E, D), (E, W), (D, W))
    )
    bias = torch.randn(D, generator=generator, dtype=torch.float64)
    return structure.requires_grad_(), Projected(features, weight.requires_grad_(), bias.requires_grad_())


def definition(structure: Tensor, modality: Projected, entities: Tensor | None, *, normalize: bool) -> Tensor:
    x = torch.stack([structure, modality.features @ modality.weight.T + modality.bias], 1)
    x = x if entities is None else x[entities]
    return F.normalize(x, dim=-1) if normalize else x


@pytest.mark.parametrize("entities", [None, torch.tensor([6, 0, 3])], ids=str)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("block", [1, 2 * W, 1 << 19])
@pytest.mark.parametrize("used", ["table", "taken", "both"])
def test_equals_the_definition(
    entities: Tensor | None, normalize: bool, block: int, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    structure, modality = inputs()
    leaves = [structure, modality.weight, modality.bias]
    expected = definition(structure, modality, entities, normalize=normalize)
    found = entity_vectors(structure, [modality], entities, TAKEN, normalize=normalize)
    wanted = (expected, expected[TAKEN])
    generator = torch.Generator().manual_seed(1)
    total = wanted_total = torch.zeros((), dtype=torch.float64)
    for name, x, y in zip(("table", "taken"), found, wanted, strict=True):
        torch.testing.assert_close(x, y)
        if used in (name, "both"):
            scale = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            total, wanted_total = total + (x * scale).sum(), wanted_total + (y * scale).sum()
    for grad, right in zip(torch.autograd.grad(total, leaves), torch.autograd.grad(wanted_total, leaves), strict=True):
        torch.testing.assert_close(grad, right)


def test_gradients_by_finite_differences() -> None:
    structure, modality = inputs()
    entities = torch.tensor([5, 1, 2])
    assert torch.autograd.gradcheck(
        lambda s, w, b: entity_vectors(s, [Projected(modality.features, w, b)], entities, TAKEN, normalize=True),
        (structure, modality.weight, modality.bias),
    )


def test_vectors_that_are_too_short_are_divided_by_a_constant() -> None:
    structure = torch.tensor([[0.0, 0.0], [3e-13, 4e-13], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    table, _ = entity_vectors(structure, [], None, TAKEN[:0], normalize=True)
    scale = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]], dtype=torch.float64)
    expected = F.normalize(structure, dim=-1)
    torch.testing.assert_close(table[:, 0], expected)
    (found,) = torch.autograd.grad((table[:, 0] * scale).sum(), structure)
    (wanted,) = torch.autograd.grad((expected * scale).sum(), structure)
    torch.testing.assert_close(found, wanted)


def test_rows_of_the_gradient() -> None:
    structure, modality = inputs()
    entities = torch.tensor([1, 4, 6])
    grads = []
    for row_gradient in (False, True):
        table, taken = entity_vectors(structure, [modality], entities, TAKEN, normalize=True, row_gradient=row_gradient)
        grads.append(torch.autograd.grad(table.square()[..., 0].sum() + taken[..., 1].sum(), structure)[0])
    dense, rows = grads
    assert dense.layout == torch.strided
    assert rows.is_sparse
    assert rows.coalesce().indices().tolist() == [entities.tolist()]
    assert rows.to_dense().equal(dense)
    # All entities have a row each: nothing would be saved.
    table, _ = entity_vectors(structure, [modality], None, TAKEN, normalize=True, row_gradient=True)
    assert torch.autograd.grad(table[..., 0].sum(), structure)[0].layout == torch.strided


def test_nothing_may_be_asked_for() -> None:
    structure, modality = inputs()
    table, taken = entity_vectors(structure, [modality], TAKEN[:0], TAKEN[:0], normalize=True)
    assert table.shape == taken.shape == (0, 2, D)
    for grad in torch.autograd.grad(table.sum(), [structure, modality.weight, modality.bias]):
        assert grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_vectors_of_half_precision_have_gradients(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(E, D, generator=generator).to(dtype).double().requires_grad_()
    scale = torch.randn(E, 1, D, generator=generator)
    results = []
    for structure in (exact, exact.detach().to(dtype).requires_grad_()):
        table, _ = entity_vectors(structure, [], None, TAKEN, normalize=True)
        results.append(torch.autograd.grad((table * scale).sum(), structure)[0].double())
    torch.testing.assert_close(results[1], results[0], rtol=0.05, atol=0.05)


def test_rows_are_cast_to_the_weights_and_either_may_be_frozen() -> None:
    structure = torch.ones(E, D)
    features, weight, bias = torch.ones(E, W, dtype=torch.float16), torch.ones(D, W), torch.ones(D, requires_grad=True)
    for entities in (None, torch.tensor([1])):
        table, _ = entity_vectors(structure, [Projected(features, weight, bias)], entities, TAKEN[:0], normalize=False)
        assert table.dtype == torch.float32
        assert table[:, 1].eq(W + 1).all()
        (grad,) = torch.autograd.grad(table[:, 1].sum(), bias)
        assert grad.eq(len(table)).all()
