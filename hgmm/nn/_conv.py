"""What the attention layers share: projections by node type, matrices by relation, the update of a node."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hgmm.errors import ConfigError, unknown_name
from hgmm.nn._names import node_key, relation_key
from hgmm.nn._relations import RelationConv
from hgmm.nn.functional import destination_rows
from hgmm.typing import CanonicalEtype, EdgeDict, NodeDict

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "KV_DTYPES",
    "RELATION_REDUCES",
    "AttentionConv",
    "ConvOutput",
    "Messages",
    "RelationParameters",
]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "gelu": F.gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
}
INITS = ("per-matrix", "released")
RELATION_REDUCES = ("reached", "mean")
KV_DTYPES = {"bfloat16": torch.bfloat16}
"""How keys and values can be stored other than as they are computed."""


class ConvOutput(NamedTuple):
    """All that a layer computes.

    Attributes
    ----------
    h : dict of str to Tensor
        ``(N_dst, M, F)`` by node type.
    present : dict of str to Tensor, or None
        ``(N_dst, M)`` bool by node type: what a node had or has received.
    attn : dict of (str, str, str) to Tensor
        ``(E, H)`` or ``(E, M, H)`` by relation in DGL's edge order; empty unless asked for.
    lambda_sums : dict of (str, str, str) to Tensor
        ``(N_dst, M, H)`` by relation; empty unless asked for.
    """

    h: NodeDict
    present: NodeDict | None
    attn: EdgeDict
    lambda_sums: EdgeDict


class Messages(NamedTuple):
    """What arrives over one relation: ``out (N_dst, M, H, D)`` before W_MSG, ``attn``, ``lambda_sum``."""

    out: Tensor
    attn: Tensor | None
    lambda_sum: Tensor | None


class _NodeParameters(nn.Module):
    """Projections, gate and normalisation of one node type, shared by all modalities."""

    def __init__(self, num_modalities: int, hidden_size: int, *, use_norm: bool) -> None:
        super().__init__()
        self.k = nn.Linear(hidden_size, hidden_size)
        self.q = nn.Linear(hidden_size, hidden_size)
        self.v = nn.Linear(hidden_size, hidden_size)
        self.a = nn.Linear(hidden_size, hidden_size)
        self.skip = nn.Parameter(torch.ones(()))
        self.norm = nn.LayerNorm(hidden_size) if use_norm else nn.Identity()
        self.absent = nn.Parameter(torch.randn(num_modalities, hidden_size) * hidden_size**-0.5)

    def reset(self, init: str) -> None:
        """Draw the projections; see `hgmm.nn.CrossModalConv` for the two ways."""
        for linear in (self.k, self.q, self.v, self.a):
            if init == "released":
                linear.reset_parameters()
            else:
                # torch's own choice leaves 0.58 of the deviation at every Linear; a message passes two of them.
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)


class RelationParameters(nn.Module):
    """Matrices and prior of one relation: `node`, `message` (H, D, D), `modal` (1 or M, H, D, D), `prior` (H)."""

    def __init__(self, num_heads: int, head_size: int, *, num_modal: int, prior: bool) -> None:
        super().__init__()
        shape = (num_heads, head_size, head_size)
        self.node = nn.Parameter(torch.empty(shape))
        self.message = nn.Parameter(torch.empty(shape))
        self.modal = nn.Parameter(torch.empty(num_modal, *shape)) if num_modal else None
        self.prior = nn.Parameter(torch.ones(num_heads)) if prior else None

    @torch.no_grad()
    def reset(self, init: str, num_relations: int) -> None:
        """Draw the matrices; see `hgmm.nn.CrossModalConv` for the two ways."""
        num_heads, head_size, _ = self.node.shape
        bound = math.sqrt(3.0 / head_size)
        if self.modal is not None:
            if init == "released":
                self.modal.normal_()
            else:
                self.modal.uniform_(-bound, bound)
        if init == "released":
            # Xavier on one (R, H, D, D) tensor, whose fans torch takes to be H D^2 and R D^2.
            bound = math.sqrt(6.0 / ((num_heads + num_relations) * head_size**2))
        self.node.uniform_(-bound, bound)
        self.message.uniform_(-bound, bound)


class AttentionConv(RelationConv, ABC):
    """Attention over the in-neighbours by relation, mean over relations, gated update; abstract.

    A subclass says in `_attend` what arrives over one relation. Everything else, masks and their propagation included,
    is here. Parameters are documented at the subclasses; `num_modal` is the number of W_MODAL matrices a relation.
    """

    def __init__(
        self,
        ntypes: Sequence[str],
        canonical_etypes: Sequence[CanonicalEtype],
        *,
        num_modalities: int,
        hidden_size: int,
        num_heads: int,
        dropout: float,
        use_norm: bool,
        relation_reduce: str,
        message_activation: str,
        num_modal: int,
        prior: bool,
        init: str,
        kv_dtype: str | None,
    ) -> None:
        super().__init__(ntypes, canonical_etypes, num_modalities=num_modalities)
        where = type(self).__name__
        if hidden_size < 1 or num_heads < 1 or hidden_size % num_heads:
            raise ConfigError(
                f"{where}, hidden_size: must be a positive multiple of num_heads={num_heads}, got {hidden_size}; "
                "change one of the two"
            )
        for name, value, known in (
            ("relation_reduce", relation_reduce, RELATION_REDUCES),
            ("message_activation", message_activation, tuple(ACTIVATIONS)),
            ("init", init, INITS),
            ("kv_dtype", kv_dtype, (None, *KV_DTYPES)),
        ):
            if value not in known:
                raise ConfigError(f"{where}, {name}: {unknown_name(name, value, map(str, known))}")
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.relation_reduce = relation_reduce
        self.message_activation = message_activation
        self.kv_dtype = kv_dtype
        self.nodes = nn.ModuleDict()
        for ntype in self.ntypes:
            node = _NodeParameters(num_modalities, hidden_size, use_norm=use_norm)
            node.reset(init)
            self.nodes[node_key(ntype)] = node
        self.relations = nn.ModuleDict()
        for etype in self.canonical_etypes:
            own = RelationParameters(num_heads, self.head_size, num_modal=num_modal, prior=prior)
            own.reset(init, len(self.canonical_etypes))
            self.relations[relation_key(etype)] = own
        self.dropout = nn.Dropout(dropout)

    @abstractmethod
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
        """Return what arrives over one relation; `k`, `v` (N_src, M, H, D) and `q` (N_dst, M, H, D) are projected."""

    def extra_repr(self) -> str:
        """Show the sizes in the module's repr."""
        return f"num_modalities={self.num_modalities}, hidden_size={self.hidden_size}, num_heads={self.num_heads}"

    def forward(
        self, graph: Any, h: NodeDict, present: NodeDict | None = None, *, return_attention: bool = False
    ) -> tuple[NodeDict, NodeDict | None] | tuple[NodeDict, NodeDict | None, EdgeDict]:
        """Map node states to the next layer's.

        Parameters
        ----------
        graph : dgl.DGLGraph
            A graph or a block, with some or all of the declared node types and relations.
        h : dict of str to Tensor
            ``(N, M, F)`` by node type; on a block the source rows.
        present : dict of str to Tensor, optional
            ``(N, M)`` bool by node type: True where the node has the modality. The rows of `h` that are not present
            are not read, whatever they hold. Default: every node has every modality.
        return_attention : bool, optional
            Also return the attention weights.

        Returns
        -------
        h : dict of str to Tensor
            ``(N, M, F)``; on a block the destination rows.
        present : dict of str to Tensor, or None
            What each node now has: what it had, or some in-neighbour had. None if None was given.
        attn : dict of (str, str, str) to Tensor
            Only with `return_attention`: by relation, in DGL's edge order.

        Raises
        ------
        SchemaError
            The graph has a node type or a relation that was not declared.
        ShapeError
            A tensor of `h` or `present` is missing or has the wrong shape.
        """
        out = self.propagate(graph, h, present, return_attention=return_attention)
        return (out.h, out.present, out.attn) if return_attention else (out.h, out.present)

    def propagate(
        self,
        graph: Any,
        h: NodeDict,
        present: NodeDict | None = None,
        *,
        lambda_weight: Mapping[CanonicalEtype, Tensor] | None = None,
        ntypes: Collection[str] | None = None,
        return_attention: bool = False,
    ) -> ConvOutput:
        """Do what `forward` does, with the outputs that a loss or an analysis needs.

        Parameters
        ----------
        graph, h, present, return_attention
            As in `forward`.
        lambda_weight : mapping of (str, str, str) to Tensor, optional
            ``(N_src, M)`` by relation: asks for ``lambda_sums`` on these relations.
        ntypes : collection of str, optional
            Update these node types only; the result has no others. Default: all.

        Returns
        -------
        ConvOutput
            All outputs.
        """
        wanted, etypes = self._active(graph, ntypes)
        read = dict.fromkeys([*wanted, *(e[0] for e in etypes)])
        self._check_rows(graph, read, h, present, width=self.hidden_size)
        state = {t: self._with_absent(t, h[t], present) for t in read}
        k, v = ({e[0]: self._stored(self._project(name, e[0], state[e[0]])) for e in etypes} for name in ("k", "v"))
        result = ConvOutput({}, None if present is None else {}, {}, {})
        for ntype in wanted:
            own = destination_rows(graph, ntype, state[ntype])
            incoming = [e for e in etypes if e[2] == ntype]
            q = self._project("q", ntype, own) if incoming else own
            total, reached = torch.zeros_like(own), own.new_zeros(own.shape[:2])
            for etype in incoming:
                mask = None if present is None else present[etype[0]]
                weight = None if lambda_weight is None else lambda_weight.get(etype)
                messages = self._attend(graph, etype, k[etype[0]], q, v[etype[0]], mask, weight, return_attention)
                total = total + self._transform_messages(etype, messages.out)
                reached = reached + self._reached(graph, etype, mask)
                result.attn.update({} if messages.attn is None else {etype: messages.attn})
                result.lambda_sums.update({} if messages.lambda_sum is None else {etype: messages.lambda_sum})
            result.h[ntype] = self._update(ntype, own, self._mean(ntype, total, reached))
            if present is not None and result.present is not None:
                result.present[ntype] = destination_rows(graph, ntype, present[ntype]) | (reached > 0)
        return result

    def _node(self, ntype: str) -> _NodeParameters:
        return cast(_NodeParameters, self.nodes[node_key(ntype)])

    def _relation(self, etype: CanonicalEtype) -> RelationParameters:
        return cast(RelationParameters, self.relations[relation_key(etype)])

    def _node_matrix(self, etype: CanonicalEtype, factor: float) -> Tensor:
        """Return W_NODE with the prior and `factor` in it; it acts on destinations, as <k W, q> = <k, W q>."""
        own = self._relation(etype)
        return own.node * (factor if own.prior is None else factor * own.prior.view(-1, 1, 1))

    def _with_absent(self, ntype: str, h: Tensor, present: NodeDict | None) -> Tensor:
        if present is None:
            return h
        return torch.where(present[ntype].unsqueeze(-1), h, self._node(ntype).absent)

    def _project(self, name: str, ntype: str, h: Tensor) -> Tensor:
        linear = cast(nn.Linear, getattr(self._node(ntype), name))
        return cast(Tensor, linear(h)).view(-1, self.num_modalities, self.num_heads, self.head_size)

    def _stored(self, x: Tensor) -> Tensor:
        """Return keys or values in the dtype in which the edges read them."""
        if self.kv_dtype is None:
            return x
        if x.dtype == torch.float64:
            raise ConfigError(
                f"{type(self).__name__}, kv_dtype={self.kv_dtype!r}: goes with a layer in float32, got float64; "
                "leave kv_dtype out or the layer in float32"
            )
        return x.to(KV_DTYPES[self.kv_dtype])

    def _transform_messages(self, etype: CanonicalEtype, out: Tensor) -> Tensor:
        # W_MSG acts on the weighted sum: sum_j beta (v_j W) = (sum_j beta v_j) W, so it never meets an edge.
        return torch.einsum("nmhd,hde->nmhe", out, self._relation(etype).message).flatten(2)

    def _mean(self, ntype: str, total: Tensor, reached: Tensor) -> Tensor:
        if self.relation_reduce == "reached":
            return total / reached.clamp(min=1).unsqueeze(-1)
        return total / max(1, sum(etype[2] == ntype for etype in self.canonical_etypes))

    def _update(self, ntype: str, h: Tensor, messages: Tensor) -> Tensor:
        own = self._node(ntype)
        gate = torch.sigmoid(own.skip)
        update = own.a(ACTIVATIONS[self.message_activation](messages))
        return cast(Tensor, self.dropout(own.norm(gate * update + (1 - gate) * h)))
