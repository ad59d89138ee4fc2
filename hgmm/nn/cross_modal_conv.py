"""The layer of HGNN-IMA: attention across neighbours with weights that all modalities of an edge decide together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from hgmm.errors import ConfigError, unknown_name
from hgmm.kernels import COMBINES
from hgmm.nn._conv import AttentionConv, Messages
from hgmm.nn.functional import cross_modal_attention
from hgmm.typing import CanonicalEtype

__all__ = ["CrossModalConv"]


class CrossModalConv(AttentionConv):
    """Attend to the in-neighbours with one weight an edge and head, on which all its modalities agree.

    For a relation r, an edge j -> i, a head, and each modality m::

        g_m = temperature * mu / sqrt(D) * k_j^m W_NODE q_i^m        t_m = k_j^m W_MODAL^m q_i^m
        beta_ij = the row `combine` of hgmm.kernels.cross_modal_attention, from g and t
        z_i^m = (sum_j beta_ij v_j^m) W_MSG

    A node takes the mean of its relations' z and ``h_i <- Dropout(LayerNorm(s A z_i + (1 - s) h_i))`` with a learned
    ``s``. k, q, v, A, s and LayerNorm belong to the node type, the matrices and mu to the relation. All matrices act on
    nodes, none on edges. A node that lacks a modality asks with a learned vector of its type and modality and is never
    asked.

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
    combine : str, optional
        How g and t become weights: ``sharp`` (ours), ``product``, ``sum``, ``b1`` (released modules), ``poster``,
        ``cross``, ``inf`` (ablations).
    align : bool, optional
        False takes the alignment modulation out.
    gamma : float, optional
        Its strength in ``sharp``.
    uniform_nodes, uniform_modalities : bool, optional
        Ablations `nei` and `adapt`: all neighbours, all modalities of an edge count the same before they are combined.
    temperature : float, optional
        Factor on g.
    scale : bool, optional
        Divide g by ``sqrt(D)``.
    scale_modal : bool, optional
        Divide t by ``sqrt(D)``. The released modules do not.
    prior : bool, optional
        Learn mu by relation and head; without, it is 1.
    modal_by_modality : bool, optional
        One W_MODAL a modality, or one for all.
    relation_reduce : str, optional
        ``reached``: mean over the relations that bring node i modality m; ``mean``: over all declared relations.
    message_activation : str, optional
        ``none``, ``gelu``, ``relu`` or ``tanh``, before A.
    init : str, optional
        ``per-matrix``: Xavier for every Linear and each head's matrix; ``released``: as the released modules, where
        W_NODE and W_MSG start about seven times smaller, W_MODAL is standard normal and Linears are torch's default.
    kv_dtype : str, optional
        ``bfloat16`` stores k and v, which every edge reads, in half the bytes: faster where memory is the limit, at an
        error of 0.4 % in each number stored. Arithmetic, parameters and results keep their dtype. Default: no change.

    Raises
    ------
    ConfigError
        A size or a choice is out of range.
    SchemaError
        A relation names an unknown node type.

    References
    ----------
    HGNN-IMA, IJCAI 2025, doi 10.24963/ijcai.2025/338, and its released modules; ``sharp``, the masks and the learned
    vectors for absent modalities are ours.

    Examples
    --------
    >>> import torch
    >>> from hgmm.dgl_compat import dgl
    >>> g = dgl.heterograph({("user", "buys", "item"): ([0, 1], [0, 0])})
    >>> conv = CrossModalConv(g.ntypes, g.canonical_etypes, num_modalities=2, hidden_size=16, num_heads=4)
    >>> h, present = conv(g, {t: torch.randn(g.num_nodes(t), 2, 16) for t in g.ntypes})
    >>> h["item"].shape, present
    (torch.Size([1, 2, 16]), None)
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
        combine: str = "sharp",
        align: bool = True,
        gamma: float = 1.0,
        uniform_nodes: bool = False,
        uniform_modalities: bool = False,
        temperature: float = 1.0,
        scale: bool = True,
        scale_modal: bool = True,
        prior: bool = True,
        modal_by_modality: bool = True,
        relation_reduce: str = "reached",
        message_activation: str = "gelu",
        init: str = "per-matrix",
        kv_dtype: str | None = None,
    ) -> None:
        if combine not in COMBINES:
            raise ConfigError(f"CrossModalConv, combine: {unknown_name('combine', combine, COMBINES)}")
        for name, number in (("gamma", gamma), ("temperature", temperature)):
            if not math.isfinite(number):
                raise ConfigError(f"CrossModalConv, {name}: must be a finite number, got {number}")
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
            num_modal=num_modalities if modal_by_modality else 1,
            prior=prior,
            init=init,
            kv_dtype=kv_dtype,
        )
        self.combine = combine
        self.align = align
        self.gamma = gamma
        self.uniform_nodes = uniform_nodes
        self.uniform_modalities = uniform_modalities
        self.node_factor = temperature * (self.head_size**-0.5 if scale else 1.0)
        self.modal_factor = self.head_size**-0.5 if scale_modal else 1.0

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
        modal = cast(Tensor, self._relation(etype).modal) * self.modal_factor
        q_node = torch.einsum("nmhe,hde->nmhd", q, self._node_matrix(etype, self.node_factor))
        result = cross_modal_attention(
            graph,
            etype,
            k,
            q_node,
            torch.einsum("nmhe,mhde->nmhd", q, modal.expand(self.num_modalities, -1, -1, -1)),
            v,
            present=present,
            lambda_weight=None if lambda_weight is None or self.combine == "cross" else lambda_weight.to(q_node.dtype),
            combine=self.combine,
            align=self.align,
            gamma=self.gamma,
            uniform_nodes=self.uniform_nodes,
            uniform_modalities=self.uniform_modalities,
            return_attention=return_attention,
        )
        return Messages(result.out, result.attn, result.lambda_sum)
