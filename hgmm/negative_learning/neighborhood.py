"""What the neighbours of a node let one expect of its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ShapeError
from hgmm.kernels import neighbor_sum
from hgmm.kernels._checks import check_axes, check_classes
from hgmm.typing import RelationCSC

__all__ = [
    "NeighborReference",
    "as_beliefs",
    "as_compatibility",
    "check_known_labels",
    "class_compatibility",
    "destinations",
    "neighbor_reference",
    "translate",
]


class NeighborReference(NamedTuple):
    """The class distribution among the neighbours of some nodes.

    Attributes
    ----------
    expected : Tensor
        ``(N_dst, C)``, rows sum to 1; 0 for nodes without neighbours.
    has_neighbors : Tensor
        ``(N_dst,)`` bool.
    """

    expected: Tensor
    has_neighbors: Tensor

    def rows(self, index: Tensor) -> NeighborReference:
        """Return the rows of some of the nodes, for example of the labelled ones."""
        return NeighborReference(self.expected[index], self.has_neighbors[index])


@torch.no_grad()
def neighbor_reference(
    relations: RelationCSC | Sequence[RelationCSC],
    probabilities: Tensor,
    labels: Tensor,
    known: Tensor,
    *,
    compatibility: Tensor | None = None,
    drop_self_loops: bool = True,
) -> NeighborReference:
    r"""Average over the neighbours what is known or predicted of their class.

    ``u_i = mean_{j -> i, j != i} r_j`` with r_j the label of j where it is known, as a distribution, else its fused
    probabilities; the mean runs over the edges of all relations together. With a compatibility matrix K it is
    ``u_i K``.

    The reference is the same for all branches on purpose: a branch that is compared with its own neighbours' outputs is
    rewarded for smoothing them.

    Parameters
    ----------
    relations : RelationCSC or sequence of RelationCSC
        Edges between nodes of the type that is classified, by destination; of a graph or of a message-flow block, whose
        first sources are its destinations. All have the same nodes.
    probabilities : Tensor
        ``(N_src, C)`` fused probabilities of the sources; float64, float32, bfloat16 or float16.
    labels : Tensor
        ``(N_src,)`` int64; in [0, C) where known, anything elsewhere.
    known : Tensor
        ``(N_src,)`` bool, True for training nodes only.
    compatibility : Tensor, optional
        ``(C, C)`` K, from `class_compatibility`, for graphs whose edges join different classes. Default: none.
    drop_self_loops : bool, optional
        Leave out edges from a node to itself, by which a node would see its own label. False saves looking for them
        in graphs that have none.

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
    One sparse product with C columns a relation, `hgmm.kernels.neighbor_sum`; allocates a copy of `probabilities`,
    twice the result, and one index an edge to look for self-loops. A block that has all in-neighbours of a node gives
    the values of the full graph; a sampled one gives an estimate.

    References
    ----------
    Ours: a reconstruction of the graph-aware part of GraphMNL, arXiv 2606.12863, whose formulas could not be read.

    Examples
    --------
    Node 0 has the neighbours 0, itself, and 1; node 1 has none:

    >>> import torch
    >>> csc = RelationCSC(*map(torch.tensor, ([0, 2, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    >>> probabilities = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    >>> neighbor_reference(csc, probabilities, torch.tensor([0, -1]), torch.tensor([True, False]))
    NeighborReference(expected=tensor([[0.3000, 0.7000],
            [0.0000, 0.0000]]), has_neighbors=tensor([ True, False]))
    """
    where = "neighbor_reference"
    several = _as_sequence(where, relations)
    check_axes(where, "probabilities", probabilities, (several[0].num_src, "C"), hint="one row a source node")
    num_classes = probabilities.shape[1]
    check_known_labels(where, labels, known, several[0].num_src, num_classes, node="source node")
    beliefs = as_beliefs(probabilities, labels, known)
    expected = beliefs.new_zeros(several[0].num_dst, num_classes)
    degree = torch.zeros(several[0].num_dst, dtype=torch.int64, device=beliefs.device)
    for csc in several:
        loops = _self_loops(csc) if drop_self_loops else None
        degree += csc.indptr.diff()
        weight = None
        if loops is not None and len(loops):
            weight = beliefs.new_ones(csc.num_edges).index_fill_(0, loops, 0)
            degree.index_add_(0, csc.indices[loops].long(), -torch.ones_like(loops))
        expected += neighbor_sum(csc, beliefs.unsqueeze(1), edge_weight=weight).squeeze(1)
    expected /= degree.clamp(min=1).unsqueeze(1)
    return NeighborReference(translate(where, expected, compatibility, built_by="class_compatibility"), degree > 0)


@torch.no_grad()
def class_compatibility(
    relations: RelationCSC | Sequence[RelationCSC],
    labels: Tensor,
    known: Tensor,
    num_classes: int,
    *,
    drop_self_loops: bool = True,
) -> Tensor:
    """Count which classes the edges between labelled nodes join.

    ``K[k, c]`` is the share of class c among the destinations of the edges that leave labelled nodes of class k for
    labelled nodes. A class without such an edge expects its own, as without K.

    Parameters
    ----------
    relations : RelationCSC or sequence of RelationCSC
        As in `neighbor_reference`; of the whole graph, as a block has too few labelled edges.
    labels, known : Tensor
        ``(N_src,)`` int64 and bool, as in `neighbor_reference`.
    num_classes : int
        C.
    drop_self_loops : bool, optional
        Leave out edges from a node to itself.

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

    Examples
    --------
    >>> import torch
    >>> csc = RelationCSC(*map(torch.tensor, ([0, 1, 2], [1, 0], [0, 1, 2], [1, 0], [1, 0])))
    >>> class_compatibility(csc, torch.tensor([0, 1]), torch.tensor([True, True]), 2)
    tensor([[0., 1.],
            [1., 0.]], dtype=torch.float64)
    """
    where = "class_compatibility"
    several = _as_sequence(where, relations)
    check_known_labels(where, labels, known, several[0].num_src, num_classes, node="source node")
    counts = torch.zeros(num_classes**2, dtype=torch.int64, device=labels.device)
    for csc in several:
        src, dst = csc.indices, destinations(csc)
        counted = known[src] & known[dst]
        if drop_self_loops:
            counted &= src != dst
        joined = labels[src[counted]] * num_classes + labels[dst[counted]]
        counts += torch.bincount(joined, minlength=num_classes**2)
    return as_compatibility(counts.view(num_classes, num_classes).double())


def as_compatibility(table: Tensor) -> Tensor:
    """Return the rows of a table ``(C, C)`` as shares; a class without anything expects its own."""
    unseen = table.sum(1) == 0
    table = table + torch.diag_embed(unseen.to(table.dtype))
    return table / table.sum(1, keepdim=True)


def translate(where: str, expected: Tensor, compatibility: Tensor | None, *, built_by: str) -> Tensor:
    """Return u K for u = `expected` ``(n, C)``; u itself without K.

    Raises
    ------
    ShapeError
        `compatibility` is not ``(C, C)``.
    """
    if compatibility is None:
        return expected
    num_classes = expected.shape[1]
    hint = f"from class to class; build it with {built_by}"
    check_axes(where, "compatibility", compatibility, (num_classes, num_classes), hint=hint)
    return expected @ compatibility.to(expected.dtype)


def destinations(csc: RelationCSC) -> Tensor:
    """Return the destination ``(E,)`` of each edge in CSC order."""
    rows = torch.arange(csc.num_dst, dtype=csc.indices.dtype, device=csc.indices.device)
    return rows.repeat_interleave(csc.indptr.diff(), output_size=csc.num_edges)


def _self_loops(csc: RelationCSC) -> Tensor:
    """Return the positions of the edges from a node to itself."""
    return (csc.indices == destinations(csc)).nonzero().squeeze(1)


def as_beliefs(probabilities: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Return r: one-hot labels where they are known, elsewhere the probabilities."""
    out = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32), copy=True)
    rows = known.nonzero().squeeze(1)
    out.index_fill_(0, rows, 0)
    out[rows, labels[rows]] = 1
    return out


def _as_sequence(where: str, relations: RelationCSC | Sequence[RelationCSC]) -> list[RelationCSC]:
    """Return the relations as a list; they are checked to join the same nodes."""
    # A RelationCSC is a tuple as well.
    several = [relations] if isinstance(relations, RelationCSC) else list(relations)
    if not several:
        raise ShapeError(f"{where}, relations: expected at least one RelationCSC, got none; pass the edges to follow")
    sizes = [(csc.num_src, csc.num_dst) for csc in several]
    different = [size for size in sizes if size != sizes[0]]
    if different or sizes[0][0] < sizes[0][1]:
        raise ShapeError(
            f"{where}, relations: all must join the same (N_src, N_dst), the first N_dst sources being the "
            f"destinations, got {sizes}; pass relations from the classified node type to itself"
        )
    return several


def check_known_labels(
    where: str, labels: Tensor, known: Tensor, num_nodes: int, num_classes: int, *, node: str
) -> None:
    """Check ``(num_nodes,)`` labels and flags; `node` is what the messages call one of the nodes.

    Raises
    ------
    ConfigError
        A known label is outside [0, C).
    ShapeError
        Naming the tensor.
    """
    check_axes(where, "labels", labels, (num_nodes,), hint=f"one label a {node}")
    check_axes(where, "known", known, (num_nodes,), dtype=torch.bool, hint=f"one flag a {node}")
    check_classes(where, "labels", labels.masked_fill(~known, 0), num_classes)
