"""The operators' contract."""

from __future__ import annotations

import torch
from torch import Tensor

from hgmm.errors import ShapeError
from hgmm.kernels._checks import FLOAT_DTYPES, cast_for_autocast, check_csc, check_dense, check_tensor, describe_tensor
from hgmm.kernels._dispatch import Backend, compiled_backends, select
from hgmm.kernels.neighbor_mean import autograd, reference
from hgmm.kernels.neighbor_mean.inputs import NeighborInputs
from hgmm.typing import RelationCSC

__all__ = ["BACKENDS", "neighbor_mean", "neighbor_sum"]

BACKENDS = (
    *compiled_backends("neighbor_mean", autograd.run),
    Backend("reference", reference.run, reference.unsupported_reasons),
)


def neighbor_sum(
    csc: RelationCSC, x: Tensor, *, present: Tensor | None = None, edge_weight: Tensor | None = None
) -> Tensor:
    """Sum the in-neighbours' features: ``out_m[i] = sum_j w_jm p_jm x_m[j]`` over the edges j -> i.

    Parameters, errors and notes are those of `neighbor_mean`.

    Returns
    -------
    Tensor
        ``(N_dst, M, D)``, dtype of `x`; zero where no in-neighbour has m.

    Examples
    --------
    >>> import torch
    >>> from hgmm.kernels import neighbor_sum
    >>> from hgmm.typing import RelationCSC
    >>> csc = RelationCSC(*map(torch.tensor, ([0, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    >>> neighbor_sum(csc, torch.tensor([4.0, 2.0]).view(2, 1, 1)).view(-1)
    tensor([6.])
    """
    return _run("neighbor_sum", csc, x, present, edge_weight, mean=False)


def neighbor_mean(
    csc: RelationCSC, x: Tensor, *, present: Tensor | None = None, edge_weight: Tensor | None = None
) -> Tensor:
    r"""Average the in-neighbours' features, for each modality over those that have it.

    ``out_m[i] = sum_j w_jm p_jm x_m[j] / sum_j w_jm p_jm`` over the edges j -> i, with ``p_jm`` from `present` and
    ``w_jm`` from `edge_weight`, both 1 by default.

    Parameters
    ----------
    csc : RelationCSC
        The edges of one relation, int32 or int64; ids are trusted.
    x : Tensor
        ``(N_src, M, D)`` features: float64, float32, bfloat16 or float16; finite where the modality is absent, too.
    present : Tensor, optional
        ``(N_src, M)`` bool, True where the source has the modality. Default: all have all.
    edge_weight : Tensor, optional
        ``(E,)`` or ``(E, M)`` in CSC order, dtype of `x`, finite, of any sign.

    Returns
    -------
    Tensor
        ``(N_dst, M, D)``, dtype of `x`. Zero where the weights sum to exactly 0: where no in-neighbour has m, so for
        zero in-degree, and where all weights are 0 or cancel.

    Raises
    ------
    ShapeError
        A tensor has the wrong shape, dtype or device.
    BackendError
        The backend that ``HGMM_BACKEND`` names refuses the input, or second derivatives were asked of a backend other
        than ``reference``.

    Notes
    -----
    Differentiable in `x` and `edge_weight`; where the weights sum to 0 both gradients are 0. Weights that nearly cancel
    divide by what is left of them, rounding included; whether they cancel exactly can then depend on the backend.

    NaN in an input, forward-mode derivatives and ``torch.func`` are treated as by `cross_modal_attention`.

    Accumulates in float32, or float64 for float64 input. Under ``torch.autocast`` float arguments other than float64
    are cast to its dtype first. Every backend is deterministic for any number of threads.

    The reference keeps ``M`` floats an edge for the backward pass and never holds a tensor of size E x M x D; the
    others keep the ``(N_dst, M)`` sums of weights and the result, and nothing by edge.

    Examples
    --------
    Two sources with two modalities; the second has no second modality:

    >>> import torch
    >>> from hgmm.kernels import neighbor_mean
    >>> from hgmm.typing import RelationCSC
    >>> csc = RelationCSC(*map(torch.tensor, ([0, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    >>> x = torch.tensor([[4.0, 8.0], [2.0, 0.0]]).view(2, 2, 1)
    >>> present = torch.tensor([[True, True], [True, False]])
    >>> neighbor_mean(csc, x, present=present).view(-1)
    tensor([3., 8.])
    >>> neighbor_mean(csc, x, present=present, edge_weight=torch.tensor([3.0, 1.0])).view(-1)
    tensor([3.5000, 8.0000])
    """
    return _run("neighbor_mean", csc, x, present, edge_weight, mean=True)


def _run(
    op: str, csc: RelationCSC, x: Tensor, present: Tensor | None, edge_weight: Tensor | None, *, mean: bool
) -> Tensor:
    check_dense(op, {"x": x, "present": present, "edge_weight": edge_weight})
    x, edge_weight = cast_for_autocast(x, edge_weight)  # type: ignore[assignment]  # None stays None only
    check_csc(op, csc)
    _check_features(op, x, csc)
    num_src, M, _ = x.shape
    if present is not None:
        check_tensor(
            op,
            "present",
            present,
            letters="(N_src, M)",
            shape=(num_src, M),
            dtype=torch.bool,
            device=x.device,
            given_by="x",
        )
    if edge_weight is not None:
        by_modality = edge_weight.dim() > 1
        letters = "(E, M)" if by_modality else "(E,)"
        shape = (csc.num_edges, *[M] * by_modality)
        check_tensor(
            op, "edge_weight", edge_weight, letters=letters, shape=shape, dtype=x.dtype, device=x.device, given_by="x"
        )
        edge_weight = edge_weight if by_modality else edge_weight.unsqueeze(1)
    inputs = NeighborInputs(csc, x, present, edge_weight, mean)
    return select(op, BACKENDS, inputs).run(inputs)


def _check_features(op: str, x: Tensor, csc: RelationCSC) -> None:
    if x.dim() != 3 or x.shape[0] != csc.num_src or 0 in x.shape[1:]:
        raise ShapeError(
            f"{op}, argument x: expected shape (N_src, M, D) with N_src = {csc.num_src} from csc.indptr_t and M, D "
            f"of at least 1, got {tuple(x.shape)}; pass the features of the source nodes"
        )
    if x.dtype not in FLOAT_DTYPES or x.device != csc.indices.device:
        raise ShapeError(
            f"{op}, argument x: expected float64, float32, bfloat16 or float16 on the device of csc, "
            f"{csc.indices.device}, got {describe_tensor(x)}; cast or move it"
        )
