"""Float64 definition of the released HGNN-IMA modules, in loops: slow, obvious, and independent of the package.

One node, one edge, one head and one modality at a time; only products of small vectors and matrices are left to torch,
so that gradients come from autograd. Nothing here imports hgmm or DGL.

Conventions shared by every function:

- A graph is ``{(source type, edge type, destination type): (src, dst)}``; the node counts are the feature rows.
- Node-type ids are positions among the type names in ascending order. Relation ids are positions among the canonical
  edge types sorted as tuples (source type, edge type, destination type): the order of ``DGLGraph.canonical_etypes``.
- Modality ids are text, image, numeric: the axis 1 of ``features[ntype]``, shape (nodes, M, input width).
- Vectors are rows: a relation matrix W acts on a key as ``k @ W``.

Source: "HGNN-IMA" (IJCAI 2025, doi 10.24963/ijcai.2025/338) as released; where the poster differs, the release stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Etype = tuple[str, str, str]
GraphSpec = Mapping[Etype, tuple[Any, Any]]
StateDict = Mapping[str, Tensor]

BATCH_NORM_EPS = 1e-5
LAYER_NORM_EPS = 1e-5
INPUT_KEYS = ("adapt_ws_text", "adapt_ws_img", "adapt_ws_s")


@dataclass(frozen=True)
class Variant:
    """What distinguishes one released module from another.

    ``inputs`` names, per modality, the parameter prefix of the encoder and whether it starts with a BatchNorm1d.
    """

    inputs: tuple[tuple[str, bool], ...]
    scaled: bool
    temperature: float
    combine: str

    @property
    def num_modalities(self) -> int:
        return len(self.inputs)


VARIANTS = {
    "modal2_align": Variant((("adapt_ws_text", True), ("adapt_ws_img", True)), True, 1.0, "product"),
    "modal2_missing": Variant((("adapt_ws", False), ("adapt_ws", False)), False, 100.0, "product"),
    "modal3_align": Variant((("adapt_ws_text", True), ("adapt_ws_img", True), ("adapt_ws_s", True)), True, 1.0, "sum"),
    "model_modal3": Variant((("adapt_ws_text", True), ("adapt_ws_img", True), ("adapt_ws_s", False)), True, 1.0, "b1"),
}


def official_forward(
    state_dict: StateDict,
    graph_spec: GraphSpec,
    features: Mapping[str, Any],
    variant: str,
    *,
    num_heads: int,
    num_layers: int,
    target: str,
    use_norm: bool = True,
) -> dict[str, Any]:
    """Run a released module in eval mode: no dropout, batch normalisation by its running statistics.

    Parameters
    ----------
    state_dict
        Weights under the official parameter names; cast to float64, gradients flow back to them.
    graph_spec
        Edges by canonical edge type. Every node type needs an incoming edge type, as in the release.
    features
        ``(nodes, M, n_inps)`` by node type; tensors or arrays. One width for all types and modalities.
    variant
        A key of ``VARIANTS``.
    num_heads, num_layers
        H, which divides the hidden size, and the number of layers.
    target
        Node type that is classified.
    use_norm
        Whether the layers end in a LayerNorm.

    Returns
    -------
    dict
        ``logits`` (n, C), ``branch_logits`` (n, M, C), ``modality_attn`` (n, M): the output weights pi;
        lists with one entry a layer: ``hidden`` {ntype: (nodes, M, d)}, ``messages`` {ntype: (nodes, M, d)}: z before
        the update, ``lambdas`` {etype: (E, H, M)}, ``alphas`` {etype: (E, H, M)}, ``betas`` {etype: (E, H)}.
        ``hidden`` has one more entry at its head: the encoded input.
    """
    spec = VARIANTS[variant]
    state = {name: value.to(torch.float64) for name, value in state_dict.items()}
    ntypes = sorted(features)
    edges = {etype: _edge_list(*graph_spec[etype]) for etype in sorted(graph_spec)}
    hidden = {
        ntype: _encode(state, spec, type_id, torch.as_tensor(features[ntype]).to(torch.float64))
        for type_id, ntype in enumerate(ntypes)
    }
    out: dict[str, Any] = {"hidden": [hidden], "messages": [], "lambdas": [], "alphas": [], "betas": []}
    for layer in range(num_layers):
        attention = {}
        for relation_id, (etype, pairs) in enumerate(edges.items()):
            type_ids = ntypes.index(etype[0]), ntypes.index(etype[2])
            ends = hidden[etype[0]], hidden[etype[2]]
            attention[etype] = _relation(state, spec, f"gcs.{layer}", relation_id, type_ids, pairs, *ends, num_heads)
        messages = {ntype: _mean_over_relations(ntype, attention, hidden[ntype]) for ntype in ntypes}
        hidden = {
            ntype: _update(state, layer, type_id, messages[ntype], hidden[ntype], use_norm)
            for type_id, ntype in enumerate(ntypes)
        }
        out["hidden"].append(hidden)
        out["messages"].append(messages)
        for name in ("lambdas", "alphas", "betas"):
            out[name].append({etype: result[name] for etype, result in attention.items()})
    out["logits"], out["branch_logits"], out["modality_attn"] = _predict(state, hidden[target])
    return out


def _edge_list(src: Any, dst: Any) -> list[tuple[int, int]]:
    return [(int(j), int(i)) for j, i in zip(np.asarray(src), np.asarray(dst), strict=True)]


def _linear(state: StateDict, name: str, x: Tensor) -> Tensor:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def _encode(state: StateDict, spec: Variant, type_id: int, x: Tensor) -> Tensor:
    hidden_size = state["predict.weight"].shape[1]
    hidden = x.new_zeros((x.shape[0], spec.num_modalities, hidden_size))
    for node in range(x.shape[0]):
        for modality, (prefix, batch_norm) in enumerate(spec.inputs):
            name = f"{prefix}.{type_id}"
            value = x[node, modality]
            if batch_norm:
                value = _batch_norm(state, f"{name}.0", value)
                name = f"{name}.1"
            hidden[node, modality] = torch.tanh(_linear(state, name, value))
    return hidden


def _batch_norm(state: StateDict, name: str, x: Tensor) -> Tensor:
    scale = torch.sqrt(state[f"{name}.running_var"] + BATCH_NORM_EPS)
    return (x - state[f"{name}.running_mean"]) / scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def _layer_norm(state: StateDict, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean()
    normal = centred / torch.sqrt((centred * centred).mean() + LAYER_NORM_EPS)
    return normal * state[f"{name}.weight"] + state[f"{name}.bias"]


def _softmax(values: Sequence[Tensor]) -> list[Tensor]:
    top = max(value.item() for value in values)
    exps = [torch.exp(value - top) for value in values]
    total = sum(exps[1:], exps[0])
    return [value / total for value in exps]


def _softmax_by_destination(values: Sequence[Tensor], pairs: Sequence[tuple[int, int]]) -> list[Tensor]:
    result = list(values)
    for node in sorted({i for _, i in pairs}):
        members = [edge for edge, (_, i) in enumerate(pairs) if i == node]
        for edge, weight in zip(members, _softmax([values[edge] for edge in members]), strict=True):
            result[edge] = weight
    return result


def _relation(
    state: StateDict,
    spec: Variant,
    prefix: str,
    relation_id: int,
    type_ids: tuple[int, int],
    pairs: Sequence[tuple[int, int]],
    source: Tensor,
    destination: Tensor,
    num_heads: int,
) -> dict[str, Tensor]:
    """Attention and aggregated messages of one relation in one layer; a relation without edges gives zeros."""
    head_size = source.shape[-1] // num_heads
    messages = torch.zeros_like(destination)
    lambdas = source.new_zeros((len(pairs), num_heads, spec.num_modalities))
    alphas = torch.zeros_like(lambdas)
    betas = source.new_zeros((len(pairs), num_heads))
    for head in range(num_heads):
        part = slice(head * head_size, (head + 1) * head_size)
        g: list[list[Tensor]] = [[] for _ in range(spec.num_modalities)]
        lam, values = [], []
        for j, i in pairs:
            s = []
            for m in range(spec.num_modalities):
                key = _linear(state, f"{prefix}.k_linears.{type_ids[0]}", source[j, m])[part]
                query = _linear(state, f"{prefix}.q_linears.{type_ids[1]}", destination[i, m])[part]
                value = _linear(state, f"{prefix}.v_linears.{type_ids[0]}", source[j, m])[part]
                scale = spec.temperature / (math.sqrt(head_size) if spec.scaled else 1.0)
                prior = state[f"{prefix}.relation_pri"][relation_id, head]
                g[m].append(scale * prior * torch.dot(key @ state[f"{prefix}.relation_att"][relation_id, head], query))
                s.append(torch.dot(key @ state[f"{prefix}.crossmodal.w_m.modal_{m}"][relation_id, head], query))
                values.append(value @ state[f"{prefix}.relation_msg"][relation_id, head])
            lam.append(_softmax(s))
        alpha = [_softmax_by_destination(g[m], pairs) for m in range(spec.num_modalities)]
        beta = _combine(spec.combine, g, lam, alpha, pairs)
        for edge, (_, i) in enumerate(pairs):
            betas[edge, head] = beta[edge]
            for m in range(spec.num_modalities):
                lambdas[edge, head, m] = lam[edge][m]
                alphas[edge, head, m] = alpha[m][edge]
                messages[i, m, part] += beta[edge] * values[edge * spec.num_modalities + m]
    return {"messages": messages, "lambdas": lambdas, "alphas": alphas, "betas": betas}


def _combine(
    combine: str,
    g: Sequence[Sequence[Tensor]],
    lam: Sequence[Sequence[Tensor]],
    alpha: Sequence[Sequence[Tensor]],
    pairs: Sequence[tuple[int, int]],
) -> list[Tensor]:
    num_modalities = len(g)
    b1 = []
    disagreement = []
    for edge in range(len(pairs)):
        terms = [lam[edge][m] * alpha[m][edge] for m in range(num_modalities)]
        b1.append(sum(terms[1:], terms[0]))
        gaps = [
            torch.abs(g[first][edge] - g[second][edge])
            for first in range(num_modalities)
            for second in range(first + 1, num_modalities)
        ]
        disagreement.append(sum(gaps[1:], gaps[0]) / len(gaps))
    if combine == "b1":
        return b1
    b2 = _softmax_by_destination([-value for value in disagreement], pairs)
    if combine == "sum":
        return _softmax_by_destination([x + y for x, y in zip(b1, b2, strict=True)], pairs)
    return _softmax_by_destination([x * y for x, y in zip(b1, b2, strict=True)], pairs)


def _mean_over_relations(ntype: str, attention: Mapping[Etype, Mapping[str, Tensor]], like: Tensor) -> Tensor:
    incoming = [result["messages"] for etype, result in attention.items() if etype[2] == ntype]
    if not incoming:
        raise ValueError(f"node type {ntype!r} has no incoming edge type: the released modules do not accept it")
    total = torch.zeros_like(like)
    for messages in incoming:
        total = total + messages
    return total / len(incoming)


def _update(state: StateDict, layer: int, type_id: int, messages: Tensor, hidden: Tensor, use_norm: bool) -> Tensor:
    gate = torch.sigmoid(state[f"gcs.{layer}.skip"][type_id])
    result = torch.zeros_like(hidden)
    for node in range(hidden.shape[0]):
        for modality in range(hidden.shape[1]):
            update = _linear(state, f"gcs.{layer}.a_linears.{type_id}", messages[node, modality])
            value = gate * update + (1 - gate) * hidden[node, modality]
            result[node, modality] = _layer_norm(state, f"gcs.{layer}.norms.{type_id}", value) if use_norm else value
    return result


def _predict(state: StateDict, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    num_nodes, num_modalities, _ = hidden.shape
    num_classes = state["predict.weight"].shape[0]
    logits = hidden.new_zeros((num_nodes, num_classes))
    branch_logits = hidden.new_zeros((num_nodes, num_modalities, num_classes))
    attention = hidden.new_zeros((num_nodes, num_modalities))
    for node in range(num_nodes):
        scores = [torch.tanh(_linear(state, "project.1", hidden[node, m])).squeeze() for m in range(num_modalities)]
        weights = _softmax(scores)
        parts = [weights[m] * hidden[node, m] for m in range(num_modalities)]
        logits[node] = _linear(state, "predict", sum(parts[1:], parts[0]))
        for m in range(num_modalities):
            attention[node, m] = weights[m]
            branch_logits[node, m] = _linear(state, "predict", hidden[node, m])
    return logits, branch_logits, attention


def random_official_state_dict(
    variant: str,
    *,
    ntypes: Sequence[str],
    etypes: Sequence[Etype],
    in_size: int,
    hidden_size: int,
    num_heads: int,
    num_layers: int,
    num_classes: int,
    seed: int = 0,
    use_norm: bool = True,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Draw a complete state dict under the official names, with every key that the variant declares but never reads.

    Weights are drawn wider than the official initialisation, so that attention is far from uniform and every
    parameter, gates and running statistics included, has a value of its own.
    """
    spec = VARIANTS[variant]
    generator = torch.Generator().manual_seed(seed)
    num_types, num_relations, head_size = len(set(ntypes)), len(set(etypes)), hidden_size // num_heads
    state: dict[str, Tensor] = {}

    def normal(name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> None:
        state[name] = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale + shift).to(dtype)

    def linear(name: str, n_in: int, n_out: int) -> None:
        normal(f"{name}.weight", n_out, n_in, scale=n_in**-0.5)
        normal(f"{name}.bias", n_out, scale=0.3)

    for prefix in ("adapt_ws", *INPUT_KEYS[: spec.num_modalities]):
        plain = prefix == "adapt_ws" or (prefix, False) in spec.inputs
        for t in range(num_types):
            if plain:
                linear(f"{prefix}.{t}", in_size, hidden_size)
                continue
            normal(f"{prefix}.{t}.0.weight", in_size, scale=0.2, shift=1.0)
            normal(f"{prefix}.{t}.0.bias", in_size, scale=0.2)
            normal(f"{prefix}.{t}.0.running_mean", in_size, scale=0.5)
            state[f"{prefix}.{t}.0.running_var"] = (
                torch.rand(in_size, generator=generator, dtype=torch.float64) + 0.5
            ).to(dtype)
            state[f"{prefix}.{t}.0.num_batches_tracked"] = torch.tensor(7)
            linear(f"{prefix}.{t}.1", in_size, hidden_size)
    relation_shape = (num_relations, num_heads, head_size, head_size)
    for layer in range(num_layers):
        name = f"gcs.{layer}"
        for t in range(num_types):
            for kind in ("k", "q", "v", "a"):
                linear(f"{name}.{kind}_linears.{t}", hidden_size, hidden_size)
            if use_norm:
                normal(f"{name}.norms.{t}.weight", hidden_size, scale=0.2, shift=1.0)
                normal(f"{name}.norms.{t}.bias", hidden_size, scale=0.2)
        normal(f"{name}.relation_pri", num_relations, num_heads, scale=0.3, shift=1.0)
        for kind in ("att", "msg", "modal"):
            normal(f"{name}.relation_{kind}", *relation_shape, scale=head_size**-0.5)
        normal(f"{name}.skip", num_types, scale=0.7, shift=1.0)
        for m in range(spec.num_modalities):
            normal(f"{name}.crossmodal.w_m.modal_{m}", *relation_shape)
    linear("project.1", hidden_size, 1)
    linear("predict", hidden_size, num_classes)
    linear("linear", hidden_size, hidden_size)
    return state


def loss_l_att(
    lambdas: Sequence[Mapping[Etype, Tensor]],
    graph_spec: GraphSpec,
    absent: Mapping[str, Sequence[int]],
    *,
    target: str,
    form: str = "code",
) -> Tensor:
    """Loss on the inter-modal attention that goes to absent modalities.

    ``code``: per layer, the mean over edges and heads of lambda^m for every (relation, m) whose *source* type lacks m
    and whose destination is `target`; averaged over those (relation, m) and over layers.
    ``poster``: the sum over layers, all relations, edges and m absent in the *receiving* type, divided by L * M. The
    poster has no heads; the mean over heads stands for its scalar lambda.

    Parameters
    ----------
    lambdas
        ``official_forward(...)["lambdas"]``.
    absent
        Modality ids that a node type lacks.
    """
    num_layers = len(lambdas)
    total = torch.zeros((), dtype=torch.float64)
    if form == "code":
        terms = [(etype, m) for etype in sorted(graph_spec) if etype[2] == target for m in absent.get(etype[0], ())]
        for layer in lambdas:
            for etype, m in terms:
                num_edges, num_heads, _ = layer[etype].shape
                for edge in range(num_edges):
                    for head in range(num_heads):
                        total = total + layer[etype][edge, head, m] / (num_edges * num_heads)
        return total / max(1, len(terms)) / num_layers
    if form != "poster":
        raise ValueError(f"form must be 'code' or 'poster', got {form!r}")
    num_modalities = 1
    for layer in lambdas:
        for etype, lam in layer.items():
            num_edges, num_heads, num_modalities = lam.shape
            for edge in range(num_edges):
                for m in absent.get(etype[2], ()):
                    for head in range(num_heads):
                        total = total + lam[edge, head, m] / num_heads
    return total / (num_layers * num_modalities)


def loss_l_cro(
    logits: Tensor, branch_logits: Tensor, labels: Any, index: Any, *, individual: bool = True, form: str = "code"
) -> Tensor:
    """Cross-entropy of the fused prediction and, if `individual`, of each modality's own.

    Each cross-entropy is a mean over the nodes of `index`. ``code`` divides the sum of the 1 + M terms by 1 + M;
    ``poster`` adds them, with the minus sign that the poster omits.
    """
    heads = [logits] + ([branch_logits[:, m] for m in range(branch_logits.shape[1])] if individual else [])
    total = torch.zeros((), dtype=torch.float64)
    nodes = [int(node) for node in np.asarray(index)]
    for scores in heads:
        for node in nodes:
            probability = _softmax(list(scores[node]))[int(np.asarray(labels)[node])]
            total = total - torch.log(probability) / len(nodes)
    if form == "code":
        return total / len(heads)
    if form != "poster":
        raise ValueError(f"form must be 'code' or 'poster', got {form!r}")
    return total
