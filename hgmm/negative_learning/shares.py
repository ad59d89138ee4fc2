"""Figures that say what an arbitration and a gate do."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.kernels._checks import check_axes, check_classes
from hgmm.negative_learning._branches import check_branches
from hgmm.negative_learning.arbitration import Arbitration

__all__ = ["TRANSFER_FIGURES", "shares_of_counts", "transfer_counts", "transfer_shares"]

TRANSFER_FIGURES = ("inferior", "gate", "agreement", "dominant_accuracy", "harmful")
"""What is counted, in the order of the rows of `transfer_counts`; `transfer_shares` says what each is."""


@torch.no_grad()
def transfer_shares(
    decision: Arbitration, weight: Tensor, logits: Tensor, target: Tensor, *, available: Tensor | None = None
) -> dict[str, float]:
    """Summarise transfers for a report.

    Parameters
    ----------
    decision : Arbitration
        Of n nodes.
    weight : Tensor
        ``(n, P)`` from `StabilityGate`.
    logits : Tensor
        ``(n, P, C)`` of the branches.
    target : Tensor
        ``(n,)`` int64 classes.
    available : Tensor, optional
        ``(n, P)`` bool: which node has which branch. Default: all.

    Returns
    -------
    dict of str to float
        Each in [0, 1], and 0 where there is nothing to take a share of:

        - ``inferior``: inferior branches among the available ones besides the dominant;
        - ``gate``: mean weight of the pairs;
        - ``agreement``: pairs of available branches of a node that predict the same class;
        - ``dominant_accuracy``: nodes with a branch whose dominant branch predicts the target;
        - ``harmful``: among the pairs with a weight above 0, those whose dominant branch is wrong and whose inferior
          branch is right.

    Raises
    ------
    ConfigError
        A class is outside [0, C).
    ShapeError
        The tensors do not fit each other.

    References
    ----------
    Ours.

    Examples
    --------
    >>> import torch
    >>> from hgmm.negative_learning import arbitrate
    >>> logits = torch.tensor([[[3.0, 0.0, 0.0], [1.0, 0.0, 0.5]]])
    >>> target = torch.tensor([0])
    >>> decision = arbitrate(logits, logits.mean(1), target)
    >>> transfer_shares(decision, decision.pairs * 0.5, logits, target)
    {'inferior': 1.0, 'gate': 0.5, 'agreement': 1.0, 'dominant_accuracy': 1.0, 'harmful': 0.0}
    """
    return shares_of_counts(_counts("transfer_shares", decision, weight, logits, target, available))


@torch.no_grad()
def transfer_counts(
    decision: Arbitration, weight: Tensor, logits: Tensor, target: Tensor, *, available: Tensor | None = None
) -> Tensor:
    """Count what `transfer_shares` takes shares of, so that the counts of several batches can be added up.

    Parameters
    ----------
    decision, weight, logits, target, available
        As in `transfer_shares`, which has the errors, too.

    Returns
    -------
    Tensor
        ``(5, 2)`` float64: part and whole of each of `TRANSFER_FIGURES`.
    """
    return _counts("transfer_counts", decision, weight, logits, target, available)


def _counts(
    where: str, decision: Arbitration, weight: Tensor, logits: Tensor, target: Tensor, available: Tensor | None
) -> Tensor:
    n, num_branches, num_classes = check_branches(where, logits)
    for name, x in (("decision", decision.pairs), ("weight", weight), ("available", available)):
        if x is not None:
            check_axes(where, name, x, (n, num_branches), hint="n and P are those of logits")
    check_axes(where, "target", target, (n,), hint="one class a node")
    check_classes(where, "target", target, num_classes)
    has = decision.reliability.new_ones(n, num_branches, dtype=torch.bool) if available is None else available
    predicted = logits.argmax(2)
    right = predicted == target.unsqueeze(1)
    dominant_right = decision.of_dominant(right)
    transfers = decision.pairs & (weight > 0)
    counts = has.sum(1)
    same = (predicted.unsqueeze(1) == predicted.unsqueeze(2)) & has.unsqueeze(1) & has.unsqueeze(2)
    parts = (
        (decision.pairs.sum(), (counts - 1).clamp(min=0).sum()),
        (weight[decision.pairs].double().sum(), decision.pairs.sum()),
        # Each branch agrees with itself, which is no pair.
        (same.sum() - counts.sum(), (counts * (counts - 1)).sum()),
        ((dominant_right & decision.decided).sum(), decision.decided.sum()),
        ((transfers & right & ~dominant_right.unsqueeze(1)).sum(), transfers.sum()),
    )
    return torch.stack([torch.stack(pair).double() for pair in parts])


def shares_of_counts(counts: Tensor) -> dict[str, float]:
    """Return the shares that `transfer_counts`, or a sum of them, holds; 0 where there is nothing to take one of.

    Parameters
    ----------
    counts : Tensor
        ``(5, 2)``.
    """
    shares = counts[:, 0] / counts[:, 1].clamp(min=1)
    return dict(zip(TRANSFER_FIGURES, shares.tolist(), strict=True))
