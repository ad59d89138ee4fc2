from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError, ShapeError
from hgmm.losses import negative_learning_loss
from hgmm.negative_learning import protected_classes
from tests.negative_learning.cases import C, N, P, nodes


@pytest.mark.parametrize("some", [True, False], ids=["some", "all"])
def test_equals_the_definition(some: bool) -> None:
    x = nodes()
    x.fused *= 3
    has = x.available if some else torch.ones(N, P, dtype=torch.bool)
    found = protected_classes(x.fused, x.logits, x.available if some else None, min_confidence=0.8)
    for i in range(N):
        wanted = {int(x.fused[i].argmax())} | {int(x.logits[i, b].argmax()) for b in range(P) if has[i, b]}
        assert set(found.classes[i].nonzero().flatten().tolist()) == wanted
        assert bool(found.nodes[i]) == (float(x.fused[i].softmax(0).max()) >= 0.8)
    assert 0 < found.nodes.sum() < N


def test_no_branch_is_taught_to_drop_what_a_branch_holds_for_likeliest() -> None:
    x = nodes()
    x.logits.requires_grad_()
    found = protected_classes(x.fused, x.logits)
    loss = negative_learning_loss(x.logits, x.logits[:, 0], protected=found.classes, pairs=x.available)
    (grad,) = torch.autograd.grad(loss, x.logits)
    assert grad[found.classes.unsqueeze(1).expand_as(grad)].eq(0).all()
    assert grad.ne(0).any()


def test_wrong_arguments() -> None:
    x = nodes()
    with pytest.raises(ConfigError, match=r"min_confidence: must be .* at most 1, got 90"):
        protected_classes(x.fused, x.logits, min_confidence=90)
    with pytest.raises(ShapeError, match=r"fused_logits: expected shape \(40, 5\), got \(40, 4\)"):
        protected_classes(x.fused[:, 1:], x.logits)
    with pytest.raises(ShapeError, match=r"logits: expected shape \(n, P, C\) .*, got \(40, 5\)"):
        protected_classes(x.fused, x.fused)
    with pytest.raises(ShapeError, match=r"available: expected shape \(40, 4\), got \(40, 3\)"):
        protected_classes(x.fused, x.logits, x.available[:, 1:])
    with pytest.raises(ShapeError, match="available: expected dtype bool, got int64"):
        protected_classes(x.fused, x.logits, x.available.long())
    assert protected_classes(x.fused[:0], x.logits[:0]).classes.shape == (0, C)
