"""What the implementations of `inter_node_attention` receive and return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hgmm.kernels._checks import describe_tensor
from hgmm.typing import RelationCSC

__all__ = ["InterNodeInputs", "InterNodeResult"]


class InterNodeResult(NamedTuple):
    """Result of `inter_node_attention`.

    Attributes
    ----------
    out : Tensor
        ``(N_dst, M, H, D)``.
    attn : Tensor or None
        ``(E, M, H)`` in CSC order.
    """

    out: Tensor
    attn: Tensor | None


class InterNodeInputs(NamedTuple):
    """The checked arguments of `inter_node_attention`; its docstring describes them."""

    csc: RelationCSC
    k: Tensor
    q: Tensor
    v: Tensor
    present: Tensor | None
    edge_bias: Tensor | None
    dropout: float
    seed: Tensor | None
    return_attention: bool

    def __str__(self) -> str:
        return (
            f"k {describe_tensor(self.k)}, q {describe_tensor(self.q)}, {self.csc.num_edges} edges, "
            f"present {describe_tensor(self.present)}, edge_bias {describe_tensor(self.edge_bias)}, "
            f"dropout={self.dropout}"
        )
