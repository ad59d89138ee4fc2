"""Draws of entities that take the place of a triple's head or tail, filtered exactly.

A folder like those of the operators, without `autograd`: the results are whole numbers, which have no derivative.
"""

from __future__ import annotations

from hgmm.kernels.negative_sampling.draw import draw_entities, draw_shared, draw_sides
from hgmm.kernels.negative_sampling.inputs import MAX_ENTITIES, MAX_STEP, DrawInputs, Drawn, Pools
from hgmm.kernels.negative_sampling.known import KnownTriples

__all__ = [
    "MAX_ENTITIES",
    "MAX_STEP",
    "DrawInputs",
    "Drawn",
    "KnownTriples",
    "Pools",
    "draw_entities",
    "draw_shared",
    "draw_sides",
]
