"""Who teaches whom: the dominant branch of each node and the branches it dominates."""

from __future__ import annotations

from itertools import starmap
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.kernels._checks import check_axes, check_classes, check_number
from hgmm.negative_learning._branches import check_branches, row_blocks
from hgmm.negative_learning.neighborhood import NeighborReference

__all__ = ["UNAVAILABLE", "Arbitration", "arbitrate"]

UNAVAILABLE = -1e9
"""Reliability of a branch that a node does not have: finite, so that differences of it are, and 0 in a softmax."""

_WHERE = "arbitrate"
_TERMS = ("confidence", "margin", "neighborhood")


class Arbitration(NamedTuple):
    """Dominant and inferior branches of ``n`` nodes; nothing here has a gradient.

    Attributes
    ----------
    dominant : Tensor
        ``(n,)`` int64: the most reliable branch, the first of equals; 0 for a node without any branch.
    pairs : Tensor
        ``(n, P)`` bool, True where the branch is inferior: the dominant one may teach it.
    reliability : Tensor
        ``(n, P)`` in [0, 1]; `UNAVAILABLE` for a branch that the node does not have.
    margin, confidence : Tensor
        ``(n, P)``; 0 for a branch that the node does not have.
    """

    dominant: Tensor
    pairs: Tensor
    reliability: Tensor
    margin: Tensor
    confidence: Tensor

    def of_dominant(self, x: Tensor) -> Tensor:
        """Return the dominant branch's rows of `x`: of ``(n, P)`` the ``(n,)``, of ``(n, P, C)`` the ``(n, C)``."""
        return x[torch.arange(len(x), device=x.device), self.dominant]

    @property
    def decided(self) -> Tensor:
        """``(n,)`` bool: False for a node without any branch."""
        return self.of_dominant(self.reliability) > UNAVAILABLE


@torch.no_grad()
def arbitrate(
    logits: Tensor,
    fused_logits: Tensor,
    target: Tensor | None = None,
    *,
    available: Tensor | None = None,
    reference: NeighborReference | None = None,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    margin_temperature: float = 1.0,
    delta: float = 0.0,
) -> Arbitration:
    r"""Choose the dominant branch of each node and the branches that it dominates.

    For node i with target t, branch b with logits z and ``p = softmax(z)``::

        rival        j = argmax_{c != t} of the fused logits, one for all branches
        confidence   p_b[t]
        margin       xi_b = z_b[t] - z_b[j]
        agreement    kappa_b = sum_c p_b[c] u[c], u the neighbourhood reference
        reliability  R_b = (w1 confidence + w2 sigmoid(xi_b / T) + w3 kappa_b) / (w1 + w2 + w3)
        dominant     D = argmax_b R_b
        pairs        b != D, confidence_D > confidence_b, xi_D > xi_b and R_D - R_b > delta

    Without a reference, and for nodes without neighbours, w3 is 0. Without a target, the confidence is ``max_c p_b[c]``
    and the margin the distance of the two largest logits: the reliability then needs no label and can weight a fusion.

    Parameters
    ----------
    logits : Tensor
        ``(n, P, C)`` of the branches, C at least 2; float64, float32, bfloat16 or float16. Finite where the branch is
        available; anything elsewhere.
    fused_logits : Tensor
        ``(n, C)``.
    target : Tensor, optional
        ``(n,)`` int64 in [0, C). Default: no labels.
    available : Tensor, optional
        ``(n, P)`` bool: which node has which branch. Default: all.
    reference : NeighborReference, optional
        u of the same nodes, from `neighbor_reference`.
    weights : tuple of float, optional
        w1, w2, w3 of confidence, margin and neighbourhood; not negative, not all 0.
    margin_temperature : float, optional
        T, above 0.
    delta : float, optional
        By how much the dominant branch must be more reliable, at least 0.

    Returns
    -------
    Arbitration
        In the dtype of `logits`, but float32 for half precision.

    Raises
    ------
    ConfigError
        A number is out of range, the weights are not three, none is left without a reference, or a class is outside
        [0, C).
    ShapeError
        The tensors do not fit each other, or there is no branch.

    Notes
    -----
    Runs in blocks of rows; what it allocates is ``O(n P)``. Deterministic, and each node by itself: the batch changes
    nothing but the last digit of a sigmoid. With two branches, w3 = 0 and delta = 0 the pairs are those of Multimodal
    Negative Learning.

    References
    ----------
    Confidence, margin, rival and the two conditions: Multimodal Negative Learning, NeurIPS 2025, arXiv 2510.20877, and
    its released code (BaoquanGong/Multimodal-Negative-Learning @64cea56), for two branches. The score, the
    neighbourhood and more than two branches are ours: a reconstruction of GraphMNL, arXiv 2606.12863, whose formulas
    could not be read.

    Examples
    --------
    Both branches are right, and the first is surer:

    >>> import torch
    >>> logits = torch.tensor([[[3.0, 0.0, 0.0], [1.0, 0.0, 0.5]]])
    >>> decision = arbitrate(logits, logits.mean(1), torch.tensor([0]))
    >>> decision.dominant, decision.pairs, decision.margin
    (tensor([0]), tensor([[False,  True]]), tensor([[3.0000, 0.5000]]))
    """
    _check_options(weights, margin_temperature, delta, reference)
    _check_tensors(logits, fused_logits, target, available, reference)
    expected = None if reference is None else reference.expected
    blocks = row_blocks(logits, fused_logits, target, expected)
    margin, confidence, agreement = (torch.cat(parts) for parts in zip(*starmap(_score, blocks), strict=True))
    w_confidence, w_margin, w_agreement = weights
    reliability = w_confidence * confidence + w_margin * torch.sigmoid(margin / margin_temperature)
    total = reliability.new_full((1, 1), w_confidence + w_margin)
    if reference is not None:
        counts = reference.has_neighbors.to(reliability.dtype).unsqueeze(1) * w_agreement
        reliability, total = reliability + counts * agreement, total + counts
    # Where the neighbourhood has all the weight, nodes without neighbours have none: no branch is above another.
    reliability = reliability / total.clamp(min=torch.finfo(total.dtype).tiny)
    if available is not None:
        reliability = reliability.where(available, UNAVAILABLE)
        margin, confidence = margin.where(available, 0), confidence.where(available, 0)
    return _decide(reliability, margin, confidence, delta)


def _score(
    logits: Tensor, fused_logits: Tensor, target: Tensor | None, expected: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return margin, confidence and agreement ``(r, P)`` of some nodes."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    p = z.softmax(2)
    if target is None:
        best = z.topk(2, dim=2).values
        margin, confidence = best[..., 0] - best[..., 1], p.amax(2)
    else:
        label = target.unsqueeze(1)
        rival = fused_logits.scatter(1, label, -torch.inf).argmax(1, keepdim=True)
        margin, confidence = _of_class(z, label) - _of_class(z, rival), _of_class(p, label)
    if expected is None:
        return margin, confidence, torch.zeros_like(margin)
    return margin, confidence, p.mul_(expected.to(p.dtype).unsqueeze(1)).sum(2)


def _of_class(x: Tensor, classes: Tensor) -> Tensor:
    """Return the entries ``(r, P)`` of `x` ``(r, P, C)`` at one class ``(r, 1)`` a node."""
    return x.gather(2, classes.unsqueeze(1).expand(-1, x.shape[1], 1)).squeeze(2)


def _decide(reliability: Tensor, margin: Tensor, confidence: Tensor, delta: float) -> Arbitration:
    # torch.argmax gives the first of equal entries.
    dominant = reliability.argmax(1, keepdim=True)
    lead, margin_lead, confidence_lead = (x.gather(1, dominant) - x for x in (reliability, margin, confidence))
    # An unavailable branch has -1e9, 0 and 0, far below any dominant one, so only the last test keeps it out.
    pairs = (lead > delta) & (margin_lead > 0) & (confidence_lead > 0) & (reliability > UNAVAILABLE)
    return Arbitration(dominant.squeeze(1), pairs, reliability, margin, confidence)


def _check_options(
    weights: tuple[float, float, float], margin_temperature: float, delta: float, reference: NeighborReference | None
) -> None:
    if len(weights) != len(_TERMS):
        raise ConfigError(
            f"{_WHERE}, weights: expected one for each of {', '.join(_TERMS)}, got {tuple(weights)}; 0 leaves one out"
        )
    for term, weight in zip(_TERMS, weights, strict=True):
        check_number(_WHERE, f"weights, {term}", weight, low=0, hint="0 leaves the term out")
    if not any(weights if reference is not None else weights[:2]):
        without = "" if reference is not None else " without a reference"
        raise ConfigError(
            f"{_WHERE}, weights: at least one of {', '.join(_TERMS)} must count{without}, got {tuple(weights)}; "
            "give confidence or margin a weight"
        )
    check_number(_WHERE, "margin_temperature", margin_temperature, low=0, open_low=True, hint="1 is the default")
    check_number(_WHERE, "delta", delta, low=0, hint="0 asks for any lead")


def _check_tensors(
    logits: Tensor,
    fused_logits: Tensor,
    target: Tensor | None,
    available: Tensor | None,
    reference: NeighborReference | None,
) -> None:
    n, num_branches, num_classes = check_branches(_WHERE, logits)
    check_axes(_WHERE, "fused_logits", fused_logits, (n, num_classes), hint="n and C are those of logits")
    if target is not None:
        check_axes(_WHERE, "target", target, (n,), hint="one class a node")
        check_classes(_WHERE, "target", target, num_classes)
    if available is not None:
        check_axes(_WHERE, "available", available, (n, num_branches), dtype=torch.bool, hint="one flag a branch")
    if reference is not None:
        hint = "one row for each node of logits, in the same order"
        check_axes(_WHERE, "reference", reference.expected, (n, num_classes), hint=hint)
        check_axes(_WHERE, "reference", reference.has_neighbors, (n,), dtype=torch.bool, hint=hint)
