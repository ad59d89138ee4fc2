"""Which target nodes are neighbours of each other: over edges between them, else over one node of another type."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.graph import MultimodalGraph
from hgmm.graph.csc import build_csc, relation_csc
from hgmm.negative_learning import (
    NeighborReference,
    TwoStepRelation,
    class_compatibility,
    neighbor_reference,
    two_step_compatibility,
    two_step_reference,
    two_step_relation,
)
from hgmm.typing import CanonicalEtype, RelationCSC

__all__ = ["TargetNeighbors"]


class TargetNeighbors:
    """The relations between target nodes.

    Where relations join different target nodes directly, these. Otherwise the paths of two steps that lead to a node of
    another type and back along the graph's edges, which therefore must go both ways.

    Parameters
    ----------
    graph : MultimodalGraph
        With a target.
    device : torch.device
        Where probabilities will be.
    """

    def __init__(self, graph: MultimodalGraph, device: torch.device) -> None:
        g, target = graph.g, graph.target
        used = [etype for etype in g.canonical_etypes if g.num_edges(etype)]
        # A relation that leads each node to itself only says nothing of neighbours.
        direct = [e for e in used if e[0] == e[2] == target and _joins_different_nodes(graph, e)]
        self.direct = [relation_csc(g, etype, device=device) for etype in direct]
        self.two_step: list[TwoStepRelation] = []
        if not self.direct:
            for ntype in (t for t in g.ntypes if t != target):
                inward = [e for e in used if e[0] == target and e[2] == ntype]
                outward = [e for e in used if e[0] == ntype and e[2] == target]
                if inward and outward:
                    self.two_step.append(
                        two_step_relation(_joined(graph, inward, device), _joined(graph, outward, device))
                    )

    def __bool__(self) -> bool:
        return bool(self.direct or self.two_step)

    def reference(
        self, probabilities: Tensor, labels: Tensor, known: Tensor, compatibility: Tensor | None
    ) -> NeighborReference:
        """Return `hgmm.negative_learning.neighbor_reference` or `two_step_reference` of all target nodes."""
        if self.direct:
            return neighbor_reference(self.direct, probabilities, labels, known, compatibility=compatibility)
        return two_step_reference(self.two_step, probabilities, labels, known, compatibility=compatibility)

    def compatibility(self, labels: Tensor, known: Tensor, num_classes: int) -> Tensor:
        """Return ``(C, C)``: which classes the relations join."""
        if self.direct:
            return class_compatibility(self.direct, labels, known, num_classes)
        return two_step_compatibility(self.two_step, labels, known, num_classes)

    def heard_by(self, nodes: Tensor) -> Tensor:
        """Return ``(N,)`` bool: the target nodes on which the reference of some nodes, given as such a mask, rests."""
        heard = torch.zeros_like(nodes)
        for csc in self.direct:
            heard |= _sources(csc, nodes)
        for relation in self.two_step:
            heard |= _sources(relation.inward, _sources(relation.outward, nodes))
        return heard


def _joins_different_nodes(graph: MultimodalGraph, etype: CanonicalEtype) -> bool:
    src, dst = graph.g.edges(etype=etype)
    return bool((src != dst).any())


def _joined(graph: MultimodalGraph, etypes: list[CanonicalEtype], device: torch.device) -> RelationCSC:
    """Return several relations between the same two types as one."""
    ends = [graph.g.edges(order="eid", etype=etype) for etype in etypes]
    src, dst = (torch.cat(side) for side in zip(*ends, strict=True))
    sizes = {"num_src": graph.num_nodes(etypes[0][0]), "num_dst": graph.num_nodes(etypes[0][2])}
    csc, _ = build_csc(src, dst, **sizes)
    return RelationCSC(*(tensor.to(device) for tensor in csc))


def _sources(csc: RelationCSC, nodes: Tensor) -> Tensor:
    """Return the mask of the sources of the edges that lead to some nodes."""
    leads = nodes.repeat_interleave(csc.indptr.diff(), output_size=csc.num_edges)
    found = torch.zeros(csc.num_src, dtype=torch.bool, device=nodes.device)
    found[csc.indices[leads].long()] = True
    return found
