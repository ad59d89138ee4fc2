"""Several graph layers of one kind, which end at the nodes of one type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hgmm.nn._relations import types_towards
from hgmm.nn.functional import destination_rows
from hgmm.nn.gat_conv import GATConv
from hgmm.nn.graph_conv import GraphConv
from hgmm.nn.inter_node_attention import InterNodeAttention
from hgmm.nn.sage_conv import SAGEConv
from hgmm.typing import CanonicalEtype, NodeDict

__all__ = ["BACKBONES", "GraphStack"]

BACKBONES = ("gcn", "sage", "gat", "hgnn-ima")


class GraphStack(nn.Module):
    """Run `num_layers` layers of a backbone towards one node type: ``(N, M, F)`` by type to ``(n, M, F)``.

    Each modality has parameters of its own. Layers other than ``hgnn-ima``, which is `InterNodeAttention` with its own
    residual, norm and dropout, are followed by ReLU and dropout.
    """

    def __init__(
        self,
        backbone: str,
        ntypes: Sequence[str],
        canonical_etypes: Sequence[CanonicalEtype],
        *,
        target: str,
        num_modalities: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.target = target
        self.canonical_etypes = tuple(canonical_etypes)
        self.needed = types_towards(target, canonical_etypes, num_layers)[1:]
        sizes: dict[str, Any] = {"num_modalities": num_modalities, "in_size": hidden_size, "out_size": hidden_size}

        def layer() -> nn.Module:
            match backbone:
                case "gcn":
                    return GraphConv(ntypes, canonical_etypes, **sizes)
                case "sage":
                    return SAGEConv(ntypes, canonical_etypes, **sizes)
                case "gat":
                    return GATConv(ntypes, canonical_etypes, num_heads=num_heads, **sizes)
            return _SeparateAttention(
                InterNodeAttention(
                    ntypes,
                    canonical_etypes,
                    num_modalities=1,
                    hidden_size=hidden_size,
                    num_heads=num_heads,
                    dropout=dropout,
                )
                for _ in range(num_modalities)
            )

        self.convs = nn.ModuleList(layer() for _ in range(num_layers))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, graphs: Sequence[Any], h: NodeDict, present: NodeDict | None, out_degrees: NodeDict | None
    ) -> Tensor:
        """Return the target's states.

        Parameters
        ----------
        graphs : sequence of dgl.DGLGraph
            The graph or block of each layer.
        h, present
            As the layers take them, of the first graph's source nodes.
        out_degrees : dict of str to Tensor, or None
            ``(N, R)`` by node type for blocks: to how many nodes a source sends over each relation that starts at its
            type, in the order of the relations.

        Returns
        -------
        Tensor
            ``(n, M, F)``.
        """
        for conv, graph, ntypes in zip(self.convs, graphs, self.needed, strict=True):
            if isinstance(conv, GraphConv):
                degrees = None if out_degrees is None else self._by_relation(graph, out_degrees)
                h, present = conv(graph, h, present, ntypes=ntypes, out_degrees=degrees)
            else:
                h, present = conv(graph, h, present, ntypes=ntypes)
            if out_degrees is not None:
                out_degrees = {t: destination_rows(graph, t, out_degrees[t]) for t in ntypes if t in out_degrees}
            if not isinstance(conv, _SeparateAttention):
                h = {t: self.dropout(F.relu(x)) for t, x in h.items()}
        return h[self.target]

    def _by_relation(self, graph: Any, out_degrees: NodeDict) -> dict[CanonicalEtype, Tensor]:
        column = dict.fromkeys(out_degrees, 0)
        result = {}
        for etype in self.canonical_etypes:
            if etype[0] not in out_degrees:
                continue
            if etype in graph.canonical_etypes:
                result[etype] = out_degrees[etype[0]][:, column[etype[0]]]
            column[etype[0]] += 1
        return result


class _SeparateAttention(nn.ModuleList):
    """One `InterNodeAttention` a modality, so that none shares its parameters with another."""

    def forward(
        self, graph: Any, h: NodeDict, present: NodeDict | None = None, *, ntypes: frozenset[str]
    ) -> tuple[NodeDict, NodeDict | None]:
        outs = []
        for m, conv in enumerate(self):
            own = {t: x[:, m : m + 1] for t, x in h.items()}
            mask = None if present is None else {t: x[:, m : m + 1] for t, x in present.items()}
            outs.append(cast(InterNodeAttention, conv).propagate(graph, own, mask, ntypes=ntypes))
        joined = {t: torch.cat([out.h[t] for out in outs], 1) for t in outs[0].h}
        arrived = [out.present for out in outs if out.present is not None]
        return joined, {t: torch.cat([mask[t] for mask in arrived], 1) for t in joined} if arrived else None
