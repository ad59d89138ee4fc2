"""Definitions of scores, losses and ranks of knowledge graphs: loops in float64, written from the papers' equations."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence

Vector = Sequence[float]


def transe_l1(h: Vector, r: Vector, t: Vector) -> float:
    return -sum(abs(a + b - c) for a, b, c in zip(h, r, t, strict=True))


def transe_l2(h: Vector, r: Vector, t: Vector) -> float:
    return -math.sqrt(sum((a + b - c) ** 2 for a, b, c in zip(h, r, t, strict=True)))


def distmult(h: Vector, r: Vector, t: Vector) -> float:
    return sum(a * b * c for a, b, c in zip(h, r, t, strict=True))


def as_complex(x: Vector) -> list[complex]:
    half = len(x) // 2
    return [complex(x[d], x[d + half]) for d in range(half)]


def complex_product(h: Vector, r: Vector, t: Vector) -> float:
    terms = zip(as_complex(h), as_complex(r), as_complex(t), strict=True)
    return sum((a * b * c.conjugate()).real for a, b, c in terms)


def rotate(h: Vector, r: Vector, t: Vector) -> float:
    return -sum(abs(a * cmath.exp(1j * b) - c) for a, b, c in zip(as_complex(h), r, as_complex(t), strict=True))


SCORES: dict[str, Callable[[Vector, Vector, Vector], float]] = {
    "transe": transe_l1,
    "transe-l2": transe_l2,
    "distmult": distmult,
    "complex": complex_product,
    "rotate": rotate,
}


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def ranking_loss(
    positive: Vector,
    negative: Sequence[Vector],
    valid: Sequence[Sequence[bool]],
    *,
    form: str,
    margin: float | None,
    temperature: float | None,
) -> float:
    total = 0.0
    for s, row, counts in zip(positive, negative, valid, strict=True):
        scores = [z for z, ok in zip(row, counts, strict=True) if ok]
        shares = [math.exp((temperature or 0) * z) for z in scores]
        terms = []
        for z in scores:
            if form == "margin":
                terms.append(max(0.0, margin + z - s))
            elif form == "softplus":
                terms.append(math.log(1 + math.exp(z)) / 2)
            else:
                terms.append(-math.log(sigma(-z - margin)) / 2)
        total += sum(w * term for w, term in zip(shares, terms, strict=True)) / (sum(shares) or 1)
        if form == "softplus":
            total += math.log(1 + math.exp(-s)) / 2
        elif form == "sigmoid":
            total -= math.log(sigma(margin + s)) / 2
    return total / len(positive)


def ranks(
    scores: Sequence[Vector], right: Sequence[int], taken_out: Sequence[set[int]], allowed: Sequence[set[int]]
) -> tuple[list[int], list[int], list[int]]:
    """Return, by row, the candidates that beat the right entity, the others that tie with it, and all with it."""
    counts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for row, e, out, among in zip(scores, right, taken_out, allowed, strict=True):
        rivals = [other for other in range(len(row)) if other != e and other not in out and other in among]
        counts[0].append(sum(row[other] > row[e] for other in rivals))
        counts[1].append(sum(row[other] == row[e] for other in rivals))
        counts[2].append(len(rivals) + 1)
    return counts


def unit(x: Vector) -> list[float]:
    length = math.sqrt(sum(v * v for v in x))
    return [v / length for v in x]


def affine(weight: Sequence[Vector], bias: Vector, x: Vector) -> list[float]:
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def multimodal(
    score: Callable[[Vector, Vector, Vector], float],
    head: Sequence[Vector | None],
    relation: Vector,
    tail: Sequence[Vector | None],
    pairs: Sequence[tuple[int, int]],
    weights: Sequence[float],
) -> float:
    """Score a triple whose ends have a vector or None by modality."""
    total = counted = 0.0
    for (a, b), weight in zip(pairs, weights, strict=True):
        h, t = head[a], tail[b]
        if h is not None and t is not None:
            total += weight * score(h, relation, t)
            counted += weight
    return total / counted * sum(weights)


def mans_distance(weights: dict[str, list], h: int, r: int, t: int) -> float:
    """Return the released model's distance: four terms of the L1 norm, every vector at length 1."""

    def ends(e: int) -> tuple[list[float], list[float]]:
        image = affine(weights["img_proj.weight"], weights["img_proj.bias"], weights["img_embeddings.weight"][e])
        return unit(weights["ent_embeddings.weight"][e]), unit(image)

    relation = unit(weights["rel_embeddings.weight"][r])
    return -sum(transe_l1(a, relation, b) for a in ends(h) for b in ends(t))
