"""What the implementations of `cross_modal_attention` receive and return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hgmm.kernels._checks import MAX_MODALITIES, attention_refusals, describe_tensor
from hgmm.typing import RelationCSC

__all__ = ["COMBINES", "COMPILED_COMBINES", "CrossModalInputs", "CrossModalResult", "Options", "compiled_refusals"]

COMBINES = ("product", "sum", "b1", "poster", "sharp", "cross", "inf")
# Numbers as in csrc/cross_modal_math.h and in triton_math.
COMPILED_COMBINES = {"product": 0, "sum": 1, "b1": 2, "poster": 3, "sharp": 4}


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


def compiled_refusals(inputs: CrossModalInputs) -> list[str]:
    """Say what no compiled implementation can do, wherever the tensors are."""
    reasons = []
    if inputs.combine not in COMPILED_COMBINES:
        reasons.append(f"combine={inputs.combine!r} runs on the reference only")
    if inputs.k.shape[1] > MAX_MODALITIES:
        reasons.append(f"at most {MAX_MODALITIES} modalities, got {inputs.k.shape[1]}")
    return reasons + attention_refusals(inputs.return_attention, inputs.k, inputs.q_node, inputs.q_modal, inputs.v)
