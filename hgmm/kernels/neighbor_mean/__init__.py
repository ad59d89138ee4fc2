"""Weighted sum and mean of the in-neighbours' features, for each modality by itself."""

from __future__ import annotations

from hgmm.kernels.neighbor_mean.inputs import NeighborInputs
from hgmm.kernels.neighbor_mean.op import neighbor_mean, neighbor_sum

__all__ = ["NeighborInputs", "neighbor_mean", "neighbor_sum"]
