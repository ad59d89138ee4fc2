"""Losses of triples beside corrupted ones: scores in, scalar out. A higher score is more plausible."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hgmm.errors import ConfigError
from hgmm.kernels._checks import check_axes, check_choice, check_classes, check_number

__all__ = ["FORMS", "one_vs_all_loss", "ranking_loss", "self_adversarial_weights", "vector_regularizer"]

FORMS = ("margin", "softplus", "sigmoid")
_WHERE = "ranking_loss"


def ranking_loss(
    positive: Tensor,
    negative: Tensor,
    *,
    form: str = "margin",
    margin: float | None = None,
    temperature: float | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    r"""Ask of triples to score higher than their corruptions.

    For one triple with score s and its K corruptions with scores ``z_k``, weights ``w_k`` that sum to 1 over the
    corruptions that count, and g = `margin`::

        margin      l = sum_k w_k max(0, g + z_k - s)
        softplus    l = (log(1 + e^-s) + sum_k w_k log(1 + e^(z_k))) / 2
        sigmoid     l = -(log sigma(g + s) + sum_k w_k log sigma(-z_k - g)) / 2

    The loss is the mean over triples. ``w_k = 1 / K``, or with a temperature T those of `self_adversarial_weights`.

    Parameters
    ----------
    positive : Tensor
        ``(B,)`` scores s.
    negative : Tensor
        ``(B, K)`` scores of the corruptions; anything where they do not count.
    form : str, optional
        A name in `FORMS`.
    margin : float, optional
        g, at least 0; ``margin`` and ``sigmoid`` need it, ``softplus`` has none.
    temperature : float, optional
        T, at least 0: the higher, the more the corruptions with high scores count. Default: all count alike.
    valid : Tensor, optional
        ``(B, K)`` bool: which corruptions count. Default: all.

    Returns
    -------
    Tensor
        Scalar; 0 for B = 0. A triple none of whose corruptions counts keeps the terms of its own score.

    Raises
    ------
    ConfigError
        Unknown form, a number out of range, a margin that is missing or that the form does not have.
    ShapeError
        The tensors do not fit each other.

    Notes
    -----
    Finite for scores of any size; of what does not count nothing is read, NaN included, and its gradient is 0. A score
    of ``-inf`` is a corruption that is beaten already.

    References
    ----------
    margin: Bordes et al., NeurIPS 2013, equation 1, as a mean. softplus: the logistic loss of Trouillon et al., ICML
    2016, as a mean of both kinds. sigmoid with and without T: Sun et al., RotatE, ICLR 2019, equations 4 to 6, halved
    as in its released code. T in the other two forms: the released code of MANS.

    Examples
    --------
    >>> import torch
    >>> ranking_loss(torch.tensor([-1.0]), torch.tensor([[-3.0, -1.5]]), margin=1.0)
    tensor(0.2500)
    """
    check_choice(_WHERE, "form", form, FORMS)
    check_axes(_WHERE, "positive", positive, ("B",), hint="one score a triple")
    check_axes(_WHERE, "negative", negative, (len(positive), "K"), hint="K corruptions of each triple of positive")
    gap = _checked_margin(form, margin)
    # A weight of 0 does not keep NaN out.
    scores = negative if valid is None else negative.masked_fill(_checked(valid, negative).logical_not(), 0)
    weights = self_adversarial_weights(negative, temperature or 0.0, valid=valid)
    positive_part = negative_part = positive.new_zeros(())
    if form == "margin":
        negative_part = F.relu(gap + scores - positive.unsqueeze(1))
    elif form == "softplus":
        positive_part, negative_part = F.softplus(-positive) / 2, F.softplus(scores) / 2
    else:
        positive_part, negative_part = F.softplus(-gap - positive) / 2, F.softplus(scores + gap) / 2
    each = positive_part + (weights * negative_part).sum(1)
    return each.sum() / max(1, len(positive))


def self_adversarial_weights(negative: Tensor, temperature: float, *, valid: Tensor | None = None) -> Tensor:
    r"""Weight corruptions by what the model makes of them: ``w_k = exp(T z_k) / sum_j exp(T z_j)``.

    Parameters
    ----------
    negative : Tensor
        ``(B, K)`` scores.
    temperature : float
        T, at least 0; 0 weights all alike.
    valid : Tensor, optional
        ``(B, K)`` bool: which corruptions count.

    Returns
    -------
    Tensor
        ``(B, K)``, constants; rows sum to 1, or to 0 where nothing counts.

    Raises
    ------
    ConfigError
        `temperature` is negative or not finite.
    ShapeError
        `valid` does not fit.

    References
    ----------
    Sun et al., RotatE, ICLR 2019, equation 5.
    """
    check_number(_WHERE, "temperature", temperature, low=0, hint="0 weights all corruptions alike")
    check_axes(_WHERE, "negative", negative, ("B", "K"), hint="K corruptions of each triple")
    scores = negative.detach() * temperature if temperature else torch.zeros_like(negative)
    if valid is None:
        return scores.clamp(min=torch.finfo(scores.dtype).min).softmax(1)
    out = ~_checked(valid, negative)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(out, lowest).clamp(min=lowest).softmax(1).masked_fill(out, 0)


def one_vs_all_loss(scores: Tensor, target: Tensor, *, excluded: Tensor | None = None) -> Tensor:
    r"""Cross-entropy of the right entity among all: the mean of ``log sum_e exp(z_e) - z_target``.

    Parameters
    ----------
    scores : Tensor
        ``(B, E)`` of every entity as the missing end.
    target : Tensor
        ``(B,)`` int64, the right one.
    excluded : Tensor, optional
        ``(B, E)`` bool: entities that are left out of the sum, such as other right ones; the target always stays.

    Returns
    -------
    Tensor
        Scalar; 0 for B = 0.

    Raises
    ------
    ShapeError
        The tensors do not fit each other.
    ConfigError
        A target is no entity.

    References
    ----------
    Lacroix et al., Canonical Tensor Decomposition for Knowledge Base Completion, ICML 2018; `excluded` is ours.

    Examples
    --------
    >>> import torch
    >>> one_vs_all_loss(torch.zeros(1, 4), torch.tensor([2]))
    tensor(1.3863)
    """
    where = "one_vs_all_loss"
    check_axes(where, "scores", scores, ("B", "E"), hint="one column an entity")
    check_axes(where, "target", target, (len(scores),), hint="one entity a row of scores")
    check_classes(where, "target", target, scores.shape[1])
    if excluded is not None:
        check_axes(where, "excluded", excluded, tuple(scores.shape), hint="it masks scores", dtype=torch.bool)
        left_out = excluded.scatter(1, target.unsqueeze(1), False)
        scores = scores.masked_fill(left_out, torch.finfo(scores.dtype).min)
    return F.cross_entropy(scores, target, reduction="sum") / max(1, len(scores))


def vector_regularizer(*vectors: Tensor, power: int = 2, complex_numbers: bool = False) -> Tensor:
    r"""Penalise long vectors: the mean over rows of ``sum_d |x_d|^p``, summed over the tensors.

    Parameters
    ----------
    *vectors : Tensor
        ``(*, D)`` each, such as heads, relations and tails of a batch.
    power : int, optional
        p: 2 for L2, 3 for N3.
    complex_numbers : bool, optional
        Take the moduli of D / 2 complex numbers, all real parts before all imaginary parts.

    Returns
    -------
    Tensor
        Scalar; 0 for tensors without rows.

    Raises
    ------
    ConfigError
        `power` is another number, or nothing was passed.

    References
    ----------
    p = 3: the nuclear 3-norm of Lacroix et al., ICML 2018, as in its released code.

    Examples
    --------
    >>> import torch
    >>> vector_regularizer(torch.tensor([[1.0, -2.0]]), power=3)
    tensor(9.)
    """
    where = "vector_regularizer"
    if power not in (2, 3):
        raise ConfigError(f"{where}, power: must be 2 (L2) or 3 (N3), got {power}")
    if not vectors:
        raise ConfigError(f"{where}, vectors: at least one tensor is needed, got none; pass heads, relations and tails")
    total = vectors[0].new_zeros(())
    for x in vectors:
        rows = max(1, x.shape[:-1].numel())
        size = torch.linalg.vector_norm(torch.stack(x.chunk(2, -1)), dim=0) if complex_numbers else x.abs()
        total = total + size.pow(power).sum() / rows
    return total


def _checked_margin(form: str, margin: float | None) -> float:
    if (margin is None) != (form == "softplus"):
        hint = "softplus has none; leave it out" if form == "softplus" else f"{form} needs one; pass margin=1.0"
        raise ConfigError(f"{_WHERE}, margin: got {margin} with form={form!r}; {hint}")
    if margin is None:
        return math.nan
    check_number(_WHERE, "margin", margin, low=0, hint="0 asks for the right order only")
    return margin


def _checked(valid: Tensor, negative: Tensor) -> Tensor:
    check_axes(_WHERE, "valid", valid, tuple(negative.shape), hint="it masks negative", dtype=torch.bool)
    return valid
