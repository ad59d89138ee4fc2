"""The decisions of negative learning: which branch teaches which at a node, and how much; tensors in and out."""

from __future__ import annotations

from hgmm.negative_learning.arbitration import UNAVAILABLE, Arbitration, arbitrate
from hgmm.negative_learning.neighborhood import NeighborReference, class_compatibility, neighbor_reference
from hgmm.negative_learning.protection import ProtectedClasses, protected_classes
from hgmm.negative_learning.shares import transfer_shares
from hgmm.negative_learning.stability import StabilityGate, entropy_stability, posterior_stability

__all__ = [
    "UNAVAILABLE",
    "Arbitration",
    "NeighborReference",
    "ProtectedClasses",
    "StabilityGate",
    "arbitrate",
    "class_compatibility",
    "entropy_stability",
    "neighbor_reference",
    "posterior_stability",
    "protected_classes",
    "transfer_shares",
]
