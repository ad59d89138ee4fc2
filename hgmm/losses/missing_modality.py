"""A loss on the inter-modal attention that goes to absent modalities."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError, unknown_name

__all__ = ["FORMS", "missing_modality_loss"]

FORMS = ("code", "poster")


def missing_modality_loss(
    lambda_sums: Sequence[Mapping[Any, Tensor]],
    num_edges: Sequence[Mapping[Any, Tensor]],
    *,
    form: str = "code",
) -> Tensor:
    """Turn sums of inter-modal attention over edges into L_att.

    ``code``, the released loss: for each layer the mean, over relations r and modalities m with absent sources, of the
    mean of lambda^m over the edges of r whose source lacks m and over heads; then the mean over layers. ``poster``: the
    sum over layers, relations, edges and modalities that the *receiver* lacks of lambda^m, mean over heads, divided by
    the number of layers times M.

    Parameters
    ----------
    lambda_sums : sequence of mapping of relation to Tensor
        By layer and relation ``(N_dst, M, H)``: the sum of lambda over the in-edges that count, as
        `hgmm.kernels.cross_modal_attention` returns it. For ``code`` the operator's ``lambda_weight`` is 1 where the
        source lacks m; for ``poster`` it is 1 everywhere and the rows of receivers that have m are set to zero.
    num_edges : sequence of mapping of relation to Tensor
        By layer and relation ``(M,)``: how many edges count. (relation, m) without any are no part of the mean. A
        relation may be here and not in `lambda_sums`: its lambda is then known to be zero. ``poster`` ignores them.
    form : str, optional
        ``code`` or ``poster``.

    Returns
    -------
    Tensor
        Scalar; 0 if nothing is absent.

    Raises
    ------
    ConfigError
        `form` is unknown.
    ShapeError
        The two sequences differ in length, or a layer sums over a relation that `num_edges` does not have.

    References
    ----------
    HGNN-IMA, IJCAI 2025, doi 10.24963/ijcai.2025/338. In the release modalities are absent by node type; counting by
    node is ours and the same there.
    """
    if form not in FORMS:
        raise ConfigError(f"missing_modality_loss, form: {unknown_name('form', form, FORMS)}")
    if len(lambda_sums) != len(num_edges):
        raise ShapeError(
            f"missing_modality_loss, num_edges: expected {len(lambda_sums)} layers as in lambda_sums, "
            f"got {len(num_edges)}; pass one mapping a layer"
        )
    layers = [_layer(sums, counts, form) for sums, counts in zip(lambda_sums, num_edges, strict=True)]
    known = [term for term in layers if term is not None]
    if not known:
        return torch.zeros(())
    return torch.stack(known).sum() / len(layers)


def _layer(sums: Mapping[Any, Tensor], counts: Mapping[Any, Tensor], form: str) -> Tensor | None:
    for relation in sums:
        _check_counted(relation, counts)
    if form == "poster":
        terms = [x.mean(2).sum() / x.shape[1] for x in sums.values()]
        return torch.stack(terms).sum() if terms else None
    terms = []
    for relation, count in counts.items():
        total = sums[relation].mean(2).sum(0) if relation in sums else torch.zeros_like(count)
        terms.append((total / count.clamp(min=1))[count > 0])
    found = torch.cat(terms) if terms else torch.zeros(0)
    return found.mean() if found.numel() else None


def _check_counted(relation: Hashable, counts: Mapping[Any, Tensor]) -> None:
    if relation not in counts:
        raise ShapeError(
            f"missing_modality_loss, num_edges: relation {relation!r} of lambda_sums is missing, got "
            f"{sorted(map(str, counts))}; count the edges of each relation"
        )
