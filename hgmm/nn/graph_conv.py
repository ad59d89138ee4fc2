"""Graph convolution for several modalities at once, each with its own parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from hgmm.errors import ConfigError, ShapeError, unknown_name
from hgmm.nn._modality_conv import ModalityConv
from hgmm.nn._names import relation_key
from hgmm.nn.functional import destination_rows, neighbor_sum
from hgmm.typing import CanonicalEtype, EdgeDict, NodeDict

__all__ = ["GraphConv"]

NORMS = ("symmetric", "mean")


class GraphConv(ModalityConv):
    r"""Convolve the graph: a sum over neighbours and the node itself, normalised by degrees.

    For a modality m, with the self-loop as an edge of the relation:
    ``z_i = sum_j p_jm h_j^m W_m / sqrt(d_im d_j)`` over the in-neighbours j of i and i itself. ``d_im`` counts those
    that have m, ``d_j`` the nodes that j sends to, itself included.

    That is the layer where one relation leads into a node type, from that type. Elsewhere each relation has its own
    matrices and z without loops, and ``h_i W_own`` joins them as if it were one more relation.

    Parameters
    ----------
    ntypes : sequence of str
        Node types; of a graph without types ``graph.ntypes``.
    canonical_etypes : sequence of (str, str, str)
        Relations. A graph may lack some, not have others.
    num_modalities : int
        Length M of the modality axis; each modality has parameters of its own.
    in_size, out_size : int
        Width of a state before and after.
    norm : str, optional
        ``symmetric``, as above; ``mean``: ``1 / d_im`` instead of ``1 / sqrt(d_im d_j)``.
    relation_reduce : str, optional
        ``mean`` over the relations that bring node i modality m, its own state included, or ``sum``.

    Raises
    ------
    ConfigError
        A size or a choice is out of range.
    SchemaError
        A relation names an unknown node type.

    Notes
    -----
    A block has not all edges that leave its source nodes, so ``symmetric`` needs `out_degrees` there. What is kept for
    the backward pass are states of nodes; nothing by edge.

    References
    ----------
    Kipf and Welling, ICLR 2017, arXiv 1609.02907, equation 2; Schlichtkrull et al., ESWC 2018, arXiv 1703.06103,
    equation 2, for several relations, there with ``1 / d_i`` and a sum. Masks, and the mean over relations, are ours.

    Examples
    --------
    >>> import torch
    >>> from hgmm.dgl_compat import dgl
    >>> g = dgl.graph(([0, 1], [1, 2]))
    >>> conv = GraphConv(g.ntypes, g.canonical_etypes, num_modalities=1, in_size=8, out_size=4)
    >>> h, _ = conv(g, {"_N": torch.randn(3, 1, 8)})
    >>> h["_N"].shape
    torch.Size([3, 1, 4])
    """

    def __init__(
        self,
        ntypes: Sequence[str],
        canonical_etypes: Sequence[CanonicalEtype],
        *,
        num_modalities: int,
        in_size: int,
        out_size: int,
        norm: str = "symmetric",
        relation_reduce: str = "mean",
    ) -> None:
        super().__init__(
            ntypes,
            canonical_etypes,
            num_modalities=num_modalities,
            in_size=in_size,
            out_size=out_size,
            relation_reduce=relation_reduce,
        )
        if norm not in NORMS:
            raise ConfigError(f"GraphConv, norm: {unknown_name('norm', norm, NORMS)}")
        self.norm = norm

    def forward(
        self,
        graph: Any,
        h: NodeDict,
        present: NodeDict | None = None,
        *,
        ntypes: Collection[str] | None = None,
        out_degrees: EdgeDict | None = None,
    ) -> tuple[NodeDict, NodeDict | None]:
        """Map node states to the next layer's.

        Parameters
        ----------
        graph, h, present, ntypes
            As in `SAGEConv.forward`.
        out_degrees : dict of (str, str, str) to Tensor, optional
            ``(N_src,)`` by relation: to how many nodes each source sends, self-loops not counted. Default: counted on
            the graph; a block needs them if the norm is ``symmetric``.

        Returns
        -------
        h, present
            As in `SAGEConv.forward`.

        Raises
        ------
        SchemaError, ShapeError
            As in `SAGEConv.forward`; or `out_degrees` lacks a relation or has the wrong shape.
        ConfigError
            A block comes without `out_degrees`.
        """
        degrees = self._out_degrees(graph, ntypes, out_degrees) if self.norm == "symmetric" else None
        return self._propagate(graph, h, present, ntypes, degrees)

    def _out_degrees(self, graph: Any, ntypes: Collection[str] | None, given: EdgeDict | None) -> EdgeDict:
        etypes = self._active(graph, ntypes)[1]
        if given is None and graph.is_block:
            raise ConfigError(
                "GraphConv, out_degrees: a block does not tell them, got None; pass the graph's, or choose norm='mean'"
            )
        if given is None:
            return {etype: graph.out_degrees(etype=etype) for etype in etypes}
        for etype in etypes:
            rows = graph.num_src_nodes(etype[0])
            found = tuple(given[etype].shape) if etype in given else "nothing"
            if found != (rows,):
                raise ShapeError(
                    f"GraphConv, out_degrees[{etype!r}]: expected shape ({rows},), got {found}; one a source node"
                )
        return given

    def _message(
        self, graph: Any, etype: CanonicalEtype, x: Tensor, own: Tensor, present: Tensor | None, degrees: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        looped = self.loops.get(etype[2]) == etype
        count = self._count(graph, etype, present)
        if degrees is not None:
            scale = (degrees.to(x) + looped).clamp(min=1).rsqrt().view(-1, 1, 1)
            x, own = x * scale, own * scale[: len(own)] if looped else own
        total = neighbor_sum(graph, etype, x)
        if looped:
            total = total + own
            count = count + (1 if present is None else destination_rows(graph, etype[2], present))
        weight = count.clamp(min=1).to(total).unsqueeze(-1)
        total = total / (weight if degrees is None else weight.sqrt())
        return self._matrix(relation_key(etype))(total), count > 0
