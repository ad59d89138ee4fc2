"""The operator's contract."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.kernels._checks import (
    cast_for_autocast,
    check_choice,
    check_csc,
    check_dense,
    check_keys,
    check_queries,
    check_tensor,
)
from hgmm.kernels._dispatch import Backend, compiled_backends, select
from hgmm.kernels.cross_modal_attention import autograd, reference
from hgmm.kernels.cross_modal_attention.inputs import COMBINES, CrossModalInputs, CrossModalResult
from hgmm.kernels.inter_node_attention import InterNodeInputs
from hgmm.kernels.inter_node_attention.op import BACKENDS as INTER_NODE_BACKENDS
from hgmm.typing import RelationCSC

__all__ = ["BACKENDS", "cross_modal_attention"]

_OP = "cross_modal_attention"
BACKENDS = (
    *compiled_backends(_OP, autograd.run),
    Backend("reference", reference.run, reference.unsupported_reasons),
)


def cross_modal_attention(
    csc: RelationCSC,
    k: Tensor,
    q_node: Tensor,
    q_modal: Tensor,
    v: Tensor,
    *,
    present: Tensor | None = None,
    lambda_weight: Tensor | None = None,
    combine: str,
    align: bool = True,
    gamma: float = 1.0,
    uniform_nodes: bool = False,
    uniform_modalities: bool = False,
    return_attention: bool = False,
) -> CrossModalResult:
    r"""Attend to the in-neighbours of each node with weights that all modalities of an edge decide together.

    For an edge j -> i, modality m and each head, with ``p_jm`` from `present`::

        g_m      = <q_node_m[i], k_m[j]>             t_m = <q_modal_m[i], k_m[j]>
        alpha_m  = softmax of g_m over the in-neighbours j of i that have m
        lambda_m = softmax of t_m over the modalities m that j has
        b1       = sum_m lambda_m alpha_m
        u        = - mean of |g_m - g_m'| over the pairs of modalities that j has, 0 if it has fewer than two
        b2       = softmax_j u

    ========== ============================================ =====================
    combine    w                                            beta
    ========== ============================================ =====================
    product    b1 * b2                                      softmax_j w
    sum        b1 + b2                                      softmax_j w
    b1         b1                                           w
    poster     softmax_j(b1) * b2                           softmax_j w
    sharp      logsumexp_m(log lambda_m + log alpha_m)      softmax_j w
               + gamma * u
    cross      alpha_m, by modality                         w
    inf        lambda_m alpha_m, by modality                softmax_j w
    ========== ============================================ =====================

    The result is ``out_m[i] = sum_j beta p_jm v_m[j] / sum_j beta p_jm`` with a mask and ``sum_j beta v_m[j]`` without.

    Parameters
    ----------
    csc : RelationCSC
        The edges of one relation, int32 or int64; ids are trusted.
    k : Tensor
        ``(N_src, M, H, D)`` keys, any of float64, float32, bfloat16, float16; finite where the modality is absent, too.
    q_node, q_modal : Tensor
        ``(N_dst, M, H, D)`` queries of the inter-node and of the inter-modal attention. They hold relation matrices,
        priors, scale and temperature; the operator adds none. `q_modal` is not read by ``cross``. Dtype of `k`, or
        float32 beside `k` and `v` in bfloat16 or float16, which halves the bytes that are read for each edge; the
        CPU backend widens float16 first.
    v : Tensor
        ``(N_src, M, H, D)`` values, dtype of `k`; finite where the modality is absent, too.
    present : Tensor, optional
        ``(N_src, M)`` bool, True where the source has the modality. Default: all have all, and ``b1`` is not
        renormalised.
    lambda_weight : Tensor, optional
        ``(N_src, M)``, dtype of `q_node`, a constant: 1 where the modality was absent at the input. Asks for
        `lambda_sum`.
    combine : str
        A row of the table.
    align : bool, optional
        False takes the alignment out (ablation `align`): ``b2`` from ``product`` (w = b1), ``sum`` (w = b1) and
        ``poster`` (w = softmax_j b1), ``gamma * u`` from ``sharp``. The other rows have none.
    gamma : float, optional
        Strength of the alignment in ``sharp``; finite; the other rows do not read it.
    uniform_nodes : bool, optional
        Ablation `nei`: alpha_m = 1 / number of in-neighbours that have m.
    uniform_modalities : bool, optional
        Ablation `adapt`: lambda_m = 1 / number of modalities that j has.
    return_attention : bool, optional
        Also return beta.

    Returns
    -------
    out : Tensor
        ``(N_dst, M, H, D)``, dtype of `q_node`. Zero where no in-neighbour has m, so for zero in-degree.
    lambda_sum : Tensor or None
        ``(N_dst, M, H) = sum_j lambda_weight_jm lambda_m`` if `lambda_weight` is given, float32 or float64.
    attn : Tensor or None
        If asked for, beta before the division by ``sum_j beta p_jm``: ``(E, H)``, or ``(E, M, H)`` for ``cross`` and
        ``inf``, in CSC order, dtype of `q_node`.

    Raises
    ------
    ShapeError
        A tensor has the wrong shape, dtype or device.
    ConfigError
        Unknown `combine`, `gamma` not finite, `lambda_weight` with ``cross`` (which has no lambda) or requiring grad.
    BackendError
        The backend that ``HGMM_BACKEND`` names refuses the input, or second derivatives were asked of a backend other
        than ``reference``.

    Notes
    -----
    A source that has no modality at all is as good as not there: its edges stand outside every softmax over j, b2's and
    beta's too, and have attention 0.

    Differentiable in `k`, `q_node`, `q_modal` and `v`; through `attn` and twice on the reference backend only, so
    ``auto`` takes that one if `attn` is asked for where gradients are recorded. At ``g_m = g_m'`` the derivative of
    ``|g_m - g_m'|`` is taken as 0. Accumulates in float32, or float64 for float64 input. Under ``torch.autocast`` float
    arguments other than float64 are cast to its dtype first. Weights are formed from logarithms, so logits hundreds
    apart, or at +-1e4, give finite results and gradients, and an in-neighbour that alone has m gets the whole of
    ``out_m`` however small its beta.

    In float32 the compiled backward passes know a row's weights to within a factor ``exp(|w| 2^-24)``: 1e-3 where
    logits or ``gamma u`` of ``sharp`` reach 2e4. Scale such queries down, or take float64 or the reference.

    Reverse mode only. A tensor with a tangent is an error, on the compiled backends a `BackendError`;
    ``torch.autograd.functional.jvp`` on the reference gives products with the Jacobian. Of ``torch.func`` only ``vmap``
    runs, one sample after the other, on the compiled backends; the other transforms raise. Several gradients at once
    (``is_grads_batched``, ``torch.autograd.functional.jacobian(..., vectorize=True)``) run on every backend.

    A NaN or an infinity in an input is never hidden: what is NaN on the reference is NaN on every backend, except that
    the compiled ones give 0 as the gradient of what a source lacks, whatever its neighbours are.

    Every backend is deterministic for any number of threads. For the backward pass the reference keeps about
    ``(3 M + 4) H`` floats an edge, ``M H`` more with a mask and ``2 M H`` more with `lambda_weight`, and never holds a
    tensor of size E x M x H x D; the others keep ``(N_dst, 2 M + 2, H)`` numbers and nothing by edge. ``inf`` runs on
    the reference only, ``cross`` on the backends of `inter_node_attention`.

    References
    ----------
    HGNN-IMA, IJCAI 2025, doi 10.24963/ijcai.2025/338: ``poster`` is the paper's chain, ``product``, ``sum`` and ``b1``
    those of its released modules. ``sharp`` and the reading of the ablations are ours. The folder's README derives the
    backward pass and says why ``sharp``.

    Examples
    --------
    Two sources with two modalities; the second has no second modality:

    >>> import torch
    >>> from hgmm.kernels import cross_modal_attention
    >>> from hgmm.typing import RelationCSC
    >>> csc = RelationCSC(*map(torch.tensor, ([0, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    >>> k = q = torch.zeros(2, 2, 1, 1)
    >>> v = torch.tensor([[4.0, 8.0], [2.0, 0.0]]).view(2, 2, 1, 1)
    >>> present = torch.tensor([[True, True], [True, False]])
    >>> result = cross_modal_attention(csc, k, q[:1], q[:1], v, present=present, combine="sharp", return_attention=True)
    >>> result.attn.view(-1)
    tensor([0.6000, 0.4000])
    >>> result.out.view(-1)
    tensor([3.2000, 8.0000])
    """
    check_choice(_OP, "combine", combine, COMBINES)
    check_dense(_OP, {"k": k, "q_node": q_node, "q_modal": q_modal, "v": v})
    check_dense(_OP, {"present": present, "lambda_weight": lambda_weight})
    k, q_node, q_modal, v, lambda_weight = cast_for_autocast(  # type: ignore[assignment]  # None stays None only
        k, q_node, q_modal, v, lambda_weight
    )
    _check_tensors(csc, k, q_node, q_modal, v, present, lambda_weight)
    # torch.compile may make gamma a symbol, which math.isfinite does not take.
    if not -math.inf < gamma < math.inf:
        raise ConfigError(
            f"{_OP}, argument gamma: expected a finite number, got {gamma}; align=False takes the alignment out"
        )
    if lambda_weight is not None:
        _check_lambda_weight(lambda_weight, combine)
    inputs = CrossModalInputs(
        csc=csc,
        k=k,
        q_node=q_node,
        q_modal=q_modal,
        v=v,
        present=present,
        lambda_weight=lambda_weight,
        combine=combine,
        align=align,
        gamma=gamma,
        uniform_nodes=uniform_nodes,
        uniform_modalities=uniform_modalities,
        return_attention=return_attention,
    )
    return _run_cross(inputs) if combine == "cross" else select(_OP, BACKENDS, inputs).run(inputs)


def _run_cross(inputs: CrossModalInputs) -> CrossModalResult:
    single = InterNodeInputs(
        csc=inputs.csc,
        k=inputs.k,
        # Equal logits give the uniform attention.
        q=torch.zeros_like(inputs.q_node) if inputs.uniform_nodes else inputs.q_node,
        v=inputs.v,
        present=inputs.present,
        edge_bias=None,
        dropout=0.0,
        seed=None,
        return_attention=inputs.return_attention,
    )
    out, attn = select(_OP, INTER_NODE_BACKENDS, single).run(single)
    return CrossModalResult(out, None, attn)


def _check_tensors(
    csc: RelationCSC,
    k: Tensor,
    q_node: Tensor,
    q_modal: Tensor,
    v: Tensor,
    present: Tensor | None,
    lambda_weight: Tensor | None,
) -> None:
    check_csc(_OP, csc)
    check_keys(_OP, k, csc)
    check_queries(_OP, "q_node", q_node, k=k, num_dst=csc.num_dst)
    num_src, M, H, D = k.shape
    src, dst = ("(N_src, M, H, D)", (num_src, M, H, D)), ("(N_dst, M, H, D)", (csc.num_dst, M, H, D))
    flags = ("(N_src, M)", (num_src, M))
    for name, x, (letters, shape), dtype in (
        ("q_modal", q_modal, dst, q_node.dtype),
        ("v", v, src, k.dtype),
        ("present", present, flags, torch.bool),
        ("lambda_weight", lambda_weight, flags, q_node.dtype),
    ):
        if x is not None:
            check_tensor(_OP, name, x, letters=letters, shape=shape, dtype=dtype, device=k.device)


def _check_lambda_weight(lambda_weight: Tensor, combine: str) -> None:
    if combine == "cross":
        raise ConfigError(
            f"{_OP}, argument lambda_weight: combine='cross' has no lambda to sum, got weights; "
            "leave the loss on missing modalities out of this ablation"
        )
    if lambda_weight.requires_grad:
        raise ConfigError(
            f"{_OP}, argument lambda_weight: expected a constant, got a tensor with requires_grad=True; detach it"
        )
