"""HGNN-IMA in the style of its release: products per edge, user-defined reduce functions over degree buckets.

This is the provider that hgmm is measured against. It is written from the published mathematics and the documented
cost structure of the release, not from its source:

- keys, queries and values are projected again for every relation, not once per node type;
- the relation matrices act on every edge, so that E x H x D tensors are kept for the backward pass, eight a modality;
- softmaxes and sums over neighbours run in a user-defined reduce function, which DGL calls once per distinct
  in-degree, and each call gathers its rows out of tensors of the relation's full size.

Parameter names are those of the release, so that its weights load, and so that the weights of this model load into
hgmm. Activations stay in a local scope of the graph: the release keeps them on the graph, which costs it more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, unknown_name
from hgmm.typing import CanonicalEtype

__all__ = ["VARIANTS", "OfficialStyleConv", "OfficialStyleHGNNIMA", "OfficialStyleOutput", "OfficialStyleVariant"]

LAYER_DROPOUT = 0.2
FUSION_INPUT_DROPOUT = 0.6
FUSION_SCORE_DROPOUT = 0.5


@dataclass(frozen=True)
class OfficialStyleVariant:
    """What distinguishes one released module from another.

    Attributes
    ----------
    encoders : tuple of str
        Parameter prefix of each modality's input encoder.
    normalised : frozenset of str
        Prefixes whose encoder starts with a batch normalisation.
    scaled : bool
        Divide the inter-node logits by the square root of the head size.
    temperature : float
        Factor on the inter-node logits.
    combine : str
        ``product``, ``sum`` or ``b1`` (no alignment modulation and no last softmax).
    """

    encoders: tuple[str, ...]
    normalised: frozenset[str]
    scaled: bool
    temperature: float
    combine: str


_TWO = ("adapt_ws_text", "adapt_ws_img")
_THREE = (*_TWO, "adapt_ws_s")

VARIANTS: dict[str, OfficialStyleVariant] = {
    "modal2_align": OfficialStyleVariant(_TWO, frozenset(_TWO), True, 1.0, "product"),
    "modal2_missing": OfficialStyleVariant(("adapt_ws", "adapt_ws"), frozenset(), False, 100.0, "product"),
    "modal3_align": OfficialStyleVariant(_THREE, frozenset(_THREE), True, 1.0, "sum"),
    "model_modal3": OfficialStyleVariant(_THREE, frozenset(_TWO), True, 1.0, "b1"),
}


class OfficialStyleOutput(NamedTuple):
    """Predictions for the nodes of the target type.

    Attributes
    ----------
    logits : Tensor
        (n, C), from the fused modalities.
    branch_logits : Tensor
        (n, M, C), from each modality alone.
    """

    logits: Tensor
    branch_logits: Tensor


def _per_edge(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the rows of every edge by its relation's matrices: (E, H, D) x (H, D, D) -> (E, H, D)."""
    return torch.bmm(x.transpose(0, 1), matrix).transpose(0, 1)


class _ModalAttention(nn.Module):
    """Holds one (R, H, D, D) matrix a modality, under the names of the release."""

    def __init__(self, shape: tuple[int, int, int, int], num_modalities: int) -> None:
        super().__init__()
        self.w_m = nn.ParameterDict({f"modal_{m}": nn.Parameter(torch.randn(shape)) for m in range(num_modalities)})


class OfficialStyleConv(nn.Module):
    """One layer: attention over every relation, mean over the relations of a type, gated update.

    Parameters
    ----------
    ntypes, etypes
        Node types in ascending order and canonical edge types in DGL's order; positions are parameter ids.
    hidden_size, num_heads
        F = H * D and H.
    variant
        How scores become weights.
    use_norm
        End in a LayerNorm per node type.
    """

    def __init__(
        self,
        ntypes: Sequence[str],
        etypes: Sequence[CanonicalEtype],
        *,
        hidden_size: int,
        num_heads: int,
        variant: OfficialStyleVariant,
        use_norm: bool,
    ) -> None:
        super().__init__()
        self.ntypes, self.etypes, self.variant = list(ntypes), list(etypes), variant
        self.num_heads, self.head_size = num_heads, hidden_size // num_heads
        self.num_modalities = len(variant.encoders)
        shape = (len(etypes), num_heads, self.head_size, self.head_size)

        def linears() -> nn.ModuleList:
            return nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in ntypes)

        self.k_linears, self.q_linears, self.v_linears, self.a_linears = (linears() for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in ntypes) if use_norm else None
        self.relation_pri = nn.Parameter(torch.ones(len(etypes), num_heads))
        self.relation_att = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))
        self.relation_msg = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))
        self.crossmodal = _ModalAttention(shape, self.num_modalities)
        self.skip = nn.Parameter(torch.ones(len(ntypes)))
        self.dropout = nn.Dropout(LAYER_DROPOUT)

    def forward(self, graph: Any, h: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map ``h[ntype]`` (N, M, F) to the next layer's; every node type needs an incoming edge type."""
        incoming: dict[str, list[Tensor]] = {ntype: [] for ntype in self.ntypes}
        for relation, etype in enumerate(self.etypes):
            incoming[etype[2]].append(self._relation(graph[etype], relation, etype, h))
        result = {}
        for t, ntype in enumerate(self.ntypes):
            messages = torch.stack(incoming[ntype]).mean(0)
            gate = torch.sigmoid(self.skip[t])
            updated = gate * self.a_linears[t](messages) + (1 - gate) * h[ntype]
            result[ntype] = self.dropout(updated if self.norms is None else self.norms[t](updated))
        return result

    def _relation(self, graph: Any, relation: int, etype: CanonicalEtype, h: Mapping[str, Tensor]) -> Tensor:
        """Aggregate one relation's messages: (N_dst, M, F)."""
        source, destination = h[etype[0]], h[etype[2]]
        if graph.num_edges() == 0:
            return torch.zeros_like(destination)
        s, t = self.ntypes.index(etype[0]), self.ntypes.index(etype[2])
        heads = (-1, self.num_heads, self.head_size)
        with graph.local_scope():
            for m in range(self.num_modalities):
                graph.srcdata[f"k{m}"] = self.k_linears[s](source[:, m]).view(heads)
                graph.srcdata[f"v{m}"] = self.v_linears[s](source[:, m]).view(heads)
                graph.dstdata[f"q{m}"] = self.q_linears[t](destination[:, m]).view(heads)
            graph.apply_edges(self._inter_modal(relation))
            graph.apply_edges(self._inter_node(relation))
            graph.apply_edges(self._values(relation))
            graph.update_all(self._messages, self._reduce)
            return torch.stack([graph.dstdata[f"z{m}"] for m in range(self.num_modalities)], 1)

    def _inter_modal(self, relation: int) -> Callable[[Any], dict[str, Tensor]]:
        def attn(edges: Any) -> dict[str, Tensor]:
            logits = [
                (_per_edge(edges.src[f"k{m}"], self.crossmodal.w_m[f"modal_{m}"][relation]) * edges.dst[f"q{m}"]).sum(
                    -1
                )
                for m in range(self.num_modalities)
            ]
            return {"inter_modal": torch.softmax(torch.stack(logits, -1), -1)}

        return attn

    def _inter_node(self, relation: int) -> Callable[[Any], dict[str, Tensor]]:
        factor = self.relation_pri[relation] * self.variant.temperature
        if self.variant.scaled:
            factor = factor / math.sqrt(self.head_size)

        def logits(edges: Any) -> dict[str, Tensor]:
            scores = [
                (_per_edge(edges.src[f"k{m}"], self.relation_att[relation]) * edges.dst[f"q{m}"]).sum(-1) * factor
                for m in range(self.num_modalities)
            ]
            return {"inter_node": torch.stack(scores, -1)}

        return logits

    def _values(self, relation: int) -> Callable[[Any], dict[str, Tensor]]:
        def values(edges: Any) -> dict[str, Tensor]:
            matrix = self.relation_msg[relation]
            return {f"v{m}": _per_edge(edges.src[f"v{m}"], matrix) for m in range(self.num_modalities)}

        return values

    def _messages(self, edges: Any) -> dict[str, Tensor]:
        names = ["inter_modal", "inter_node", *(f"v{m}" for m in range(self.num_modalities))]
        return {name: edges.data[name] for name in names}

    def _reduce(self, nodes: Any) -> dict[str, Tensor]:
        """Weigh and sum the in-edges of all nodes of one in-degree; the mailbox is (nodes, degree, ...)."""
        logits = nodes.mailbox["inter_node"]
        weight = (nodes.mailbox["inter_modal"] * torch.softmax(logits, 1)).sum(-1)
        if self.variant.combine != "b1":
            pairs = torch.combinations(torch.arange(self.num_modalities), 2)
            # One modality disagrees with none.
            gaps = (logits[..., pairs[:, 0]] - logits[..., pairs[:, 1]]).abs().sum(-1) / max(1, len(pairs))
            modulation = torch.softmax(-gaps, 1)
            weight = weight * modulation if self.variant.combine == "product" else weight + modulation
            weight = torch.softmax(weight, 1)
        return {
            f"z{m}": (weight.unsqueeze(-1) * nodes.mailbox[f"v{m}"]).sum(1).flatten(1)
            for m in range(self.num_modalities)
        }


class OfficialStyleHGNNIMA(nn.Module):
    """Node classifier with the parameters, the mathematics and the cost structure of the released modules.

    Parameters
    ----------
    ntypes, etypes
        ``graph.ntypes`` and ``graph.canonical_etypes``. Every node type needs an incoming edge type.
    variant
        A key of `VARIANTS`; it fixes the number of modalities M.
    target
        Node type that is classified.
    in_size, hidden_size, num_classes, num_heads, num_layers
        Sizes; all node types and modalities have the same input width.
    use_norm
        LayerNorm in every layer.

    Raises
    ------
    ConfigError
        If `variant` is unknown, or `num_heads` does not divide `hidden_size`.
    """

    def __init__(
        self,
        ntypes: Sequence[str],
        etypes: Sequence[CanonicalEtype],
        *,
        variant: str,
        target: str,
        in_size: int,
        hidden_size: int,
        num_classes: int,
        num_heads: int,
        num_layers: int,
        use_norm: bool = True,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ConfigError(f"OfficialStyleHGNNIMA, variant: {unknown_name('variant', variant, VARIANTS)}")
        if hidden_size % num_heads:
            raise ConfigError(
                f"OfficialStyleHGNNIMA, hidden_size: must be a multiple of num_heads={num_heads}, got {hidden_size}; "
                "change one of the two"
            )
        self.variant, self.target = VARIANTS[variant], target
        self.ntypes, self.etypes = sorted(ntypes), sorted(etypes)
        for prefix in dict.fromkeys(self.variant.encoders):
            self.add_module(prefix, self._encoders(prefix, in_size, hidden_size))
        self.gcs = nn.ModuleList(
            OfficialStyleConv(
                self.ntypes,
                self.etypes,
                hidden_size=hidden_size,
                num_heads=num_heads,
                variant=self.variant,
                use_norm=use_norm,
            )
            for _ in range(num_layers)
        )
        self.project = nn.Sequential(
            nn.Dropout(FUSION_INPUT_DROPOUT), nn.Linear(hidden_size, 1), nn.Dropout(FUSION_SCORE_DROPOUT)
        )
        self.predict = nn.Linear(hidden_size, num_classes)

    def _encoders(self, prefix: str, in_size: int, hidden_size: int) -> nn.ModuleList:
        def encoder() -> nn.Module:
            linear = nn.Linear(in_size, hidden_size)
            return nn.Sequential(nn.BatchNorm1d(in_size), linear) if prefix in self.variant.normalised else linear

        return nn.ModuleList(encoder() for _ in self.ntypes)

    def forward(self, graph: Any, features: Mapping[str, Tensor]) -> OfficialStyleOutput:
        """Classify the target nodes of `graph` from ``features[ntype]`` (N, M, in_size)."""
        h = {ntype: self._encode(t, features[ntype]) for t, ntype in enumerate(self.ntypes)}
        for layer in self.gcs:
            h = layer(graph, h)
        hidden = h[self.target]
        attn = torch.softmax(torch.tanh(self.project(hidden)), 1)
        return OfficialStyleOutput(self.predict((attn * hidden).sum(1)), self.predict(hidden))

    def _encode(self, t: int, x: Tensor) -> Tensor:
        encoders = [self.get_submodule(f"{prefix}.{t}") for prefix in self.variant.encoders]
        return torch.stack([torch.tanh(encoder(x[:, m])) for m, encoder in enumerate(encoders)], 1)
