"""The operator's contract."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.kernels._checks import check_csc, check_keys, check_tensor
from hgmm.kernels._dispatch import Backend, select
from hgmm.kernels.inter_node_attention import reference
from hgmm.kernels.inter_node_attention.inputs import InterNodeInputs, InterNodeResult
from hgmm.typing import RelationCSC

__all__ = ["inter_node_attention"]

_OP = "inter_node_attention"
_BACKENDS = (Backend("reference", reference.run, reference.unsupported_reasons),)


def inter_node_attention(
    csc: RelationCSC,
    k: Tensor,
    q: Tensor,
    v: Tensor,
    *,
    present: Tensor | None = None,
    edge_bias: Tensor | None = None,
    return_attention: bool = False,
) -> InterNodeResult:
    r"""Attend to the in-neighbours of each node, for each modality and head by itself.

    For an edge j -> i: ``attn = softmax_j(<q_m[i], k_m[j]> + edge_bias)`` over the in-neighbours of i that have m, and
    ``out_m[i] = sum_j attn v_m[j]``.

    Parameters
    ----------
    csc : RelationCSC
        The edges of one relation, int32 or int64; ids are trusted.
    k : Tensor
        ``(N_src, M, H, D)`` keys, any of float64, float32, bfloat16, float16; finite where the modality is absent, too.
    q : Tensor
        ``(N_dst, M, H, D)`` queries, with scale and temperature in them.
    v : Tensor
        ``(N_src, M, H, D)`` values; finite where the modality is absent, too.
    present : Tensor, optional
        ``(N_src, M)`` bool, True where the source has the modality. Default: all have all.
    edge_bias : Tensor, optional
        ``(E, M, H)``, added to the logits, in CSC order, finite.
    return_attention : bool, optional
        Also return the weights.

    Returns
    -------
    out : Tensor
        ``(N_dst, M, H, D)``, dtype of `v`. Zero where no in-neighbour has m, so for zero in-degree.
    attn : Tensor or None
        ``(E, M, H)`` in CSC order if asked for, dtype of `v`; zero where the source lacks m.

    Raises
    ------
    ShapeError
        A tensor has the wrong shape, dtype or device.
    BackendError
        The backend that ``HGMM_BACKEND`` names refuses the input.

    Notes
    -----
    Differentiable in `k`, `q`, `v` and `edge_bias`, through both results. Accumulates in float32, or float64 for
    float64 input. The reference backend is deterministic for any number of threads; it keeps ``M H`` floats an
    edge for the backward pass and never holds a tensor of size E x M x H x D.

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
    check_csc(_OP, csc)
    check_keys(_OP, k, csc)
    num_src, M, H, D = k.shape
    for name, x, letters, shape, dtype in (
        ("q", q, "(N_dst, M, H, D)", (csc.num_dst, M, H, D), k.dtype),
        ("v", v, "(N_src, M, H, D)", (num_src, M, H, D), k.dtype),
        ("present", present, "(N_src, M)", (num_src, M), torch.bool),
        ("edge_bias", edge_bias, "(E, M, H)", (csc.num_edges, M, H), k.dtype),
    ):
        if x is not None:
            check_tensor(_OP, name, x, letters=letters, shape=shape, dtype=dtype, device=k.device)
    inputs = InterNodeInputs(
        csc=csc, k=k, q=q, v=v, present=present, edge_bias=edge_bias, return_attention=return_attention
    )
    return select(_OP, _BACKENDS, inputs).run(inputs)
