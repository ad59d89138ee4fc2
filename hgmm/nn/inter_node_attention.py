"""Attention across neighbours, inside one modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.nn._conv import AttentionConv, Messages
from hgmm.nn.functional import inter_node_attention
from hgmm.typing import CanonicalEtype

__all__ = ["InterNodeAttention"]

_SEEDS = 2**63 - 1


class InterNodeAttention(AttentionConv):
    """Attend to the in-neighbours in each modality by itself: a heterogeneous graph transformer layer a modality.

    For a relation, head and modality m: ``alpha_ij = softmax_j(mu / sqrt(D) * k_j W_NODE q_i)`` over the in-neighbours
    that have m and ``z_i = (sum_j alpha_ij v_j) W_MSG``; a node then takes the mean of its relations' z and
    ``h_i <- Dropout(LayerNorm(s A z_i + (1 - s) h_i))`` with a learned ``s`` by node type. Modalities meet only in the
    shared weights.

    Parameters
    ----------
    ntypes : sequence of str
        Node types.
    canonical_etypes : sequence of (str, str, str)
        Relations. A graph may lack some, not have others.
    num_modalities : int
        Length M of the modality axis.
    hidden_size : int
        F, in and out.
    num_heads : int, optional
        H, divides `hidden_size`.
    dropout : float, optional
        On the result.
    use_norm : bool, optional
        LayerNorm by node type.
    relation_reduce : str, optional
        ``reached``: mean over the relations that bring node i modality m; ``mean``: over all declared relations.
    message_activation : str, optional
        ``none``, ``gelu``, ``relu`` or ``tanh``, before A.
    attn_dropout : float, optional
        Probability that an attention weight is dropped in training. What is dropped follows from torch's default
        generator on the CPU, whatever the device, so a run that restores its state repeats it.
    kv_dtype : str, optional
        As in `CrossModalConv`.

    Raises
    ------
    ConfigError
        A size or a choice is out of range.
    SchemaError
        A relation names an unknown node type.

    References
    ----------
    HGNN-IMA, IJCAI 2025, doi 10.24963/ijcai.2025/338 (alpha); HGT, WWW 2020, doi 10.1145/3366423.3380027 (the layer
    around it). Masks are ours.
    """

    def __init__(
        self,
        ntypes: Sequence[str],
        canonical_etypes: Sequence[CanonicalEtype],
        *,
        num_modalities: int,
        hidden_size: int,
        num_heads: int = 8,
        dropout: float = 0.2,
        use_norm: bool = True,
        relation_reduce: str = "reached",
        message_activation: str = "gelu",
        attn_dropout: float = 0.0,
        kv_dtype: str | None = None,
    ) -> None:
        if not 0 <= attn_dropout < 1:
            raise ConfigError(
                f"InterNodeAttention, attn_dropout: must be a probability from 0 to below 1, got {attn_dropout}"
            )
        super().__init__(
            ntypes,
            canonical_etypes,
            num_modalities=num_modalities,
            hidden_size=hidden_size,
            num_heads=num_heads,
            dropout=dropout,
            use_norm=use_norm,
            relation_reduce=relation_reduce,
            message_activation=message_activation,
            num_modal=0,
            prior=True,
            init="per-matrix",
            kv_dtype=kv_dtype,
        )
        self.attn_dropout = attn_dropout

    def _attend(
        self,
        graph: Any,
        etype: CanonicalEtype,
        k: Tensor,
        q: Tensor,
        v: Tensor,
        present: Tensor | None,
        lambda_weight: Tensor | None,
        return_attention: bool,
    ) -> Messages:
        q = torch.einsum("nmhe,hde->nmhd", q, self._node_matrix(etype, self.head_size**-0.5))
        dropout = self.attn_dropout if self.training else 0.0
        out, attn = inter_node_attention(
            graph,
            etype,
            k,
            q,
            v,
            present=present,
            dropout=dropout,
            seed=torch.randint(_SEEDS, ()) if dropout else None,
            return_attention=return_attention,
        )
        return Messages(out, attn, None)
