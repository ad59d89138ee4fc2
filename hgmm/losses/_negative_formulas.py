"""The forms of negative learning on rows of logits: value and derivative.

Every function takes logits z and the dominant branch's logits ``(k, C)`` in the dtype of the computation, both divided
by the temperature and free to be overwritten, and ``spare(x, value)``, which sets the entries of the classes that are
left alone in place. Values are ``(k,)``, derivatives by z ``(k, C)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["FORMULAS", "Formula", "Spare"]

Spare = Callable[[Tensor, float], Tensor]
_OnRows = Callable[[Tensor, Tensor, Spare], Tensor]


class Formula(NamedTuple):
    """Value and derivative of one form."""

    value: _OnRows
    derivative: _OnRows


def _imitation_value(z: Tensor, z_dominant: Tensor, _: Spare) -> Tensor:
    log_q, log_p = z_dominant.log_softmax(1), z.log_softmax(1)
    return log_p.sub_(log_q).mul_(log_q.exp_()).sum(1).neg_()


def _imitation_derivative(z: Tensor, z_dominant: Tensor, _: Spare) -> Tensor:
    return z.softmax(1).sub_(z_dominant.softmax(1))


def _without_spared(z: Tensor, z_dominant: Tensor, spare: Spare) -> tuple[Tensor, Tensor, Spare]:
    """Take classes out of both softmaxes; finite, so that a row whose classes are all taken out stays so too."""
    lowest = torch.finfo(z.dtype).min
    return spare(z, lowest), spare(z_dominant, lowest), spare


def _nckd_value(z: Tensor, z_dominant: Tensor, spare: Spare) -> Tensor:
    return _imitation_value(*_without_spared(z, z_dominant, spare))


def _nckd_derivative(z: Tensor, z_dominant: Tensor, spare: Spare) -> Tensor:
    return _imitation_derivative(*_without_spared(z, z_dominant, spare))


def _mnl_value(z: Tensor, z_dominant: Tensor, spare: Spare) -> Tensor:
    return spare(z_dominant.softmax(1), 0).mul_(z.log_softmax(1)).sum(1).neg_()


def _mnl_derivative(z: Tensor, z_dominant: Tensor, spare: Spare) -> Tensor:
    q = spare(z_dominant.softmax(1), 0)
    return z.softmax(1).mul_(q.sum(1, keepdim=True)).sub_(q)


def _unlikeliness(z_dominant: Tensor, spare: Spare) -> Tensor:
    """Return w: ``1 - q`` on the classes that are not spared, summing to 1 over them."""
    tiny = torch.finfo(z_dominant.dtype).tiny
    # A single class left has weight 1 even where 1 - q rounds to 0.
    w = spare(z_dominant.softmax(1).neg_().add_(1).clamp_(min=tiny), 0)
    return w.div_(w.sum(1, keepdim=True).clamp_(min=tiny))


def _without_top(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest entry's position ``(k, 1)`` and the logits without it."""
    top = z.argmax(1, keepdim=True)
    return top, z.scatter(1, top, torch.finfo(z.dtype).min)


def _nl_value(z: Tensor, z_dominant: Tensor, spare: Spare) -> Tensor:
    top, others = _without_top(z)
    # 1 - p loses all digits only where p is above 1/2, so for one class: there it is the mass of the others.
    rest = others.logsumexp(1, keepdim=True).sub_(z.logsumexp(1, keepdim=True))
    log_rest = z.softmax(1).neg_().log1p_().scatter_(1, top, rest)
    return log_rest.mul_(_unlikeliness(z_dominant, spare)).sum(1).neg_()


def _nl_derivative(z: Tensor, z_dominant: Tensor, spare: Spare) -> Tensor:
    top, others = _without_top(z)
    p, w = z.softmax(1), _unlikeliness(z_dominant, spare)
    # p / (1 - p) has no bound for the largest entry, the derivative has: that entry's share is written out.
    push = w.gather(1, top).mul_(p.gather(1, top))
    r = p.div(1 - p).mul_(w).scatter_(1, top, 0.0)
    r.sub_(p.mul_(r.sum(1, keepdim=True))).sub_(others.softmax(1).mul_(push))
    return r.scatter_add_(1, top, push)


FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "nckd": Formula(_nckd_value, _nckd_derivative),
        "mnl": Formula(_mnl_value, _mnl_derivative),
        "nl": Formula(_nl_value, _nl_derivative),
        "kl": Formula(_imitation_value, _imitation_derivative),
    }
)
"""By name, as `hgmm.losses.negative_learning_loss` defines them."""
