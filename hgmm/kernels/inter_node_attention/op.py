"""The operator's contract."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels._checks import (
    cast_for_autocast,
    check_csc,
    check_dense,
    check_keys,
    check_queries,
    check_tensor,
    describe_tensor,
)
from hgmm.kernels._dispatch import Backend, compiled_backends, select
from hgmm.kernels.inter_node_attention import autograd, reference
from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs, InterNodeResult
from hgmm.typing import RelationCSC

__all__ = ["BACKENDS", "inter_node_attention"]

_OP = "inter_node_attention"
BACKENDS = (
    *compiled_backends(_OP, autograd.run),
    Backend("reference", reference.run, reference.unsupported_reasons),
)


def inter_node_attention(
    csc: RelationCSC,
    k: Tensor,
    q: Tensor,
    v: Tensor,
    *,
    present: Tensor | None = None,
    edge_bias: Tensor | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    return_attention: bool = False,
) -> InterNodeResult:
    r"""Attend to the in-neighbours of each node, for each modality and head by itself.

    For an edge j -> i: ``attn = softmax_j(<q_m[i], k_m[j]> + edge_bias)`` over the in-neighbours of i that have m, and
    ``out_m[i] = sum_j attn v_m[j]``. With dropout, each weight is 0 with probability `dropout`, else multiplied by
    ``1 / (1 - dropout)``, after the softmax.

    Parameters
    ----------
    csc : RelationCSC
        The edges of one relation, int32 or int64; ids are trusted.
    k : Tensor
        ``(N_src, M, H, D)`` keys, any of float64, float32, bfloat16, float16; finite where the modality is absent, too.
    q : Tensor
        ``(N_dst, M, H, D)`` queries, with scale and temperature in them; dtype of `k`, or float32 beside `k` and `v` in
        bfloat16 or float16, which halves the bytes that are read for each edge.
    v : Tensor
        ``(N_src, M, H, D)`` values, dtype of `k`; finite where the modality is absent, too.
    present : Tensor, optional
        ``(N_src, M)`` bool, True where the source has the modality. Default: all have all.
    edge_bias : Tensor, optional
        ``(E, M, H)``, added to the logits, in CSC order, finite, dtype of `q`.
    dropout : float, optional
        Probability that a weight is dropped, ``0 <= dropout < 1``.
    seed : Tensor, optional
        ``()`` int64 on the CPU, drawn from the caller's generator; required with dropout. The same seed drops the same
        weights, by position in ``csc.indices``, head and modality, on every backend and device.
    return_attention : bool, optional
        Also return the weights.

    Returns
    -------
    out : Tensor
        ``(N_dst, M, H, D)``, dtype of `q`. Zero where no in-neighbour has m, so for zero in-degree.
    attn : Tensor or None
        ``(E, M, H)`` in CSC order if asked for, dtype of `q`, after dropout; zero where the source lacks m.

    Raises
    ------
    ShapeError
        A tensor has the wrong shape, dtype or device.
    ConfigError
        `dropout` is out of range or has no `seed`.
    BackendError
        The backend that ``HGMM_BACKEND`` names refuses the input, or second derivatives were asked of a backend other
        than ``reference``.

    Notes
    -----
    Differentiable in `k`, `q`, `v` and `edge_bias`; through `attn` and twice on the reference backend only, so ``auto``
    takes that one if `attn` is asked for where gradients are recorded. Accumulates in float32, or float64 for float64
    input. Under ``torch.autocast`` float arguments other than float64 are cast to its dtype first.

    NaN in an input, forward-mode derivatives and ``torch.func`` are treated as by `cross_modal_attention`.

    Every backend is deterministic for any number of threads. The reference keeps ``M H`` floats an edge for the
    backward pass and never holds a tensor of size E x M x H x D; the others keep ``(N_dst, M, H)`` numbers and nothing
    by edge, and draw the dropout anew.

    References
    ----------
    The dot-product attention of HGT, WWW 2020, doi 10.1145/3366423.3380027, over one relation, with a modality axis.

    Examples
    --------
    >>> import torch
    >>> from hgmm.kernels import inter_node_attention
    >>> from hgmm.typing import RelationCSC
    >>> csc = RelationCSC(*map(torch.tensor, ([0, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    >>> k = torch.zeros(2, 1, 1, 1)
    >>> v = torch.tensor([4.0, 2.0]).view(2, 1, 1, 1)
    >>> inter_node_attention(csc, k, k[:1], v).out.view(-1)
    tensor([3.])
    """
    check_dense(_OP, {"k": k, "q": q, "v": v, "present": present, "edge_bias": edge_bias})
    k, q, v, edge_bias = cast_for_autocast(k, q, v, edge_bias)  # type: ignore[assignment]  # None stays None only
    check_csc(_OP, csc)
    check_keys(_OP, k, csc)
    check_queries(_OP, "q", q, k=k, num_dst=csc.num_dst)
    num_src, M, H, D = k.shape
    for name, x, letters, shape, dtype in (
        ("v", v, "(N_src, M, H, D)", (num_src, M, H, D), k.dtype),
        ("present", present, "(N_src, M)", (num_src, M), torch.bool),
        ("edge_bias", edge_bias, "(E, M, H)", (csc.num_edges, M, H), q.dtype),
    ):
        if x is not None:
            check_tensor(_OP, name, x, letters=letters, shape=shape, dtype=dtype, device=k.device)
    _check_dropout(dropout, seed)
    inputs = InterNodeInputs(
        csc=csc,
        k=k,
        q=q,
        v=v,
        present=present,
        edge_bias=edge_bias,
        dropout=dropout,
        seed=seed if dropout > 0 else None,
        return_attention=return_attention,
    )
    return select(_OP, BACKENDS, inputs).run(inputs)


def _check_dropout(dropout: float, seed: Tensor | None) -> None:
    if not 0 <= dropout < 1:
        raise ConfigError(
            f"{_OP}, argument dropout: expected a probability from 0 to below 1, got {dropout}; 0 switches it off"
        )
    if dropout > 0 and seed is None:
        raise ConfigError(
            f"{_OP}, argument seed: dropout={dropout} needs a seed, got None; draw one, for example with "
            "torch.randint(2**63 - 1, (), generator=generator)"
        )
    if seed is None:
        return
    is_tensor = isinstance(seed, Tensor)
    if not is_tensor or (seed.dim(), seed.dtype, seed.device.type) != (0, torch.int64, "cpu"):
        raise ShapeError(
            f"{_OP}, argument seed: expected a tensor int64 () on cpu, got "
            f"{describe_tensor(seed) if is_tensor else repr(seed)}; "
            "torch.randint(2**63 - 1, ()) gives one"
        )
