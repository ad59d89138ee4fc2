"""Float64 definition of negative learning and of the decisions before it, in loops: one node, branch, class at a time.

Nothing here imports hgmm. Sums run over lists of scalars, so that the loss's gradient comes from autograd.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def softmax(z: Tensor, classes: Iterable[int]) -> dict[int, Tensor]:
    """Return the probabilities of `classes` alone."""
    kept = list(classes)
    largest = max(float(z[c].detach()) for c in kept) if kept else 0.0
    exps = {c: torch.exp(z[c] - largest) for c in kept}
    return {c: exps[c] / sum(exps.values()) for c in kept}


def pair_loss(z: Tensor, z_dominant: Tensor, spared: set[int], variant: str, temperature: float) -> Tensor:
    """Return what one branch of one node pays; `z` and `z_dominant` are ``(C,)`` float64."""
    everything = range(len(z))
    others = [c for c in everything if c not in spared]
    z, z_dominant = z / temperature, z_dominant.detach() / temperature
    total = torch.zeros((), dtype=torch.float64)
    if variant in ("nckd", "kl"):
        kept = others if variant == "nckd" else list(everything)
        p, q = softmax(z, kept), softmax(z_dominant, kept)
        for c in kept:
            total = total + q[c] * (torch.log(q[c]) - torch.log(p[c]))
    else:
        p, q = softmax(z, everything), softmax(z_dominant, everything)
        unlikely = sum(1 - float(q[c]) for c in others)
        for c in others:
            if variant == "mnl":
                total = total - q[c] * torch.log(p[c])
            else:
                total = total - (1 - q[c]) / unlikely * torch.log(1 - p[c])
    return temperature**2 * total


def negative_loss(
    logits: Tensor,
    dominant_logits: Tensor,
    spared: Sequence[set[int]],
    *,
    variant: str,
    pairs: Tensor,
    weight: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Return the mean over pairs; `logits` is ``(n, P, C)`` and `dominant_logits` ``(n, C)``, float64."""
    total = torch.zeros((), dtype=torch.float64)
    for i, p in pairs.nonzero().tolist():
        factor = 1.0 if weight is None else float(weight[i, p])
        total = total + factor * pair_loss(logits[i, p], dominant_logits[i], spared[i], variant, temperature)
    return total / max(1, int(pairs.sum()))


def _by_class(z: Tensor) -> list[float]:
    return [float(x) for x in softmax(z, range(len(z))).values()]


def decide(
    logits: Tensor,
    fused_logits: Tensor,
    target: int | None,
    available: Sequence[bool],
    reference: Sequence[float] | None,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    margin_temperature: float = 1.0,
    delta: float = 0.0,
) -> tuple[int, list[bool], list[float], list[float], list[float]]:
    """Return dominant, pairs, reliability, margin and confidence of one node; `logits` is ``(P, C)`` float64."""
    num_branches, num_classes = logits.shape
    if target is not None:
        rival = max((c for c in range(num_classes) if c != target), key=lambda c: float(fused_logits[c]))
    reliability, margin, confidence = [], [], []
    for b in range(num_branches):
        if not available[b]:
            reliability.append(-1e9)
            margin.append(0.0)
            confidence.append(0.0)
            continue
        p = _by_class(logits[b])
        if target is None:
            second, first = sorted(float(x) for x in logits[b])[-2:]
            margin.append(first - second)
            confidence.append(max(p))
        else:
            margin.append(float(logits[b, target] - logits[b, rival]))
            confidence.append(p[target])
        terms = [(weights[0], confidence[b]), (weights[1], 1 / (1 + math.exp(-margin[b] / margin_temperature)))]
        if reference is not None:
            terms.append((weights[2], sum(p[c] * reference[c] for c in range(num_classes))))
        total = sum(w for w, _ in terms)
        reliability.append(sum(w * x for w, x in terms) / total if total else 0.0)
    dominant = reliability.index(max(reliability))
    pairs = [
        bool(available[b])
        and b != dominant
        and confidence[dominant] > confidence[b]
        and margin[dominant] > margin[b]
        and reliability[dominant] - reliability[b] > delta
        for b in range(num_branches)
    ]
    return dominant, pairs, reliability, margin, confidence


def neighbor_average(
    edges: Iterable[tuple[int, int]],
    num_dst: int,
    probabilities: Tensor,
    labels: Sequence[int],
    known: Sequence[bool],
    compatibility: Tensor | None = None,
) -> tuple[Tensor, list[bool]]:
    """Return u and who has a neighbour, over edges (source, destination) without those from a node to itself."""
    num_classes = probabilities.shape[1]
    out = torch.zeros(num_dst, num_classes, dtype=torch.float64)
    degree = [0] * num_dst
    for j, i in edges:
        if j == i:
            continue
        degree[i] += 1
        for c in range(num_classes):
            out[i, c] += float(labels[j] == c) if known[j] else float(probabilities[j, c])
    for i in range(num_dst):
        if degree[i]:
            out[i] /= degree[i]
            if compatibility is not None:
                out[i] = sum(out[i, k] * compatibility[k] for k in range(num_classes))
    return out, [d > 0 for d in degree]


def count_compatibility(
    edges: Iterable[tuple[int, int]], labels: Sequence[int], known: Sequence[bool], num_classes: int
) -> Tensor:
    """Return the share of each destination class among a source class's labelled edges, 1 for itself without any."""
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for j, i in edges:
        if j != i and known[j] and known[i]:
            counts[labels[j], labels[i]] += 1
    for k in range(num_classes):
        if counts[k].sum() == 0:
            counts[k, k] = 1
        counts[k] /= counts[k].sum()
    return counts


def jensen_shannon_stability(p: Tensor, q: Tensor) -> float:
    """Return 1 minus the Jensen-Shannon divergence of two distributions ``(C,)`` in bits."""
    divergence = 0.0
    for a, b in zip(p.tolist(), q.tolist(), strict=True):
        middle = (a + b) / 2
        divergence += a / 2 * math.log2(a / middle) if a else 0.0
        divergence += b / 2 * math.log2(b / middle) if b else 0.0
    return 1 - divergence


def entropy_stability(z: Tensor, z_perturbed: Tensor, exponent: float) -> float:
    """Return 1 minus the change of entropy between two rows of logits ``(C,)``, in units of the largest entropy."""
    entropies = [-sum(p * math.log(p) for p in _by_class(x) if p) for x in (z, z_perturbed)]
    return 1 - (abs(entropies[1] - entropies[0]) / math.log(len(z))) ** exponent


def two_step_average(
    relations: Iterable[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
    probabilities: Tensor,
    labels: Sequence[int],
    known: Sequence[bool],
) -> tuple[Tensor, list[bool]]:
    """Return u over paths k -> b -> i, and who has one; a relation is its edges (k, b) and its edges (b, i)."""
    num_nodes, num_classes = probabilities.shape
    out = torch.zeros(num_nodes, num_classes, dtype=torch.float64)
    counts = [0] * num_nodes
    for inward, outward in relations:
        for b, i in outward:
            others = [k for k, middle in inward if middle == b and k != i]
            if not others:
                continue
            counts[i] += 1
            for k in others:
                for c in range(num_classes):
                    out[i, c] += (float(labels[k] == c) if known[k] else float(probabilities[k, c])) / len(others)
    for i in range(num_nodes):
        out[i] /= max(1, counts[i])
    return out, [count > 0 for count in counts]


def two_step_joins(
    relations: Iterable[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
    labels: Sequence[int],
    known: Sequence[bool],
    num_classes: int,
) -> Tensor:
    """Return the share of end classes of a start class's two-step paths between labelled nodes."""
    weights = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for inward, outward in relations:
        for b, i in outward:
            others = [k for k, middle in inward if middle == b and k != i]
            for k in others:
                if known[k] and known[i]:
                    weights[labels[k], labels[i]] += 1 / len(others)
    for k in range(num_classes):
        if weights[k].sum() == 0:
            weights[k, k] = 1
        weights[k] /= weights[k].sum()
    return weights
