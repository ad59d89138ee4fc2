"""What the implementations of `cross_modal_attention` receive and return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hgmm.kernels._checks import describe_tensor
from hgmm.typing import RelationCSC

__all__ = ["COMBINES", "CrossModalInputs", "CrossModalResult", "Options"]

COMBINES = ("product", "sum", "b1", "poster", "sharp", "cross", "inf")


class CrossModalResult(NamedTuple):
    """Result of `cross_modal_attention`.

    Attributes
    ----------
    out : Tensor
        ``(N_dst, M, H, D)``.
    lambda_sum : Tensor or None
        ``(N_dst, M, H)``.
    attn : Tensor or None
        ``(E, H)``, or ``(E, M, H)`` for ``cross`` and ``inf``, in CSC order.
    """

    out: Tensor
    lambda_sum: Tensor | None
    attn: Tensor | None


class Options(NamedTuple):
    """The switches of `cross_modal_attention`, as the compiled implementations receive them."""

    combine: str
    align: bool
    gamma: float
    uniform_nodes: bool
    uniform_modalities: bool


class CrossModalInputs(NamedTuple):
    """The checked arguments of `cross_modal_attention`; its docstring describes them."""

    csc: RelationCSC
    k: Tensor
    q_node: Tensor
    q_modal: Tensor
    v: Tensor
    present: Tensor | None
    lambda_weight: Tensor | None
    combine: str
    align: bool
    gamma: float
    uniform_nodes: bool
    uniform_modalities: bool
    return_attention: bool

    def __str__(self) -> str:
        return (
            f"k {describe_tensor(self.k)}, q_node {describe_tensor(self.q_node)}, {self.csc.num_edges} edges, "
            f"present {describe_tensor(self.present)}, combine={self.combine!r}"
        )
