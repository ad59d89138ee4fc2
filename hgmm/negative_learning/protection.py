"""Nodes without a label: which of them may learn, and which of their classes are left alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.kernels._checks import check_axes, check_number
from hgmm.negative_learning._branches import check_branches

__all__ = ["ProtectedClasses", "protected_classes"]

_WHERE = "protected_classes"


class ProtectedClasses(NamedTuple):
    """What stands for the label of nodes that have none.

    Attributes
    ----------
    nodes : Tensor
        ``(n,)`` bool, True for the nodes that may learn.
    classes : Tensor
        ``(n, C)`` bool, True for the classes that are left alone: ``protected`` of
        `hgmm.losses.negative_learning_loss`.
    """

    nodes: Tensor
    classes: Tensor


@torch.no_grad()
def protected_classes(
    fused_logits: Tensor, logits: Tensor, available: Tensor | None = None, *, min_confidence: float = 0.9
) -> ProtectedClasses:
    """Protect every class that the fused prediction or any branch holds for the likeliest.

    One pseudo-label alone would teach the branches to drop a class that may be the right one. Weigh these nodes lower
    than labelled ones, for example with 0.1 to 0.5.

    Parameters
    ----------
    fused_logits : Tensor
        ``(n, C)``.
    logits : Tensor
        ``(n, P, C)`` of the branches.
    available : Tensor, optional
        ``(n, P)`` bool: which node has which branch. Default: all.
    min_confidence : float, optional
        Largest fused probability from which on a node may learn, in [0, 1].

    Returns
    -------
    ProtectedClasses
        The nodes, and the classes of all nodes.

    Raises
    ------
    ConfigError
        `min_confidence` is out of range.
    ShapeError
        The tensors do not fit each other.

    References
    ----------
    Ours: GraphMNL, arXiv 2606.12863, and its parent method learn from labelled nodes.

    Examples
    --------
    >>> import torch
    >>> branches = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    >>> protected_classes(branches.mean(1), branches)
    ProtectedClasses(nodes=tensor([True]), classes=tensor([[ True, False,  True]]))
    """
    check_number(_WHERE, "min_confidence", min_confidence, low=0, high=1, hint="1 takes hardly any node")
    n, num_branches, num_classes = check_branches(_WHERE, logits)
    check_axes(_WHERE, "fused_logits", fused_logits, (n, num_classes), hint="n and C are those of logits")
    likeliest = fused_logits.argmax(1, keepdim=True)
    chosen = logits.argmax(2)
    if available is not None:
        check_axes(_WHERE, "available", available, (n, num_branches), dtype=torch.bool, hint="one flag a branch")
        chosen = chosen.where(available, likeliest)
    classes = torch.zeros(n, num_classes, dtype=torch.bool, device=logits.device)
    classes.scatter_(1, likeliest, True).scatter_(1, chosen, True)
    confidence = fused_logits.to(torch.promote_types(fused_logits.dtype, torch.float32)).softmax(1).amax(1)
    return ProtectedClasses(confidence >= min_confidence, classes)
