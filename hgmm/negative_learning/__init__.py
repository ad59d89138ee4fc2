"""The decisions of negative learning: which branch teaches which at a node, and how much; tensors in and out."""

from __future__ import annotations

from hgmm.negative_learning.arbitration import UNAVAILABLE, Arbitration, arbitrate
from hgmm.negative_learning.neighborhood import NeighborReference, class_compatibility, neighbor_reference
from hgmm.negative_learning.protection import ProtectedClasses, protected_classes
from hgmm.negative_learning.shares import TRANSFER_FIGURES, shares_of_counts, transfer_counts, transfer_shares
from hgmm.negative_learning.stability import StabilityGate, entropy_stability, posterior_stability
from hgmm.negative_learning.two_step import (
    TwoStepRelation,
    two_step_compatibility,
    two_step_reference,
    two_step_relation,
)

__all__ = [
    "TRANSFER_FIGURES",
    "UNAVAILABLE",
    "Arbitration",
    "NeighborReference",
    "ProtectedClasses",
    "StabilityGate",
    "TwoStepRelation",
    "arbitrate",
    "class_compatibility",
    "entropy_stability",
    "neighbor_reference",
    "posterior_stability",
    "protected_classes",
    "shares_of_counts",
    "transfer_counts",
    "transfer_shares",
    "two_step_compatibility",
    "two_step_reference",
    "two_step_relation",
]
