"""Cross-entropy of the fused prediction and of each modality's own."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from hgmm.errors import ConfigError, ShapeError

__all__ = ["cross_modal_loss"]


def cross_modal_loss(
    logits: Tensor,
    branch_logits: Tensor | None,
    target: Tensor,
    *,
    branch_weight: float = 1.0,
    available: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Average the cross-entropies of the fused prediction and of the branches: L_cro, with L_ind.

    With w = `branch_weight`, each node contributes ``(CE(O) + w sum_m CE(O^m)) / (1 + w A)``, where the sum runs over
    the A branches that the node has; the loss is the mean over nodes. A node of which `available` says that it has no
    branch has nothing to predict from, and does not count.

    Parameters
    ----------
    logits : Tensor
        ``(n, C)`` fused logits O.
    branch_logits : Tensor or None
        ``(n, P, C)`` logits O^m of the branches, anything where a node has not the branch; None if there are none.
    target : Tensor
        ``(n,)`` int64 classes.
    branch_weight : float, optional
        w, not negative. 0 leaves the branches out (ablation `L_ind`); 1 is the released loss of the 2-modal module.
    available : Tensor, optional
        ``(n, P)`` bool: which node has which branch. Default: all.
    label_smoothing : float, optional
        Between 0 and 1.

    Returns
    -------
    Tensor
        Scalar; 0 where no node counts.

    Raises
    ------
    ConfigError
        `branch_weight` is negative or not finite.
    ShapeError
        The tensors do not fit each other.

    References
    ----------
    HGNN-IMA, IJCAI 2025, doi 10.24963/ijcai.2025/338, L_cro in the form of the released module; `available` is ours.

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(2, 3)
    >>> cross_modal_loss(logits, logits.unsqueeze(1), torch.tensor([0, 2]))
    tensor(1.0986)
    """
    if not (math.isfinite(branch_weight) and branch_weight >= 0):
        raise ConfigError(
            f"cross_modal_loss, branch_weight: must be a finite number of at least 0, got {branch_weight}; "
            "0 leaves the branches out"
        )
    _check_shapes(logits, branch_logits, target, available)
    loss = F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")
    if branch_logits is not None and branch_weight > 0:
        n, num_branches, num_classes = branch_logits.shape
        if available is not None:
            # A weight of 0 does not keep NaN out.
            branch_logits = branch_logits.masked_fill(~available.unsqueeze(2), 0)
        labels = target.repeat_interleave(num_branches)
        scores = branch_logits.reshape(n * num_branches, num_classes)
        branch = F.cross_entropy(scores, labels, label_smoothing=label_smoothing, reduction="none")
        branch = branch.view(n, num_branches)
        weight = branch.new_full((n, num_branches), branch_weight)
        if available is not None:
            weight = weight * available
        loss = (loss + (weight * branch).sum(1)) / (1.0 + weight.sum(1))
    if branch_logits is None or available is None:
        return loss.sum() / max(1, loss.numel())
    counts = available.any(1)
    return loss.masked_fill(~counts, 0).sum() / counts.sum().clamp(min=1)


def _check_shapes(logits: Tensor, branch_logits: Tensor | None, target: Tensor, available: Tensor | None) -> None:
    where = "cross_modal_loss"
    if logits.dim() != 2:
        raise ShapeError(f"{where}, logits: expected shape (n, C), got {tuple(logits.shape)}; one row a node")
    n, num_classes = logits.shape
    if target.shape != (n,):
        raise ShapeError(f"{where}, target: expected shape {(n,)}, got {tuple(target.shape)}; one class a node")
    if branch_logits is None:
        return
    if branch_logits.dim() != 3 or branch_logits.shape[::2] != (n, num_classes):
        raise ShapeError(
            f"{where}, branch_logits: expected shape ({n}, P, {num_classes}), got {tuple(branch_logits.shape)}; "
            "n and C are those of logits"
        )
    if available is not None and available.shape != branch_logits.shape[:2]:
        raise ShapeError(
            f"{where}, available: expected shape {tuple(branch_logits.shape[:2])}, got {tuple(available.shape)}; "
            "it has the first two axes of branch_logits"
        )
