"""Attention across the modalities of a node: the fusion at the end of HGNN-IMA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hgmm.errors import ShapeError
from hgmm.nn.functional import destination_rows, masked_softmax
from hgmm.typing import NodeDict

__all__ = ["InterModalAttention"]


class InterModalAttention(nn.Module):
    """Fuse the modalities of each node: ``o_i = sum_m pi_i^m z_i^m`` with ``pi_i = softmax_m u_i^m``.

    ``z_i^m = U_m h_i^m`` and ``u_i^m = w . Dropout(z_i^m) + b``, inside ``tanh(Dropout(.))`` if bounded, with one w for
    all modalities and types. ``U_m`` is the identity unless `num_modalities` is given.

    Parameters
    ----------
    hidden_size : int
        F.
    num_modalities : int, optional
        M: give each modality a learned ``U_m`` (F x F, the identity at the start), so that what one modality says is
        not averaged with, but added to, what another says. Default 0: none, as in the release.
    bounded : bool, optional
        Keep u within (-1, 1), as the release does; the largest weight is then at most ``e^2`` times the smallest.
    dropout : float, optional
        On h, for the scores only.
    score_dropout : float, optional
        On the scores, if bounded.

    References
    ----------
    The released modules of HGNN-IMA, IJCAI 2025, doi 10.24963/ijcai.2025/338; mask, unbounded form and U_m are ours.

    Examples
    --------
    >>> import torch
    >>> fuse = InterModalAttention(16)
    >>> fused, weights = fuse(None, {"item": torch.zeros(3, 2, 16)})
    >>> fused["item"].shape, weights["item"][0]
    (torch.Size([3, 16]), tensor([0.5000, 0.5000], grad_fn=<SelectBackward0>))
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        num_modalities: int = 0,
        bounded: bool = False,
        dropout: float = 0.0,
        score_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.bounded = bounded
        identities = torch.eye(hidden_size).repeat(num_modalities, 1, 1)
        self.project = nn.Parameter(identities) if num_modalities else None
        self.score = nn.Linear(hidden_size, 1)
        self.dropout = nn.Dropout(dropout)
        self.score_dropout = nn.Dropout(score_dropout)

    def forward(
        self, graph: Any | None, h: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[NodeDict, NodeDict]:
        """Fuse the modalities of the nodes of all types given.

        Parameters
        ----------
        graph : dgl.DGLGraph or None
            Says which rows are destinations, if it is a block; None: all rows.
        h : mapping of str to Tensor
            ``(N, M, F)`` by node type.
        present : mapping of str to Tensor, optional
            ``(N, M)`` bool by node type. A node without any modality takes all rows of `h` as they are.

        Returns
        -------
        fused : dict of str to Tensor
            ``(N_dst, F)``.
        weights : dict of str to Tensor
            ``(N_dst, M)``, rows sum to 1.

        Raises
        ------
        ShapeError
            A tensor has the wrong shape.
        """
        fused, weights = {}, {}
        for ntype, x in h.items():
            mask = None if present is None else present[ntype]
            if graph is not None:
                x = destination_rows(graph, ntype, x)
                mask = None if mask is None else destination_rows(graph, ntype, mask)
            fused[ntype], weights[ntype] = self.fuse(x, mask)
        return fused, weights

    def fuse(self, h: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fuse the rows of one tensor: ``(N, M, F)`` and ``(N, M)`` to ``(N, F)`` and ``(N, M)``."""
        if h.dim() != 3 or h.shape[2] != self.score.in_features:
            raise ShapeError(
                f"InterModalAttention, h: expected shape (N, M, {self.score.in_features}), got {tuple(h.shape)}; "
                "the last axis is the constructor's hidden_size"
            )
        if present is not None and present.shape != h.shape[:2]:
            raise ShapeError(
                f"InterModalAttention, present: expected shape {tuple(h.shape[:2])}, got {tuple(present.shape)}; "
                "it has the first two axes of h"
            )
        return self.combine(self.transform(h), present)

    def combine(self, z: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Do what `fuse` does with the result of `transform`, for a caller that needs that as well."""
        logits = self.score(self.dropout(z)).squeeze(-1)
        if self.bounded:
            logits = torch.tanh(self.score_dropout(logits))
        weights = masked_softmax(logits, present)
        return torch.einsum("nm,nmf->nf", weights, z), weights

    def transform(self, h: Tensor) -> Tensor:
        """Return z, ``(N, M, F)``: what is summed, `h` itself without matrices of its own for each modality."""
        if self.project is None:
            return h
        if h.shape[1] != len(self.project):
            raise ShapeError(
                f"InterModalAttention, h: expected {len(self.project)} modalities, got {h.shape[1]}; "
                "the middle axis is the constructor's num_modalities"
            )
        return torch.einsum("nmf,mfg->nmg", h, self.project)
