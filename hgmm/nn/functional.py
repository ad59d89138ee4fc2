"""Functions on DGL graphs and message-flow blocks: the operators of `hgmm.kernels` on one relation, and their helpers.

On a block, tensors of sources have the block's source rows and results its destination rows, which DGL puts first among
the sources; on a graph both are the nodes of the type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hgmm import kernels
from hgmm.graph.csc import edge_ids, relation_csc
from hgmm.kernels import CrossModalResult, InterNodeResult
from hgmm.typing import CanonicalEtype

__all__ = [
    "count_present_neighbors",
    "cross_modal_attention",
    "destination_rows",
    "destination_types",
    "inter_node_attention",
    "masked_softmax",
    "neighbor_mean",
    "neighbor_sum",
    "num_source_rows",
]


def num_source_rows(graph: Any, ntype: str) -> int:
    """Return how many source nodes of a type there are.

    Parameters
    ----------
    graph : dgl.DGLGraph
        A graph or a block.
    ntype : str
        The node type.
    """
    # In a graph whose types are all either sources or destinations DGL counts each on one side only.
    return int(graph.num_src_nodes(ntype) if graph.is_block else graph.num_nodes(ntype))


def destination_types(graph: Any) -> list[str]:
    """Return the node types that have destination nodes.

    Parameters
    ----------
    graph : dgl.DGLGraph
        A graph or a block.
    """
    # In a graph whose types are all either sources or destinations DGL lists only the latter in dsttypes.
    return list(graph.dsttypes if graph.is_block else graph.ntypes)


def destination_rows(graph: Any, ntype: str, x: Tensor) -> Tensor:
    """Return the rows of `x` that belong to destination nodes.

    Parameters
    ----------
    graph : dgl.DGLGraph
        A graph or a block.
    ntype : str
        The node type.
    x : Tensor
        ``(N_src, ...)`` rows of its source nodes.

    Returns
    -------
    Tensor
        ``(N_dst, ...)``; `x` itself on a graph.
    """
    return x[: graph.num_dst_nodes(ntype)] if graph.is_block else x


def cross_modal_attention(
    graph: Any,
    canonical_etype: CanonicalEtype,
    k: Tensor,
    q_node: Tensor,
    q_modal: Tensor,
    v: Tensor,
    *,
    present: Tensor | None = None,
    lambda_weight: Tensor | None = None,
    combine: str = "sharp",
    align: bool = True,
    gamma: float = 1.0,
    uniform_nodes: bool = False,
    uniform_modalities: bool = False,
    return_attention: bool = False,
) -> CrossModalResult:
    """Run `hgmm.kernels.cross_modal_attention` on one relation of a graph or block.

    Arguments and errors are the kernel's, with the relation in place of its index tensors; ``attn`` comes back in DGL's
    edge order, so that row e belongs to edge e of ``graph.edges(etype=canonical_etype)``.
    """
    result = kernels.cross_modal_attention(
        relation_csc(graph, canonical_etype, device=k.device),
        k,
        q_node,
        q_modal,
        v,
        present=present,
        lambda_weight=lambda_weight,
        combine=combine,
        align=align,
        gamma=gamma,
        uniform_nodes=uniform_nodes,
        uniform_modalities=uniform_modalities,
        return_attention=return_attention,
    )
    return result._replace(attn=_in_edge_order(graph, canonical_etype, result.attn))


def inter_node_attention(
    graph: Any,
    canonical_etype: CanonicalEtype,
    k: Tensor,
    q: Tensor,
    v: Tensor,
    *,
    present: Tensor | None = None,
    edge_bias: Tensor | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    return_attention: bool = False,
) -> InterNodeResult:
    """Run `hgmm.kernels.inter_node_attention` on one relation of a graph or block.

    Arguments and errors are the kernel's, with the relation in place of its index tensors; `edge_bias` and ``attn`` are
    in DGL's edge order.
    """
    result = kernels.inter_node_attention(
        relation_csc(graph, canonical_etype, device=k.device),
        k,
        q,
        v,
        present=present,
        edge_bias=_in_csc_order(graph, canonical_etype, edge_bias),
        dropout=dropout,
        seed=seed,
        return_attention=return_attention,
    )
    return result._replace(attn=_in_edge_order(graph, canonical_etype, result.attn))


def neighbor_sum(
    graph: Any,
    canonical_etype: CanonicalEtype,
    x: Tensor,
    *,
    present: Tensor | None = None,
    edge_weight: Tensor | None = None,
) -> Tensor:
    """Run `hgmm.kernels.neighbor_sum` on one relation of a graph or block; `edge_weight` is in DGL's edge order."""
    csc = relation_csc(graph, canonical_etype, device=x.device)
    weight = _in_csc_order(graph, canonical_etype, edge_weight)
    return kernels.neighbor_sum(csc, x, present=present, edge_weight=weight)


def neighbor_mean(
    graph: Any,
    canonical_etype: CanonicalEtype,
    x: Tensor,
    *,
    present: Tensor | None = None,
    edge_weight: Tensor | None = None,
) -> Tensor:
    """Run `hgmm.kernels.neighbor_mean` on one relation of a graph or block; `edge_weight` is in DGL's edge order."""
    csc = relation_csc(graph, canonical_etype, device=x.device)
    weight = _in_csc_order(graph, canonical_etype, edge_weight)
    return kernels.neighbor_mean(csc, x, present=present, edge_weight=weight)


def _in_csc_order(graph: Any, canonical_etype: CanonicalEtype, x: Tensor | None) -> Tensor | None:
    return None if x is None else x[edge_ids(graph, canonical_etype, device=x.device)]


def _in_edge_order(graph: Any, canonical_etype: CanonicalEtype, attn: Tensor | None) -> Tensor | None:
    if attn is None:
        return None
    return torch.empty_like(attn).index_copy(0, edge_ids(graph, canonical_etype, device=attn.device), attn)


def count_present_neighbors(graph: Any, canonical_etype: CanonicalEtype, present: Tensor) -> Tensor:
    """Count the in-neighbours of each node that have each modality.

    Parameters
    ----------
    graph : dgl.DGLGraph
        A graph or a block.
    canonical_etype : (str, str, str)
        The relation.
    present : Tensor
        ``(N_src, M)`` bool.

    Returns
    -------
    Tensor
        ``(N_dst, M)`` int64; parallel edges count as often as they stand there.
    """
    # float64 counts exactly, and reads one number a neighbour instead of writing one an edge.
    return neighbor_sum(graph, canonical_etype, present.double().unsqueeze(2)).squeeze(2).long()


def masked_softmax(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Take the softmax over modalities of a node.

    Parameters
    ----------
    logits : Tensor
        ``(N, M)``.
    present : Tensor, optional
        ``(N, M)`` bool. A node without any modality gets the softmax over all of them.

    Returns
    -------
    Tensor
        ``(N, M)``, rows sum to 1.
    """
    if present is not None:
        usable = present | ~present.any(dim=1, keepdim=True)
        logits = logits.masked_fill(~usable, -torch.inf)
    return torch.softmax(logits, dim=1)
