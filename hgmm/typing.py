"""Shared type names and small records; no DGL, no side effects.

Shape letters: ``N_src N_dst E M H D`` with ``F = H * D``; ``P`` branches, ``B`` batch, ``K`` negatives a positive,
``C`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CanonicalEtype", "EdgeDict", "NodeDict", "NodeOutput", "RelationCSC"]

CanonicalEtype = tuple[str, str, str]
NodeDict = dict[str, Tensor]
EdgeDict = dict[CanonicalEtype, Tensor]


class RelationCSC(NamedTuple):
    """The edges of one relation, sorted by destination, and their transpose.

    The row of destination ``i`` holds its in-neighbours ``indices[indptr[i]:indptr[i + 1]]``; the transposed row of
    source ``j`` holds its out-neighbours ``indices_t[indptr_t[j]:indptr_t[j + 1]]``, and ``edge_pos_t`` says at which
    position of `indices` each of these edges stands. For the edges 2->0, 0->1, 2->1 with 3 sources and 2 destinations::

        indptr    = [0, 1, 3]        indices   = [2, 0, 2]
        indptr_t  = [0, 1, 1, 3]     indices_t = [1, 0, 1]     edge_pos_t = [1, 0, 2]

    Attributes
    ----------
    indptr : Tensor
        ``(N_dst + 1,)``, int32 or int64.
    indices : Tensor
        ``(E,)`` source of each edge.
    indptr_t : Tensor
        ``(N_src + 1,)``.
    indices_t : Tensor
        ``(E,)`` destination of each edge, sorted by source.
    edge_pos_t : Tensor
        ``(E,)`` position in `indices` of each transposed edge.
    """

    indptr: Tensor
    indices: Tensor
    indptr_t: Tensor
    indices_t: Tensor
    edge_pos_t: Tensor

    @property
    def num_dst(self) -> int:
        """Number of destination nodes."""
        return self.indptr.numel() - 1

    @property
    def num_src(self) -> int:
        """Number of source nodes."""
        return self.indptr_t.numel() - 1

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.indices.numel()


class NodeOutput(NamedTuple):
    """What a node classifier returns for the ``n`` nodes it was asked about.

    Attributes
    ----------
    logits : Tensor
        ``(n, C)`` fused logits.
    branch_logits : Tensor or None
        ``(n, P, C)`` logits of each branch, anything where the node has not the branch; HGNN-IMA's branches are its
        modalities.
    branch_names : tuple of str
        Names of the ``P`` branches; empty if there are none.
    available : Tensor or None
        ``(n, P)`` bool, True where the node has the branch.
    aux : mapping of str to Tensor
        Further terms, none by default: ``"missing_attention"`` is the scalar of the L_att loss; ``"modality_weights"``
        ``(n, M)``, ``"branch_weights"`` ``(n, P)`` and ``"embedding"`` are rows of single nodes.
    """

    logits: Tensor
    branch_logits: Tensor | None = None
    branch_names: tuple[str, ...] = ()
    available: Tensor | None = None
    # A dictionary would be shared by all outputs that name none.
    aux: Mapping[str, Tensor] = MappingProxyType({})


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device; ``auto`` takes CUDA where torch sees one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
