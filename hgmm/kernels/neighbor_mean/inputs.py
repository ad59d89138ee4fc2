"""What the implementations of `neighbor_sum` and `neighbor_mean` receive."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hgmm.kernels._checks import describe_tensor
from hgmm.typing import RelationCSC

__all__ = ["NeighborInputs"]


class NeighborInputs(NamedTuple):
    """The checked arguments of `neighbor_sum` and `neighbor_mean`; `edge_weight` is ``(E, 1)`` or ``(E, M)``."""

    csc: RelationCSC
    x: Tensor
    present: Tensor | None
    edge_weight: Tensor | None
    mean: bool

    def __str__(self) -> str:
        return (
            f"x {describe_tensor(self.x)}, {self.csc.num_edges} edges, present {describe_tensor(self.present)}, "
            f"edge_weight {describe_tensor(self.edge_weight)}"
        )
