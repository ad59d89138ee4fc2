"""GraphSAGE for several modalities at once, each with its own parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hgmm.nn._modality_conv import ModalityConv
from hgmm.nn._names import node_key, relation_key
from hgmm.nn.functional import neighbor_mean
from hgmm.typing import CanonicalEtype

__all__ = ["SAGEConv"]


class SAGEConv(ModalityConv):
    """Add to a node's own state the mean of its neighbours: GraphSAGE with the mean aggregator.

    For a modality m: ``h_i W_own + (mean over relations r of) (mean_j h_j) W_r``, with ``mean_j`` over the
    in-neighbours that have m.

    Parameters
    ----------
    ntypes, canonical_etypes, num_modalities, in_size, out_size
        As in `GraphConv`.
    relation_reduce : str, optional
        ``mean`` over the relations that bring node i modality m, or ``sum``.

    Raises
    ------
    ConfigError, SchemaError
        As `GraphConv`.

    References
    ----------
    Hamilton, Ying and Leskovec, NeurIPS 2017, arXiv 1706.02216, algorithm 1 with the mean aggregator, whose matrix on
    the two states side by side is W_own and W_r here. Masks and relations are ours.

    Examples
    --------
    >>> import torch
    >>> from hgmm.dgl_compat import dgl
    >>> g = dgl.heterograph({("user", "buys", "item"): ([0, 1], [0, 0])})
    >>> conv = SAGEConv(g.ntypes, g.canonical_etypes, num_modalities=2, in_size=8, out_size=4)
    >>> h, _ = conv(g, {t: torch.randn(g.num_nodes(t), 2, 8) for t in g.ntypes})
    >>> h["item"].shape
    torch.Size([1, 2, 4])
    """

    tied = False

    def _message(
        self, graph: Any, etype: CanonicalEtype, x: Tensor, own: Tensor, present: Tensor | None, degrees: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mean = neighbor_mean(graph, etype, x, present=present)
        return self._matrix(relation_key(etype))(mean), self._reached(graph, etype, present)

    def _join(
        self, ntype: str, own: Tensor, has: Tensor, messages: Sequence[tuple[Tensor, Tensor]], *, looped: bool
    ) -> Tensor:
        result: Tensor = self._matrix(node_key(ntype))(own) + self.bias[node_key(ntype)]
        if not messages:
            return result
        total = torch.stack([value for value, _ in messages]).sum(0)
        if self.relation_reduce == "mean":
            reached = torch.stack([reached for _, reached in messages]).sum(0)
            total = total / reached.clamp(min=1).unsqueeze(-1)
        return result + total
