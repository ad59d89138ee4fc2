"""Negative learning: what a dominant branch tells the others about the classes that a node does not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hgmm.errors import BackendError, ConfigError, ShapeError
from hgmm.kernels._checks import check_axes, check_choice, check_classes, check_number
from hgmm.kernels._segment import block_rows
from hgmm.losses._negative_formulas import FORMULAS, Spare

__all__ = ["REDUCTIONS", "VARIANTS", "NegativeLearningLoss", "negative_learning_loss"]

VARIANTS = tuple(FORMULAS)
REDUCTIONS = ("mean", "sum", "none")
_WHERE = "negative_learning_loss"


def negative_learning_loss(
    logits: Tensor,
    dominant_logits: Tensor,
    target: Tensor | None = None,
    *,
    protected: Tensor | None = None,
    variant: str = "nckd",
    pairs: Tensor | None = None,
    weight: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    r"""Teach inferior branches which classes are unlikely, and leave the target class to the cross-entropy.

    For one pair of node and branch with logits z, dominant logits z', temperature T, ``p = softmax(z / T)``,
    ``q = softmax(z' / T)`` and S the classes that are left alone, the target or those of `protected`::

        nckd    l = T^2 sum_{c not in S} q^_c (log q^_c - log p^_c)    p^, q^: softmax over the classes not in S
                dl/dz_c = T (p^_c - q^_c), exactly 0 in S
        mnl     l = -T^2 sum_{c not in S} q_c log p_c
                dl/dz_c = T (Q p_c - q_c [c not in S]), Q = sum_{c not in S} q_c; at least 0 in S
        nl      l = -T^2 sum_{c not in S} w_c log(1 - p_c), w_c ~ 1 - q_c with sum 1
                dl/dz_c = T (r_c - p_c sum_k r_k), r_c = w_c p_c / (1 - p_c); at most 0 in S
        kl      l = T^2 sum_c q_c (log q_c - log p_c)                  imitation, the baseline; S plays no part
                dl/dz_c = T (p_c - q_c)

    So ``nckd`` does not touch the target, ``nl`` can only raise it, ``mnl`` pushes it down. With g = `weight` and I =
    `pairs`, ``mean`` is ``sum I g l / max(1, sum I)``: g is no part of the denominator, so that a gate that closes
    shrinks the loss.

    Parameters
    ----------
    logits : Tensor
        ``(n, C)`` or ``(n, P, C)`` of the branches that learn, C at least 2; float64, float32, bfloat16 or float16.
        Finite where a pair counts; anything elsewhere.
    dominant_logits : Tensor
        ``(n, C)``, one row a node, or ``(n, P, C)``; n and P may be 1 for all. A constant: no gradient flows into it.
    target : Tensor, optional
        ``(n,)`` int64 in [0, C): the class that is left alone. Give this or `protected`.
    protected : Tensor, optional
        ``(n, C)`` bool: the classes that are left alone, for nodes without a label
        (`hgmm.negative_learning.protected_classes`). A row that leaves nothing else costs 0.
    variant : str, optional
        ``nckd``, ``mnl``, ``nl`` or ``kl``.
    pairs : Tensor, optional
        ``(n,)`` or ``(n, P)`` bool, as `logits` without C: who is taught. Default: all.
    weight : Tensor, optional
        Shape of `pairs`, not negative: how much each pair counts, a constant. Default: 1.
    temperature : float, optional
        T, above 0.
    reduction : str, optional
        ``mean`` as above, ``sum`` of ``I g l``, or ``none``: ``I g l`` in the shape of `pairs`.

    Returns
    -------
    Tensor
        In the dtype of `logits`, but float32 for half precision.

    Raises
    ------
    ConfigError
        An option is unknown or out of range, a class is outside [0, C), a weight of a pair is negative or NaN, both or
        neither of `target` and `protected` are given, or ``nckd`` is asked of C = 2, where it is 0 whatever the logits.
    ShapeError
        The tensors do not fit each other.
    BackendError
        A second derivative is asked for.

    Notes
    -----
    Masks logits, never probabilities: renormalising q underflows where the dominant branch is sure. For ``nl`` the
    logarithm of ``1 - p`` is exact where p rounds to 1, so nothing is clamped and a branch that is sure of a wrong
    class still learns. Values and gradients are finite for logits of any size that a training reaches (1e4 is tested).

    Only pairs that count, with a weight other than 0, are computed, in blocks of rows. Kept for the backward pass are
    the inputs; it allocates one tensor of the size of `logits`, their gradient. A layout other than the contiguous one
    costs a copy of `logits`.

    References
    ----------
    ``nckd``: the non-target term NCKD of Decoupled Knowledge Distillation, CVPR 2022, arXiv 2203.08679; several classes
    left alone are ours. ``mnl``: Multimodal Negative Learning, NeurIPS 2025, arXiv 2510.20877, at T = 1; a sum over
    classes, where its released code takes their mean. ``nl``: NLNL, ICCV 2019, arXiv 1908.07387, on all classes with
    weights w, which are ours, instead of one drawn class, and without its clamp. GraphMNL, arXiv 2606.12863, asks for a
    target-preserving loss; its own formula could not be read.

    Examples
    --------
    The second branch takes the third class for likelier than the dominant one does; class 0 is the target:

    >>> import torch
    >>> logits = torch.tensor([[[3.0, 0.0, 0.0], [1.0, 0.0, 2.0]]], requires_grad=True)
    >>> pairs = torch.tensor([[False, True]])
    >>> loss = negative_learning_loss(logits, logits[:, 0], torch.tensor([0]), pairs=pairs)
    >>> loss.backward()
    >>> logits.grad
    tensor([[[ 0.0000,  0.0000,  0.0000],
             [ 0.0000, -0.3808,  0.3808]]])
    """
    _check_options(variant, temperature, reduction)
    _check_logits(logits, dominant_logits, variant)
    spared = _check_spared(logits, target, protected)
    shape = tuple(logits.shape[:-1])
    for name, x in (("pairs", pairs), ("weight", weight)):
        if x is not None:
            dtype = torch.bool if name == "pairs" else None
            check_axes(_WHERE, name, x, shape, dtype=dtype, hint="it has the axes of logits without the last")
    if weight is not None and not bool((weight >= 0).all()):
        wrong = (~(weight >= 0)).nonzero()[0].tolist()
        raise ConfigError(
            f"{_WHERE}, weight: must be at least 0, got {weight[tuple(wrong)].item()} at {wrong}; 0 leaves a pair out"
        )
    if pairs is None:
        pairs = torch.ones(shape, dtype=torch.bool, device=logits.device)
    active = pairs if weight is None else pairs & (weight != 0)
    rows = active.flatten().nonzero().squeeze(1)
    losses: Tensor = _RowLosses.apply(  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        _by_branch(logits), _by_branch(dominant_logits.detach()), spared, rows, variant, temperature
    )
    if weight is not None:
        losses = losses * weight.detach().flatten()[rows]
    if reduction == "none":
        return losses.new_zeros(pairs.numel()).index_put((rows,), losses).view(shape)
    total = losses.sum()
    return total / pairs.sum().clamp(min=1) if reduction == "mean" else total


class NegativeLearningLoss(nn.Module):
    """Module with the options of `negative_learning_loss`, which has the formulas.

    Parameters
    ----------
    variant : str, optional
        ``nckd``, ``mnl``, ``nl`` or ``kl``.
    temperature : float, optional
        T, above 0.
    reduction : str, optional
        ``mean``, ``sum`` or ``none``.

    Raises
    ------
    ConfigError
        An option is unknown or out of range.

    Examples
    --------
    >>> import torch
    >>> loss = NegativeLearningLoss("mnl")
    >>> loss(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0]))
    tensor(0.7324)
    """

    def __init__(self, variant: str = "nckd", *, temperature: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        _check_options(variant, temperature, reduction)
        self.variant = variant
        self.temperature = temperature
        self.reduction = reduction

    def forward(
        self,
        logits: Tensor,
        dominant_logits: Tensor,
        target: Tensor | None = None,
        *,
        protected: Tensor | None = None,
        pairs: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Run `negative_learning_loss`, whose arguments and errors these are."""
        return negative_learning_loss(
            logits,
            dominant_logits,
            target,
            protected=protected,
            variant=self.variant,
            pairs=pairs,
            weight=weight,
            temperature=self.temperature,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Return the options, for ``print``."""
        return f"{self.variant!r}, temperature={self.temperature}, reduction={self.reduction!r}"


class _RowLosses(torch.autograd.Function):
    """The losses ``(k,)`` of chosen pairs, in the dtype of the computation; `rows` are their positions in ``n P``."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, dominant: Tensor, spared: Tensor, rows: Tensor, variant: str, temperature: float
    ) -> Tensor:
        ctx.save_for_backward(logits, dominant, spared, rows)
        ctx.variant, ctx.temperature = variant, temperature
        value = FORMULAS[variant].value
        blocks = _blocks(logits, dominant, spared, rows, temperature)
        return torch.cat([value(*block) for block in blocks]).mul_(temperature**2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _RowGradients.apply(grad, *ctx.saved_tensors, ctx.variant, ctx.temperature)  # type: ignore[no-untyped-call]  # as above
        return gradients, None, None, None, None, None


class _RowGradients(torch.autograd.Function):
    """The derivative of `_RowLosses` by the logits, written into zeros."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        logits: Tensor,
        dominant: Tensor,
        spared: Tensor,
        rows: Tensor,
        variant: str,
        temperature: float,
    ) -> Tensor:
        out = torch.zeros_like(logits, memory_format=torch.contiguous_format)
        flat = out.view(-1, logits.shape[-1])
        derivative = FORMULAS[variant].derivative
        scale = (grad * temperature).unsqueeze(1)
        size = block_rows(flat)
        blocks = _blocks(logits, dominant, spared, rows, temperature)
        for block, factor, positions in zip(blocks, torch.split(scale, size), torch.split(rows, size), strict=True):
            flat.index_copy_(0, positions, derivative(*block).mul_(factor).to(out.dtype))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise BackendError(
            f"{_WHERE}: double backward was asked for, but the loss has first derivatives only; "
            "leave it out of what is differentiated twice"
        )


def _by_branch(logits: Tensor) -> Tensor:
    """Give logits without a branch axis one of length 1."""
    return logits.unsqueeze(1) if logits.dim() == 2 else logits


def _blocks(
    logits: Tensor, dominant: Tensor, spared: Tensor, rows: Tensor, temperature: float
) -> Iterator[tuple[Tensor, Tensor, Spare]]:
    """Yield what the formulas ask for, some rows at a time, so that their intermediate results stay in a cache."""
    num_branches = logits.shape[1]
    flat, flat_dominant = logits.flatten(0, 1), dominant.flatten(0, 1)
    # How many rows of the dominant logits lie between nodes and between branches; none along an axis they share.
    by_node = dominant.shape[1] if dominant.shape[0] > 1 else 0
    by_branch = int(dominant.shape[1] > 1)
    for positions in torch.split(rows, block_rows(flat)):
        node = positions // num_branches
        dominant_rows = node * by_node + positions % num_branches * by_branch
        z, z_dominant = flat.index_select(0, positions), flat_dominant.index_select(0, dominant_rows)
        yield _tempered(z, temperature), _tempered(z_dominant, temperature), _spare(spared.index_select(0, node))


def _spare(spared: Tensor) -> Spare:
    """Return the function that sets the entries of the target ``(k,)``, or of a mask ``(k, C)``."""
    if spared.dim() == 2:
        return lambda x, value: x.masked_fill_(spared, value)
    return lambda x, value: x.scatter_(1, spared.unsqueeze(1), value)


def _tempered(z: Tensor, temperature: float) -> Tensor:
    """Divide a fresh tensor by the temperature, in the dtype of the computation."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return z if temperature == 1 else z.div_(temperature)


def _check_options(variant: str, temperature: float, reduction: str) -> None:
    check_choice(_WHERE, "variant", variant, VARIANTS)
    check_choice(_WHERE, "reduction", reduction, REDUCTIONS)
    check_number(_WHERE, "temperature", temperature, low=0, open_low=True, hint="1 leaves the logits as they are")


def _check_logits(logits: Tensor, dominant_logits: Tensor, variant: str) -> None:
    if logits.dim() not in (2, 3) or logits.shape[-1] < 2:
        raise ShapeError(
            f"{_WHERE}, logits: expected shape (n, C) or (n, P, C) with C of at least 2, got {tuple(logits.shape)}; "
            "one row a node, or a node and branch"
        )
    if variant == "nckd" and logits.shape[-1] == 2:
        raise ConfigError(
            f"{_WHERE}, variant: 'nckd' compares the classes besides the target, of which C = 2 leaves one, and is 0; "
            "take 'nl' for two classes"
        )
    n, num_branches, num_classes = _by_branch(logits).shape
    given = _by_branch(dominant_logits)
    fits = given.dim() == 3 and given.shape[0] in (1, n) and given.shape[1] in (1, num_branches)
    if not (fits and given.shape[2] == num_classes and dominant_logits.dim() <= logits.dim()):
        raise ShapeError(
            f"{_WHERE}, dominant_logits: expected {(n, num_classes)} or {tuple(logits.shape)}, with 1 for n or P if "
            f"all share it, got {tuple(dominant_logits.shape)}; pass the dominant branch's logits of each node"
        )


def _check_spared(logits: Tensor, target: Tensor | None, protected: Tensor | None) -> Tensor:
    """Return `target` or `protected`, whichever says what is left alone."""
    n, num_classes = logits.shape[0], logits.shape[-1]
    if protected is not None and target is None:
        axes = (n, num_classes)
        check_axes(_WHERE, "protected", protected, axes, dtype=torch.bool, hint="one flag a node and class")
        return protected
    if target is None or protected is not None:
        came = "neither" if target is None else "both"
        raise ConfigError(f"{_WHERE}, target and protected: give one of the two, got {came}; a label is a target")
    check_axes(_WHERE, "target", target, (n,), hint="one class a node")
    check_classes(_WHERE, "target", target, num_classes)
    return target
