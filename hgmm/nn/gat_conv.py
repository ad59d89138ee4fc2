"""Graph attention for several modalities at once, each with its own parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hgmm import kernels
from hgmm.errors import ConfigError
from hgmm.graph.csc import relation_csc
from hgmm.nn._modality_conv import ModalityConv
from hgmm.nn._names import relation_key
from hgmm.nn.functional import destination_rows
from hgmm.typing import CanonicalEtype

__all__ = ["GATConv"]


class GATConv(ModalityConv):
    """Attend to the neighbours and the node itself with additive attention.

    For a modality m and head: ``v_j = h_j W``, ``e_ij = LeakyReLU(<a, v_j> + <b, h_i>)``,
    ``z_i = sum_j softmax_j(e_ij) v_j`` over the in-neighbours that have m, with the self-loop as one of them where one
    relation leads into a node type, from that type. Elsewhere each relation attends by itself, with parameters of its
    own, and ``h_i W_own`` joins them as if it were one more relation. Heads are put side by side.

    Parameters
    ----------
    ntypes, canonical_etypes, num_modalities, in_size, out_size, relation_reduce
        As in `GraphConv`.
    num_heads : int, optional
        H, divides `out_size`.
    negative_slope : float, optional
        Of the LeakyReLU.

    Raises
    ------
    ConfigError, SchemaError
        As `GraphConv`.

    Notes
    -----
    A score cannot be split into a product of its two ends, so ``(E, M, H)`` scores are kept for the backward pass; the
    sums never hold ``(E, M, H, D)``. More than 8 modalities run on the reference backend.

    References
    ----------
    Velickovic et al., ICLR 2018, arXiv 1710.10903, equations 1 to 6. There b acts on ``h_i W``; as nothing else of that
    enters, the product ``W b`` is the parameter here. Masks and relations are ours.

    Examples
    --------
    >>> import torch
    >>> from hgmm.dgl_compat import dgl
    >>> g = dgl.graph(([0, 1], [1, 2]))
    >>> conv = GATConv(g.ntypes, g.canonical_etypes, num_modalities=1, in_size=8, out_size=4, num_heads=2)
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
        num_heads: int = 4,
        negative_slope: float = 0.2,
        relation_reduce: str = "mean",
    ) -> None:
        if num_heads < 1 or out_size % num_heads:
            raise ConfigError(
                f"GATConv, out_size: must be a multiple of num_heads={num_heads}, got {out_size}; change one of the two"
            )
        super().__init__(
            ntypes,
            canonical_etypes,
            num_modalities=num_modalities,
            in_size=in_size,
            out_size=out_size,
            relation_reduce=relation_reduce,
        )
        self.num_heads = num_heads
        self.negative_slope = negative_slope
        head_size = out_size // num_heads
        self.source_scores = nn.ParameterDict()
        self.own_scores = nn.ParameterDict()
        for etype in self.canonical_etypes:
            for scores, size in ((self.source_scores, head_size), (self.own_scores, in_size)):
                drawn = torch.randn(num_modalities, num_heads, size) * size**-0.5
                scores[relation_key(etype)] = nn.Parameter(drawn)

    def _message(
        self, graph: Any, etype: CanonicalEtype, x: Tensor, own: Tensor, present: Tensor | None, degrees: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        looped = self.loops.get(etype[2]) == etype
        csc, key = relation_csc(graph, etype, device=x.device, self_loops=looped), relation_key(etype)
        v = self._matrix(key)(x).unflatten(-1, (self.num_heads, -1))
        sent = torch.einsum("nmhd,mhd->nmh", v, self.source_scores[key])
        asked = torch.einsum("nmf,mhf->nmh", own, self.own_scores[key])
        rows = torch.arange(len(own), device=x.device).repeat_interleave(csc.indptr.diff())
        bias = F.leaky_relu(sent.index_select(0, csc.indices) + asked.index_select(0, rows), self.negative_slope)
        # Queries of zero leave the bias as the only logit; the operator then wants keys of any finite value.
        queries = v.new_zeros(len(own), *v.shape[1:])
        out = kernels.inter_node_attention(csc, v.detach(), queries, v, present=present, edge_bias=bias).out
        reached = self._reached(graph, etype, present)
        if looped:
            reached = reached | (True if present is None else destination_rows(graph, etype[2], present))
        return out.flatten(2), reached
