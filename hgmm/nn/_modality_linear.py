"""One Linear for each entry of a modality or branch axis, as one contraction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ModalityLinear"]


class ModalityLinear(nn.Module):
    """Map ``(N, M, in_size)`` to ``(N, M, out_size)`` with a matrix of its own for each of the M entries.

    Matrices start as Xavier's uniform, each by itself; biases at zero.
    """

    def __init__(self, num_modalities: int, in_size: int, out_size: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_modalities, in_size, out_size))
        self.bias = nn.Parameter(torch.zeros(num_modalities, out_size)) if bias else None
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the matrices."""
        out = torch.einsum("nmf,mfg->nmg", x, self.weight)
        return out if self.bias is None else out + self.bias
