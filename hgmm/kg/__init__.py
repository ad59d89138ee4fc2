"""Knowledge graphs: interactions, and how well a model ranks what it was not shown; tensors in and out."""

from __future__ import annotations

from hgmm.kg.interactions import INTERACTIONS, ComplEx, DistMult, Interaction, RotatE, TransE, get_interaction

__all__ = ["INTERACTIONS", "ComplEx", "DistMult", "Interaction", "RotatE", "TransE", "get_interaction"]
