"""Gradients that have no derivative of their own, and say so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import BackendError

__all__ = ["first_derivatives_only"]

Backward = Callable[..., tuple[Tensor | None, ...]]


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, what: str, grad: Tensor, *depends_on: Tensor) -> Tensor:
        ctx.what = what
        return grad.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise BackendError(
            f"{ctx.what}: a second derivative was asked for (create_graph=True), but it has first derivatives only; "
            "use torch.func on a formula of your own"
        )


def first_derivatives_only(what: str) -> Callable[[Backward], Backward]:
    """Decorate the ``backward`` of a `torch.autograd.Function` whose gradients cannot be differentiated.

    ``once_differentiable`` of torch does not notice where the incoming gradient is a constant, as that of a sum is: the
    gradients then count as constants, too, and what is derived from them is wrong without a word.

    Parameters
    ----------
    what : str
        Whose derivative it is, for the error.
    """

    def decorate(backward: Backward) -> Backward:
        @wraps(backward)
        def guarded(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            with torch.no_grad():
                found = backward(ctx, *grads)
            if not torch.is_grad_enabled():
                return found
            # Autograd leaves out what does not lead to an input that is asked for.
            depends_on = [x for x in (*ctx.saved_tensors, *grads) if x is not None and x.requires_grad]
            return tuple(x if x is None else _Refusal.apply(what, x, *depends_on) for x in found)  # type: ignore[no-untyped-call]  # torch leaves it untyped

        return guarded

    return decorate
