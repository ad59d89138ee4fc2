"""The border from DGL to plain index tensors: each relation as CSC by destination, with its transpose.

Both are built once for a graph and kept as long as the graph object lives; kernels never see DGL.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hgmm.errors import SchemaError
from hgmm.typing import CanonicalEtype, RelationCSC

__all__ = ["build_csc", "edge_ids", "relation_csc"]


class _Entry(NamedTuple):
    structure: Any
    csc: RelationCSC
    eids: Tensor


_cache: WeakKeyDictionary[Any, dict[tuple[CanonicalEtype, str, bool], _Entry]] = WeakKeyDictionary()


def build_csc(src: Tensor, dst: Tensor, *, num_src: int, num_dst: int) -> tuple[RelationCSC, Tensor]:
    """Sort edges by destination and by source.

    Parameters
    ----------
    src, dst : Tensor
        ``(E,)`` integer ends of each edge.
    num_src, num_dst : int
        Number of nodes on either side; nodes without edges get empty rows.

    Returns
    -------
    csc : RelationCSC
        int32 where node and edge counts allow it, else int64. Within a row the edges are sorted by neighbour, then by
        edge id, so that equal graphs give equal results and neighbouring reads are near in memory.
    eids : Tensor
        ``(E,)`` int64: the edge at each position of ``csc.indices``.
    """
    by_src = torch.argsort(src, stable=True)
    eids = by_src[torch.argsort(dst[by_src], stable=True)]
    by_dst = torch.argsort(dst, stable=True)
    eids_t = by_dst[torch.argsort(src[by_dst], stable=True)]
    position = torch.empty_like(eids)
    position[eids] = torch.arange(eids.numel(), device=eids.device)
    small = max(num_src, num_dst, src.numel()) < 2**31
    index = torch.int32 if small else torch.int64
    csc = RelationCSC(
        indptr=_offsets(dst, num_dst).to(index),
        indices=src[eids].to(index),
        indptr_t=_offsets(src, num_src).to(index),
        indices_t=dst[eids_t].to(index),
        edge_pos_t=position[eids_t].to(index),
    )
    return csc, eids


def _offsets(ends: Tensor, count: int) -> Tensor:
    degrees = torch.bincount(ends.long(), minlength=count)
    return torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])


def _entry(graph: Any, canonical_etype: CanonicalEtype, device: torch.device, *, self_loops: bool = False) -> _Entry:
    entries = _cache.setdefault(graph, {})
    key = (canonical_etype, str(device), self_loops)
    # DGL gives a graph that is changed in place a new index object.
    if key not in entries or entries[key].structure is not graph._graph:
        src_type, _, dst_type = canonical_etype
        src, dst = graph.edges(order="eid", etype=canonical_etype)
        num_src, num_dst = graph.num_src_nodes(src_type), graph.num_dst_nodes(dst_type)
        if self_loops:
            # A block's destinations are its first sources, so a node has the same number on both sides.
            loops = torch.arange(num_dst, dtype=src.dtype, device=src.device)
            src, dst = torch.cat([src, loops]), torch.cat([dst, loops])
        csc, eids = build_csc(src, dst, num_src=num_src, num_dst=num_dst)
        moved = RelationCSC(*(tensor.to(device) for tensor in csc))
        entries[key] = _Entry(graph._graph, moved, eids.to(device))
    return entries[key]


def relation_csc(
    graph: Any,
    canonical_etype: CanonicalEtype,
    *,
    device: torch.device | str | None = None,
    self_loops: bool = False,
) -> RelationCSC:
    """Return one relation of a DGL graph or block as CSC by destination, with its transpose.

    Parameters
    ----------
    graph : dgl.DGLGraph
        A graph or a message-flow block.
    canonical_etype : (str, str, str)
        The relation.
    device : torch.device or str, optional
        Where the index tensors shall be. Default: where the graph is. A CPU-only DGL is enough for kernels on CUDA.
    self_loops : bool, optional
        Add an edge from every destination node to itself; only for relations between nodes of one type.

    Returns
    -------
    RelationCSC
        The same tensors at every call for the same graph: they are kept while the graph object lives and built anew
        after nodes or edges were added or removed.

    Raises
    ------
    SchemaError
        `self_loops` is asked of a relation between two types.
    """
    if self_loops and canonical_etype[0] != canonical_etype[2]:
        raise SchemaError(
            f"relation_csc, self_loops: {canonical_etype!r} leads from one node type to another, where no node has a "
            "loop; leave self_loops out"
        )
    return _entry(graph, canonical_etype, torch.device(device or graph.device), self_loops=self_loops).csc


def edge_ids(graph: Any, canonical_etype: CanonicalEtype, *, device: torch.device | str | None = None) -> Tensor:
    """Return ``(E,)`` int64: DGL's edge id at each position of `relation_csc`'s ``indices``."""
    return _entry(graph, canonical_etype, torch.device(device or graph.device)).eids
