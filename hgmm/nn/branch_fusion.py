"""From the predictions of a node's branches to one prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.errors import ConfigError, unknown_name
from hgmm.kernels._checks import check_axes

__all__ = ["FUSIONS", "fuse_branches", "label_free_reliability"]

FUSIONS = ("mean", "reliability")


def fuse_branches(
    logits: Tensor, available: Tensor, *, fusion: str = "mean", weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fuse the branches of each node: the weighted mean of the logits of those that it has.

    Parameters
    ----------
    logits : Tensor
        ``(n, P, C)``; anything where the branch is not available.
    available : Tensor
        ``(n, P)`` bool.
    fusion : str, optional
        ``mean``: all count the same; ``reliability``: as much as `label_free_reliability` says.
    weights : Tensor, optional
        ``(P,)`` not negative, times that. Default: 1.

    Returns
    -------
    fused : Tensor
        ``(n, C)``; zero for a node without any branch that counts.
    shares : Tensor
        ``(n, P)``, rows sum to 1, or to 0 for such a node. No gradient.

    Raises
    ------
    ConfigError
        `fusion` is unknown.
    ShapeError
        The tensors do not fit each other.
    """
    where = "fuse_branches"
    if fusion not in FUSIONS:
        raise ConfigError(f"{where}, fusion: {unknown_name('fusion', fusion, FUSIONS)}")
    check_axes(where, "logits", logits, ("n", "P", "C"), hint="one row a node and branch")
    check_axes(where, "available", available, tuple(logits.shape[:2]), dtype=torch.bool, hint="one flag a branch")
    if weights is not None:
        check_axes(where, "weights", weights, (logits.shape[1],), hint="one factor a branch")
    # A share of 0 does not keep NaN out.
    logits = logits.masked_fill(~available.unsqueeze(2), 0)
    shares = label_free_reliability(logits) if fusion == "reliability" else torch.ones_like(logits[..., 0])
    shares = shares * available if weights is None else shares * available * weights
    total = shares.sum(1, keepdim=True)
    shares = shares / total.masked_fill(total == 0, 1)
    return torch.einsum("np,npc->nc", shares.to(logits.dtype), logits), shares


def label_free_reliability(logits: Tensor) -> Tensor:
    """Say how sure a prediction is of itself: ``(max_c p_c + sigmoid(z_1st - z_2nd)) / 2`` with ``p = softmax(z)``.

    Parameters
    ----------
    logits : Tensor
        ``(..., C)``.

    Returns
    -------
    Tensor
        ``(...)`` between 0 and 1, float32 or float64; no gradient.

    References
    ----------
    Ours: confidence and margin as in Multimodal Negative Learning, NeurIPS 2025, arXiv 2510.20877, with the best and
    the second class for the target and its rival. A term for the neighbours, whose posteriors a block lacks, is left
    out.
    """
    z = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    best = z.topk(min(2, z.shape[-1]), dim=-1).values
    return (torch.softmax(z, -1).amax(-1) + torch.sigmoid(best[..., 0] - best[..., -1])) / 2
