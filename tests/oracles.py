"""The operators' definitions: loops in float64 over edges, heads and modalities, one scalar at a time.

Written from the equations, not from the package: linear space, explicit sums, no shared code. Autograd through the
loops gives the gradients' definition.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from hgmm.typing import RelationCSC

ZERO = torch.zeros((), dtype=torch.float64)


def _softmax(logits: dict[int, Tensor]) -> dict[int, Tensor]:
    if not logits:
        return {}
    top = max(x.item() for x in logits.values())
    exps = {key: (x - top).exp() for key, x in logits.items()}
    total = sum(exps.values(), ZERO)
    return {key: x / total for key, x in exps.items()}


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return sum((a * b for a, b in zip(x, y, strict=True)), ZERO)


def _row_b1(edges, g, t, has, uniform_nodes, uniform_modalities, num_modalities):
    """alpha[m][e], lambda[e][m] and b1[e] of one destination and head; `edges` maps an edge to its source."""
    alpha = {}
    for m in range(num_modalities):
        alpha[m] = _softmax({e: ZERO if uniform_nodes else g[e][m] for e, j in edges.items() if m in has[j]})
    lam = {e: _softmax({m: ZERO if uniform_modalities else t[e][m] for m in has[j]}) for e, j in edges.items()}
    b1 = {e: sum((lam[e][m] * alpha[m][e] for m in has[j]), ZERO) for e, j in edges.items()}
    return alpha, lam, b1


def _row_logits(edges, g, has, b1, combine, align, gamma):
    """Return w[e] of the contract's table for the rows with one beta for all modalities."""
    u = {}
    for e, j in edges.items():
        pairs = list(combinations(sorted(has[j]), 2))
        u[e] = -sum(((g[e][a] - g[e][b]).abs() for a, b in pairs), ZERO) / max(len(pairs), 1)
    b2 = _softmax(u)
    if combine == "sharp":
        return {e: b1[e].log() + (gamma * u[e] if align else 0) for e in edges}
    if combine == "poster":
        b1 = _softmax(b1)
    if combine == "b1" or not align:
        return b1
    return {e: b1[e] + b2[e] if combine == "sum" else b1[e] * b2[e] for e in edges}


def _row_beta(edges, g, has, alpha, lam, b1, combine, align, gamma, num_modalities):
    """beta[m][e] for every modality."""
    if combine == "cross":
        return alpha
    if combine == "inf":
        return {
            m: _softmax({e: lam[e][m] * alpha[m][e] for e, j in edges.items() if m in has[j]})
            for m in range(num_modalities)
        }
    w = _row_logits(edges, g, has, b1, combine, align, gamma)
    beta = w if combine == "b1" else _softmax(w)
    return dict.fromkeys(range(num_modalities), beta)


def cross_modal_attention_oracle(
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
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return out, lambda_sum and attn of `hgmm.kernels.cross_modal_attention`, in float64."""
    k, q_node, q_modal, v = (x.double() for x in (k, q_node, q_modal, v))
    num_src, num_modalities, num_heads, head_size = k.shape
    num_dst, num_edges = len(csc.indptr) - 1, len(csc.indices)
    has = {j: {m for m in range(num_modalities) if present is None or present[j, m]} for j in range(num_src)}
    per_modality = combine in ("cross", "inf")
    out = [[[torch.zeros(head_size, dtype=torch.float64) for _ in range(num_heads)] for _ in range(num_modalities)]
           for _ in range(num_dst)]  # fmt: skip
    lambda_sum = [[[ZERO for _ in range(num_heads)] for _ in range(num_modalities)] for _ in range(num_dst)]
    attn = [[[ZERO for _ in range(num_heads)] for _ in range(num_modalities)] for _ in range(num_edges)]
    for i in range(num_dst):
        row = range(int(csc.indptr[i]), int(csc.indptr[i + 1]))
        edges = {e: int(csc.indices[e]) for e in row if has[int(csc.indices[e])]}
        for h in range(num_heads):
            g = {e: [_dot(q_node[i, m, h], k[j, m, h]) for m in range(num_modalities)] for e, j in edges.items()}
            t = {e: [_dot(q_modal[i, m, h], k[j, m, h]) for m in range(num_modalities)] for e, j in edges.items()}
            alpha, lam, b1 = _row_b1(edges, g, t, has, uniform_nodes, uniform_modalities, num_modalities)
            beta = _row_beta(edges, g, has, alpha, lam, b1, combine, align, gamma, num_modalities)
            for m in range(num_modalities):
                with_m = {e: j for e, j in edges.items() if m in has[j]}
                for e in beta[m]:
                    attn[e][m][h] = beta[m][e]
                total = sum((beta[m][e] for e in with_m), ZERO)
                for e, j in with_m.items():
                    share = beta[m][e] if present is None else beta[m][e] / total
                    out[i][m][h] = out[i][m][h] + share * v[j, m, h]
                    if lambda_weight is not None:
                        lambda_sum[i][m][h] = lambda_sum[i][m][h] + lambda_weight[j, m].double() * lam[e][m]
    attn_tensor = _stack(attn, (num_edges, num_modalities, num_heads))
    return (
        _stack(out, (num_dst, num_modalities, num_heads, head_size)),
        None if lambda_weight is None else _stack(lambda_sum, (num_dst, num_modalities, num_heads)),
        attn_tensor if per_modality else attn_tensor[:, 0],
    )


def inter_node_attention_oracle(
    csc: RelationCSC,
    k: Tensor,
    q: Tensor,
    v: Tensor,
    *,
    present: Tensor | None = None,
    edge_bias: Tensor | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return out and attn of `hgmm.kernels.inter_node_attention`, in float64."""
    k, q, v = k.double(), q.double(), v.double()
    num_modalities, num_heads, head_size = k.shape[1:]
    num_dst, num_edges = len(csc.indptr) - 1, len(csc.indices)
    out = [[[torch.zeros(head_size, dtype=torch.float64) for _ in range(num_heads)] for _ in range(num_modalities)]
           for _ in range(num_dst)]  # fmt: skip
    attn = [[[ZERO for _ in range(num_heads)] for _ in range(num_modalities)] for _ in range(num_edges)]
    for i in range(num_dst):
        for m in range(num_modalities):
            for h in range(num_heads):
                logits = {}
                for e in range(int(csc.indptr[i]), int(csc.indptr[i + 1])):
                    j = int(csc.indices[e])
                    if present is None or present[j, m]:
                        bias = ZERO if edge_bias is None else edge_bias[e, m, h].double()
                        logits[e] = _dot(q[i, m, h], k[j, m, h]) + bias
                for e, share in _softmax(logits).items():
                    if dropout:
                        share = ZERO if _is_dropped(e, m, h, dropout, int(seed)) else share / (1 - dropout)
                    attn[e][m][h] = share
                    out[i][m][h] = out[i][m][h] + share * v[int(csc.indices[e]), m, h]
    return (
        _stack(out, (num_dst, num_modalities, num_heads, head_size)),
        _stack(attn, (num_edges, num_modalities, num_heads)),
    )


def neighbor_mean_oracle(
    csc: RelationCSC,
    x: Tensor,
    *,
    present: Tensor | None = None,
    edge_weight: Tensor | None = None,
    mean: bool = True,
) -> Tensor:
    """Return the result of `hgmm.kernels.neighbor_mean`, or of `neighbor_sum`, in float64."""
    num_modalities, size = x.shape[1:]
    out = []
    for i in range(len(csc.indptr) - 1):
        for m in range(num_modalities):
            row, total = torch.zeros(size, dtype=torch.float64), ZERO
            for e in range(int(csc.indptr[i]), int(csc.indptr[i + 1])):
                j = int(csc.indices[e])
                if present is None or present[j, m]:
                    weight = ZERO + 1
                    if edge_weight is not None:
                        weight = (edge_weight[e] if edge_weight.dim() == 1 else edge_weight[e, m]).double()
                    row, total = row + weight * x[j, m].double(), total + weight
            out.append((row / total if total else row * 0) if mean else row)
    return _stack(out, (len(csc.indptr) - 1, num_modalities, size))


def translational_score_oracle(
    query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, norm: int | str
) -> Tensor:
    """Return the result of `hgmm.kernels.translational_score` in float64."""
    out = []
    for b in range(entity.shape[0]):
        for k in range(entity.shape[1]):
            for a, m in pairs[int(side[b, k])].tolist():
                x = query[b, int(side[b, k]), a].double() - table[int(entity[b, k]), m].double()
                out.append(_norm(list(x), norm))
    return _stack(out, (*entity.shape, pairs.shape[1]))


def _norm(x: list[Tensor], norm: int | str) -> Tensor:
    if norm == 1:
        return sum((y.abs() for y in x), ZERO)
    if norm == 2:
        return _length(x)
    half = len(x) // 2
    return sum((_length([x[i], x[half + i]]) for i in range(half)), ZERO)


def _length(x: list[Tensor]) -> Tensor:
    """Return a length whose gradient is 0 where it is 0; autograd's own would be 0 / 0."""
    square = sum((y * y for y in x), ZERO)
    return square.sqrt() if square != 0 else ZERO * square


def philox_oracle(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 in Python's integers, as the paper's figure has it: Salmon et al., SC 2011."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high2, low2 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def _is_dropped(e: int, m: int, h: int, dropout: float, seed: int) -> bool:
    words = philox_oracle((e % 2**32, e >> 32, h // 4, m), (seed % 2**32, seed >> 32 & (2**32 - 1)))
    return words[h % 4] < int(dropout * 2**32)


def _stack(nested: list, shape: tuple[int, ...]) -> Tensor:
    def flat(x):
        return [leaf for y in x for leaf in flat(y)] if isinstance(x, list) else [x]

    leaves = flat(nested)
    return torch.stack(leaves).view(shape) if leaves else torch.zeros(shape, dtype=torch.float64)
