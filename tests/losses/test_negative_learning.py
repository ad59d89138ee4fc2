from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import BackendError, ConfigError, ShapeError
from hgmm.kernels import _segment
from hgmm.losses import NegativeLearningLoss, negative_learning_loss
from hgmm.losses.negative_learning import VARIANTS
from tests.oracles_negative_learning import negative_loss
from tests.tolerances import close

N, P, C = 6, 3, 5
BLOCKS = pytest.mark.parametrize("block", [1, 2 * C, 1 << 19], ids=["one-row", "two-rows", "all-rows"])


class Inputs:
    """Logits, dominant logits, target, pairs and weights, from a seed."""

    def __init__(self, dtype: torch.dtype = torch.float64, *, num_classes: int = C, std: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(3)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).mul(std).to(dtype)  # noqa: E731
        self.logits = draw(N, P, num_classes).requires_grad_()
        self.dominant = draw(N, num_classes).requires_grad_()
        self.target = torch.randint(num_classes, (N,), generator=generator)
        self.pairs = torch.rand(N, P, generator=generator) < 0.6
        self.weight = torch.rand(N, P, generator=generator, dtype=torch.float64).to(dtype)
        self.protected = torch.rand(N, num_classes, generator=generator) < 0.4
        # Nothing, all and one class left alone, too.
        self.protected[:3] = torch.tensor([False, True, False]).unsqueeze(1)
        self.protected[2, 1] = True


def grad_of(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss, x)[0]


def classes_of(protected: Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in protected]


@BLOCKS
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("spare", ["target", "protected"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_definition(
    variant: str, spare: str, temperature: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    x = Inputs()
    spared = classes_of(x.protected) if spare == "protected" else [{int(t)} for t in x.target]
    given: dict[str, Any] = {spare: getattr(x, spare), "pairs": x.pairs, "weight": x.weight}
    loss = negative_learning_loss(x.logits, x.dominant, variant=variant, temperature=temperature, **given)
    expected = negative_loss(
        x.logits, x.dominant, spared, variant=variant, pairs=x.pairs, weight=x.weight, temperature=temperature
    )
    close(loss, expected, torch.float64)
    close(grad_of(loss, x.logits), grad_of(expected, x.logits), torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_by_finite_differences(variant: str) -> None:
    x = Inputs(std=1.0)
    given: dict[str, Any] = {"variant": variant, "pairs": x.pairs, "weight": x.weight, "temperature": 1.7}

    def loss(logits: Tensor) -> Tensor:
        return negative_learning_loss(logits, x.dominant, x.target, reduction="none", **given)

    assert torch.autograd.gradcheck(loss, [x.logits])


def test_two_classes_under_nl() -> None:
    x = Inputs(num_classes=2)
    for dominant in (x.dominant, 1e4 * (torch.arange(2) != x.target.unsqueeze(1)).double()):
        loss = negative_learning_loss(x.logits, dominant, x.target, variant="nl", pairs=x.pairs)
        # With one class besides the target, "not the other one" is the cross-entropy.
        labels = x.target.unsqueeze(1).expand(N, P)[x.pairs]
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(x.logits[x.pairs], labels))


def at_target(x: Inputs, grad: Tensor) -> Tensor:
    return grad.gather(2, x.target.view(N, 1, 1).expand(N, P, 1)).squeeze(2)[x.pairs]


def test_nckd_leaves_the_target_alone_even_where_the_dominant_branch_is_sure() -> None:
    x = Inputs(torch.float32)
    sure = x.dominant.detach() + 300.0 * torch.nn.functional.one_hot(x.target, C)
    grads = []
    for dominant in (x.dominant, sure):
        loss = negative_learning_loss(x.logits, dominant, x.target, pairs=x.pairs, reduction="sum")
        grads.append(grad_of(loss, x.logits))
        assert at_target(x, grads[-1]).eq(0).all()
    close(grads[1], grads[0], torch.float32)
    others = torch.nn.functional.one_hot(x.target, C).bool().unsqueeze(1)
    p = x.logits.masked_fill(others, -torch.inf).softmax(2)
    q = x.dominant.unsqueeze(1).masked_fill(others, -torch.inf).softmax(2)
    close(grads[0], (p - q) * x.pairs.unsqueeze(2), torch.float32)


def test_mnl_pushes_the_target_down_and_nl_only_up() -> None:
    x = Inputs()
    down, up = (
        at_target(x, grad_of(negative_learning_loss(x.logits, x.dominant, x.target, variant=variant), x.logits))
        for variant in ("mnl", "nl")
    )
    assert down.gt(0).all()
    assert up.lt(0).all()


def test_mnl_is_nckd_and_the_target_weighted_by_what_the_dominant_branch_doubts() -> None:
    x = Inputs()
    given: dict[str, Any] = {"pairs": torch.ones(N, P, dtype=torch.bool), "reduction": "none"}
    mnl = negative_learning_loss(x.logits, x.dominant, x.target, variant="mnl", **given)
    nckd = negative_learning_loss(x.logits, x.dominant, x.target, variant="nckd", **given)
    q, p = x.dominant.softmax(1), x.logits.softmax(2)
    doubt = 1 - q.gather(1, x.target.unsqueeze(1))
    masked = q.scatter(1, x.target.unsqueeze(1), 0) / doubt
    entropy = torch.special.entr(masked).sum(1, keepdim=True)
    p_target = p.gather(2, x.target.view(N, 1, 1).expand(N, P, 1)).squeeze(2)
    torch.testing.assert_close(mnl, doubt * (entropy + nckd - torch.log1p(-p_target)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_gradient_into_the_dominant_row_or_beyond_the_pairs(variant: str) -> None:
    x = Inputs()
    logits = x.logits.detach().clone()
    logits[~x.pairs] = torch.nan
    logits.requires_grad_()
    dominant = torch.where(x.pairs.any(1, keepdim=True), x.dominant.detach(), torch.nan).requires_grad_()
    loss = negative_learning_loss(logits, dominant, x.target, variant=variant, pairs=x.pairs)
    assert not loss.isnan()
    grad, no_grad = torch.autograd.grad(loss, [logits, dominant], allow_unused=True)
    assert no_grad is None
    assert (grad.abs().sum(2) > 0).equal(x.pairs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_extreme_logits(variant: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(3, (200, 2, C), generator=generator) - 1
    logits = (signs * 1e4).to(dtype).requires_grad_()
    dominant = (signs.flip(0)[:, 0] * 1e4).to(dtype)
    target = torch.randint(C, (200,), generator=generator)
    loss = negative_learning_loss(logits, dominant, target, variant=variant)
    exact = logits.detach().double().requires_grad_()
    expected = negative_learning_loss(exact, dominant.double(), target, variant=variant)
    assert loss.isfinite()
    assert expected > 100
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    close(grad_of(loss * 400, logits), grad_of(expected * 400, exact), dtype)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_computes_in_float32(variant: str, dtype: torch.dtype) -> None:
    x = Inputs(dtype)
    loss = negative_learning_loss(x.logits, x.dominant, x.target, variant=variant, pairs=x.pairs, weight=x.weight)
    exact = x.logits.detach().double().requires_grad_()
    expected = negative_learning_loss(
        exact, x.dominant.double(), x.target, variant=variant, pairs=x.pairs, weight=x.weight.double()
    )
    assert loss.dtype == torch.float32
    close(loss, expected, torch.float32)
    grad = grad_of(loss, x.logits)
    assert grad.dtype == dtype
    close(grad, grad_of(expected, exact), dtype)


def test_nl_teaches_a_branch_that_is_sure_of_a_wrong_class() -> None:
    logits = torch.tensor([[0.0, 60.0, 0.0]], requires_grad=True)
    dominant = torch.tensor([[0.0, -60.0, -60.0]])
    loss = negative_learning_loss(logits, dominant, torch.tensor([0]), variant="nl")
    assert loss.item() == pytest.approx((60 - math.log(2)) / 2, rel=1e-6)
    assert grad_of(loss, logits).tolist() == [pytest.approx([-0.25, 0.5, -0.25])]


def test_weights_are_no_part_of_the_denominator() -> None:
    x = Inputs()
    each = negative_learning_loss(x.logits, x.dominant, x.target, pairs=x.pairs, weight=x.weight, reduction="none")
    total = negative_learning_loss(x.logits, x.dominant, x.target, pairs=x.pairs, weight=x.weight, reduction="sum")
    mean = negative_learning_loss(x.logits, x.dominant, x.target, pairs=x.pairs, weight=x.weight)
    half = negative_learning_loss(x.logits, x.dominant, x.target, pairs=x.pairs, weight=x.weight / 2)
    bare = negative_learning_loss(x.logits, x.dominant, x.target, reduction="none")
    torch.testing.assert_close(each, bare * x.weight * x.pairs)
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, total / x.pairs.sum())
    torch.testing.assert_close(half, mean / 2)


def test_nothing_to_teach() -> None:
    x = Inputs()
    for pairs, weight in ((torch.zeros_like(x.pairs), None), (x.pairs, torch.zeros(N, P))):
        loss = negative_learning_loss(x.logits, x.dominant, x.target, pairs=pairs, weight=weight)
        assert loss.item() == 0
        assert grad_of(loss, x.logits).eq(0).all()
    empty = negative_learning_loss(x.logits[:0], x.dominant[:0], x.target[:0])
    assert empty.item() == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_permutations_of_nodes_and_classes(variant: str) -> None:
    x = Inputs()
    nodes, classes = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([2, 0, 4, 1, 3])
    loss = negative_learning_loss(x.logits, x.dominant, x.target, variant=variant, pairs=x.pairs)
    moved = negative_learning_loss(
        x.logits[nodes][..., classes],
        x.dominant[nodes][:, classes],
        classes.argsort()[x.target[nodes]],
        variant=variant,
        pairs=x.pairs[nodes],
    )
    torch.testing.assert_close(moved, loss)
    torch.testing.assert_close(grad_of(moved, x.logits), grad_of(loss, x.logits))


def test_one_branch_needs_no_axis_and_dominant_logits_broadcast() -> None:
    x = Inputs()
    flat = negative_learning_loss(x.logits[:, 0], x.dominant, x.target, reduction="none")
    deep = negative_learning_loss(x.logits, x.dominant, x.target, reduction="none")
    torch.testing.assert_close(flat, deep[:, 0])
    by_branch = x.dominant.unsqueeze(1).expand(N, P, C)
    torch.testing.assert_close(negative_learning_loss(x.logits, by_branch, x.target, reduction="none"), deep)
    one = x.dominant[:1]
    everyone = negative_learning_loss(x.logits, one.expand(N, C), x.target)
    torch.testing.assert_close(negative_learning_loss(x.logits, one, x.target), everyone)


def test_layouts_and_repeated_backward() -> None:
    x = Inputs()
    strided = x.logits.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    loss = negative_learning_loss(strided, x.dominant, x.target)
    expected = grad_of(negative_learning_loss(x.logits, x.dominant, x.target), x.logits)
    for _ in range(2):
        (grad,) = torch.autograd.grad(loss, strided, retain_graph=True)
        torch.testing.assert_close(grad, expected)


def test_second_derivatives_are_refused() -> None:
    x = Inputs()
    (grad,) = torch.autograd.grad(negative_learning_loss(x.logits, x.dominant, x.target), x.logits, create_graph=True)
    with pytest.raises(BackendError, match="negative_learning_loss: double backward was asked for"):
        grad.sum().backward()


def test_module_passes_its_options_on() -> None:
    x = Inputs()
    module = NegativeLearningLoss("mnl", temperature=2.0, reduction="sum")
    expected = negative_learning_loss(
        x.logits, x.dominant, x.target, variant="mnl", temperature=2.0, reduction="sum", pairs=x.pairs, weight=x.weight
    )
    assert module(x.logits, x.dominant, x.target, pairs=x.pairs, weight=x.weight).item() == expected.item()
    assert module(x.logits, x.dominant, protected=x.protected).isfinite()
    assert repr(module) == "NegativeLearningLoss('mnl', temperature=2.0, reduction='sum')"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"variant": "nkd"}, "unknown variant 'nkd'; known: kl, mnl, nckd, nl"),
        ({"reduction": "avg"}, "unknown reduction 'avg'; known: mean, none, sum"),
        ({"temperature": 0.0}, "temperature: must be a finite number above 0, got 0.0"),
        ({"temperature": math.nan}, "temperature: .* got nan"),
    ],
    ids=str,
)
def test_wrong_options(option: dict[str, Any], message: str) -> None:
    x = Inputs()
    with pytest.raises(ConfigError, match=message):
        negative_learning_loss(x.logits, x.dominant, x.target, **option)
    with pytest.raises(ConfigError, match=message):
        NegativeLearningLoss(**option)


def test_nckd_refuses_two_classes() -> None:
    x = Inputs(num_classes=2)
    with pytest.raises(ConfigError, match=r"'nckd' .* C = 2 .* take 'nl'"):
        negative_learning_loss(x.logits, x.dominant, x.target)


@pytest.mark.parametrize("wrong", [-1, C])
def test_targets_outside_the_classes(wrong: int) -> None:
    x = Inputs()
    x.target[2] = wrong
    with pytest.raises(ConfigError, match=rf"target: classes lie in \[0, 5\), got {wrong} in row 2"):
        negative_learning_loss(x.logits, x.dominant, x.target)


@pytest.mark.parametrize("wrong", [-0.5, math.nan])
def test_weights_below_0(wrong: float) -> None:
    logits = torch.zeros(2, 2, 3)
    weight = torch.tensor([[1.0, 0.0], [0.0, wrong]])
    with pytest.raises(ConfigError, match=rf"weight: must be at least 0, got {wrong} at \[1, 1\]"):
        negative_learning_loss(logits, logits[:, 0], torch.tensor([0, 1]), weight=weight)


def test_target_or_protected() -> None:
    x = Inputs()
    with pytest.raises(ConfigError, match="give one of the two, got neither"):
        negative_learning_loss(x.logits, x.dominant)
    with pytest.raises(ConfigError, match="give one of the two, got both"):
        negative_learning_loss(x.logits, x.dominant, x.target, protected=x.protected)


def test_wrong_shapes() -> None:
    x = Inputs()
    with pytest.raises(ShapeError, match=r"logits: expected .* \(n, P, C\) .* got \(5,\)"):
        negative_learning_loss(x.logits[0, 0], x.dominant, x.target)
    with pytest.raises(ShapeError, match=r"C of at least 2, got \(6, 3, 1\)"):
        negative_learning_loss(x.logits[..., :1], x.dominant[:, :1], x.target)
    for dominant in (x.dominant[:4], x.dominant[:, 1:], x.logits[:, :2], x.dominant[0, 0]):
        came = re.escape(str(tuple(dominant.shape)))
        with pytest.raises(ShapeError, match=rf"dominant_logits: expected \(6, 5\) or \(6, 3, 5\), .*, got {came}"):
            negative_learning_loss(x.logits, dominant, x.target)
    with pytest.raises(ShapeError, match=r"dominant_logits: .*, got \(6, 1, 5\)"):
        negative_learning_loss(x.logits[:, 0], x.dominant.unsqueeze(1), x.target)
    with pytest.raises(ShapeError, match=r"target: expected shape \(6,\), got \(5,\)"):
        negative_learning_loss(x.logits, x.dominant, x.target[1:])
    with pytest.raises(ShapeError, match="target: expected dtype int64, got int32"):
        negative_learning_loss(x.logits, x.dominant, x.target.int())
    with pytest.raises(ShapeError, match=r"protected: expected shape \(6, 5\), got \(6, 4\)"):
        negative_learning_loss(x.logits, x.dominant, protected=x.protected[:, 1:])
    with pytest.raises(ShapeError, match=r"pairs: expected shape \(6, 3\), got \(6, 2\)"):
        negative_learning_loss(x.logits, x.dominant, x.target, pairs=x.pairs[:, 1:])
    with pytest.raises(ShapeError, match="pairs: expected dtype bool, got int64"):
        negative_learning_loss(x.logits, x.dominant, x.target, pairs=x.pairs.long())
    with pytest.raises(ShapeError, match=r"weight: expected shape \(6, 3\), got \(6,\)"):
        negative_learning_loss(x.logits, x.dominant, x.target, weight=x.weight[:, 0])
