"""What one expects of a node's class from nodes two steps away, where no edge joins nodes of its own type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ShapeError
from hgmm.kernels import neighbor_sum
from hgmm.kernels._checks import check_axes
from hgmm.negative_learning.neighborhood import (
    NeighborReference,
    as_beliefs,
    as_compatibility,
    check_known_labels,
    destinations,
    translate,
)
from hgmm.typing import RelationCSC

__all__ = ["TwoStepRelation", "two_step_compatibility", "two_step_reference", "two_step_relation"]


class TwoStepRelation(NamedTuple):
    """Paths k -> b -> i from classified nodes over nodes of another type to classified nodes, k other than i.

    The paths themselves, of which a hub has the square of its degree, are never listed.

    Attributes
    ----------
    inward : RelationCSC
        Edges k -> b.
    outward : RelationCSC
        Edges b -> i.
    weight : Tensor
        ``(E_outward,)`` float64 in CSC order: 1 / the number of edges k -> b with k other than i; 0 without any.
    own : Tensor
        ``(N,)`` float64: how much of each node itself the weighted sum over its b holds.
    counts : Tensor
        ``(N,)`` int64: edges b -> i whose b leads to another node.
    """

    inward: RelationCSC
    outward: RelationCSC
    weight: Tensor
    own: Tensor
    counts: Tensor


def two_step_relation(inward: RelationCSC, outward: RelationCSC) -> TwoStepRelation:
    """Prepare the paths over one node type; once for a graph.

    Parameters
    ----------
    inward : RelationCSC
        Edges from the N classified nodes to the other type; several relations joined into one.
    outward : RelationCSC
        Edges from the other type to the classified nodes.

    Raises
    ------
    ShapeError
        If the two do not have the same nodes.

    Examples
    --------
    Nodes 0 and 1 meet in one node of the other type:

    >>> import torch
    >>> meet = RelationCSC(*map(torch.tensor, ([0, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    >>> leave = RelationCSC(*map(torch.tensor, ([0, 1, 2], [0, 0], [0, 2], [0, 1], [0, 1])))
    >>> two_step_relation(meet, leave).counts
    tensor([1, 1])
    """
    if (inward.num_src, inward.num_dst) != (outward.num_dst, outward.num_src):
        raise ShapeError(
            "two_step_relation, outward: expected the nodes of inward in reverse, "
            f"{(inward.num_dst, inward.num_src)}, got {(outward.num_src, outward.num_dst)}; "
            "pass the relations from the classified type to another one and back"
        )
    middle, node = outward.indices.long(), destinations(outward).long()
    keys = inward.indices.long() * inward.num_dst + destinations(inward).long()
    known, repeats = torch.unique(keys, return_counts=True)
    wanted = node * inward.num_dst + middle
    own = torch.zeros_like(wanted)
    if len(known):
        place = torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)
        own = repeats[place] * (known[place] == wanted)
    others = inward.indptr.diff().long()[middle] - own
    weight = (others > 0) / others.clamp(min=1).double()
    share = torch.zeros(outward.num_dst, dtype=torch.float64, device=weight.device)
    counts = torch.zeros(outward.num_dst, dtype=torch.int64, device=weight.device)
    return TwoStepRelation(
        inward, outward, weight, share.index_add_(0, node, own * weight), counts.index_add_(0, node, others.sign())
    )


@torch.no_grad()
def two_step_reference(
    relations: Sequence[TwoStepRelation],
    probabilities: Tensor,
    labels: Tensor,
    known: Tensor,
    *,
    compatibility: Tensor | None = None,
) -> NeighborReference:
    r"""Average over the nodes between what is known or predicted of the other nodes that meet there.

    ``u_i = mean_{b -> i} mean_{k -> b, k != i} r_k`` with r_k as in `neighbor_reference`; the outer mean runs over the
    edges of all relations to nodes b at which another node meets i. With a compatibility matrix K it is ``u_i K``.

    Parameters
    ----------
    relations : sequence of TwoStepRelation
        One a node type between, from `two_step_relation`.
    probabilities, labels, known : Tensor
        ``(N, C)``, ``(N,)`` and ``(N,)`` of the classified nodes, as in `neighbor_reference`.
    compatibility : Tensor, optional
        ``(C, C)`` K, from `two_step_compatibility`. Default: none.

    Returns
    -------
    NeighborReference
        In the dtype of `probabilities`, but float32 for half precision.

    Raises
    ------
    ConfigError
        A known label is outside [0, C).
    ShapeError
        The tensors do not fit each other, or there is no relation.

    Notes
    -----
    Two sparse products with C columns a relation, whatever the degrees: a node is taken out of the sum at b again
    instead of being left out of it, which is exact but for rounding, and so sums are in float64. Allocates C numbers a
    node on either side.

    References
    ----------
    Ours: for graphs such as films with their actors, to which a reference over neighbours of the same type does not
    apply.

    Examples
    --------
    >>> import torch
    >>> meet = RelationCSC(*map(torch.tensor, ([0, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    >>> leave = RelationCSC(*map(torch.tensor, ([0, 1, 2], [0, 0], [0, 2], [0, 1], [0, 1])))
    >>> probabilities = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    >>> known = torch.tensor([True, False])
    >>> two_step_reference([two_step_relation(meet, leave)], probabilities, torch.tensor([1, -1]), known).expected
    tensor([[0.3000, 0.7000],
            [0.0000, 1.0000]])
    """
    where = "two_step_reference"
    num_nodes = _num_nodes(where, relations)
    check_axes(where, "probabilities", probabilities, (num_nodes, "C"), hint="one row a classified node")
    num_classes = probabilities.shape[1]
    check_known_labels(where, labels, known, num_nodes, num_classes, node="classified node")
    beliefs = as_beliefs(probabilities, labels, known)
    expected, counts = _sums(relations, beliefs.double())
    expected = (expected / counts.clamp(min=1).unsqueeze(1)).to(beliefs.dtype)
    return NeighborReference(translate(where, expected, compatibility, built_by="two_step_compatibility"), counts > 0)


@torch.no_grad()
def two_step_compatibility(
    relations: Sequence[TwoStepRelation], labels: Tensor, known: Tensor, num_classes: int
) -> Tensor:
    """Weigh which classes the two-step paths between labelled nodes join.

    ``K[k, c]`` is the share of class c among the ends of the paths that start at labelled nodes of class k and end at
    labelled nodes, each path weighted as in `two_step_reference`. A class without such a path expects its own.

    Parameters
    ----------
    relations, labels, known
        As in `two_step_reference`.
    num_classes : int
        C.

    Returns
    -------
    Tensor
        ``(C, C)`` float64, rows sum to 1.

    Raises
    ------
    ConfigError
        A known label is outside [0, C).
    ShapeError
        The tensors do not fit each other, or there is no relation.

    References
    ----------
    Ours.
    """
    where = "two_step_compatibility"
    check_known_labels(where, labels, known, _num_nodes(where, relations), num_classes, node="classified node")
    nothing = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    beliefs = as_beliefs(nothing, labels, known)
    heard, _ = _sums(relations, beliefs)
    # Rows of nodes without a known label are 0.
    return as_compatibility(heard.T @ beliefs)


def _sums(relations: Sequence[TwoStepRelation], beliefs: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(N, C)`` sums of the means at the nodes between, and how many there are."""
    total, counts = torch.zeros_like(beliefs), torch.zeros_like(relations[0].counts)
    for relation in relations:
        met = neighbor_sum(relation.inward, beliefs.unsqueeze(1))
        heard = neighbor_sum(relation.outward, met, edge_weight=relation.weight).squeeze(1)
        # What rounding leaves of a node in its own sum is not to be below 0.
        total += (heard - relation.own.unsqueeze(1) * beliefs).clamp_(min=0)
        counts += relation.counts
    return total, counts


def _num_nodes(where: str, relations: Sequence[TwoStepRelation]) -> int:
    """Check that the relations have the same classified nodes and return N."""
    sizes = [len(relation.counts) for relation in relations]
    if not sizes or len(set(sizes)) > 1:
        raise ShapeError(
            f"{where}, relations: expected at least one, all with the same N classified nodes, got {sizes}; "
            "build them with two_step_relation"
        )
    return sizes[0]
