"""Registration of the compiled operators with `torch.library`: one node for torch.compile, with a derivative.

``torch.library.custom_op`` and ``register_autograd`` would do the same at 0.2 ms a call, most of it spent on reading
the schema of each of 18 arguments anew; the parts they are made of take 0.05 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from hgmm.errors import BackendError
from hgmm.typing import RelationCSC

__all__ = [
    "CSC_SCHEMA",
    "NUM_CSC",
    "contiguous",
    "define",
    "differentiate",
    "empty",
    "refuse_second_derivatives",
    "zeros_if_none",
]

# Schemas are written out: torch 2.4 cannot infer them from annotations that are strings.
CSC_SCHEMA = "Tensor indptr, Tensor indices, Tensor indptr_t, Tensor indices_t, Tensor edge_pos_t"
NUM_CSC = len(RelationCSC._fields)

Results = Tensor | tuple[Tensor, ...]
_library = torch.library.Library("hgmm", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch leaves it untyped


def define(name: str, schema: str, *, run: Callable[..., Results], fake: Callable[..., Results]) -> Any:
    """Register an operator without a derivative.

    Parameters
    ----------
    name : str
        Its name within ``torch.ops.hgmm``.
    schema : str
        Arguments and results, as ``"(Tensor x, float y) -> (Tensor, Tensor)"``.
    run : callable
        What it does. Its results are no inputs and no views of them.
    fake : callable
        Returns tensors of the results' shapes, dtypes and strides.

    Returns
    -------
    torch._ops.OpOverload
        The operator.
    """
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]  # as above
    _library.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]  # as above
    torch.library.register_fake(f"hgmm::{name}", fake, lib=_library)
    return getattr(torch.ops.hgmm, name).default


def differentiate(
    op: Any,
    derivative: Callable[..., tuple[Tensor | None, ...]],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
) -> None:
    """Give an operator a derivative; forward mode, which it has not, becomes an error instead of a tangent of 0.

    Parameters
    ----------
    op : torch._ops.OpOverload
        What `define` returned.
    derivative : callable
        ``backward`` of a `torch.autograd.Function`.
    setup_context : callable, optional
        Its ``setup_context(ctx, arguments, results)``.
    """

    def below_autograd(arguments: tuple[Any, ...]) -> Results:
        with torch._C._AutoDispatchBelowAutograd():
            results: Results = op(*arguments)
        return results

    class Derivative(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Results:
            results = below_autograd(arguments)
            if setup_context is not None:
                setup_context(ctx, arguments, results)
            return results

        backward = staticmethod(derivative)

    def kernel(*arguments: Any) -> Results:
        _refuse_tangents(op, arguments)
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
            results: Results = Derivative.apply(*arguments)  # type: ignore[no-untyped-call]  # as above
            return results
        return below_autograd(arguments)

    _library.impl(op, kernel, "Autograd")  # type: ignore[no-untyped-call]  # as above


def _refuse_tangents(op: Any, arguments: tuple[Any, ...]) -> None:
    # Asking each argument takes a tenth of a small call, and outside of forward mode there is nothing to ask.
    if forward_ad._current_level < 0:
        return
    for described, x in zip(op._schema.arguments, arguments, strict=True):
        if not isinstance(x, Tensor):
            continue
        parts = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if parts.tangent is not None:
            raise BackendError(
                f"{op.name().removeprefix('hgmm::')}, argument {described.name}: the compiled operator has no "
                "forward-mode derivative, got a tensor with a tangent (torch.func.jvp or torch.autograd.forward_ad); "
                "use reverse mode, or torch.autograd.functional.jvp with HGMM_BACKEND=reference"
            )


def refuse_second_derivatives(op: str) -> Callable[..., Any]:
    """Return the derivative of an operator's backward pass: an error that says what has one."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise BackendError(
            f"{op}: double backward through the compiled operator was asked for, but it has first derivatives only; "
            "HGMM_BACKEND=reference has second derivatives"
        )

    return backward


def contiguous(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Make tensors contiguous; None stays None."""
    return tuple(x if x is None else x.contiguous() for x in tensors)


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor for a result, by default one without elements, which stands for a result nobody asked for."""
    return like.new_empty(shape or (0,), dtype=dtype)


def zeros_if_none(grad: Tensor | None, like: Tensor) -> Tensor:
    """Return the gradient of a result, which is None where only other results were used."""
    return torch.zeros_like(like) if grad is None else grad
