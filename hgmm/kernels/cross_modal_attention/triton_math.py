"""Device functions of the CUDA kernels: the operator's numbers by edge and modality, for one head.

Tiles are ``(BE, BM)`` by edge and modality, ``(BE, BM, BD)`` for gathered vectors; `p` says where there is an edge
whose source has the modality. Logarithms of sums and other numbers of a row come as ``(1, BM)`` and ``(1,)`` where all
edges have one destination, as ``(BE, BM)`` and ``(BE,)`` where each has its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

PRODUCT, SUM, B1, POSTER, SHARP = map(tl.constexpr, range(5))


@triton.jit
def gather_vectors(
    x, node, ok, h, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Gather ``(BE, BM, BD)``; 0 where `ok` is false and in the padding."""
    m, d = tl.arange(0, BM), tl.arange(0, BD)
    mask = ok[:, None, None] & (m < M)[None, :, None] & (d < D)[None, None, :]
    at = (node * (M * H * D))[:, None, None] + (m * (H * D))[None, :, None] + (h * D + d)[None, None, :]
    return tl.load(x + at, mask=mask, other=0.0).to(ACC)


@triton.jit
def load_vectors(
    x, node, h, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Read ``(BM, BD)`` of one node."""
    m, d = tl.arange(0, BM), tl.arange(0, BD)
    mask = (m < M)[:, None] & (d < D)[None, :]
    return tl.load(x + node * (M * H * D) + (m * (H * D))[:, None] + (h * D + d)[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def store_vectors(
    x, value, row, h, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr
):
    """Write ``(BM, BD)`` of one row."""
    m, d = tl.arange(0, BM), tl.arange(0, BD)
    at = row * (M * H * D) + (m * (H * D))[:, None] + (h * D + d)[None, :]
    tl.store(x + at, value.to(x.dtype.element_ty), mask=(m < M)[:, None] & (d < D)[None, :])


@triton.jit
def has_modality(present, node, ok, M: tl.constexpr, BM: tl.constexpr, MASKED: tl.constexpr):
    """Return p."""
    m = tl.arange(0, BM)
    p = ok[:, None] & (m < M)[None, :]
    if MASKED:
        p = p & (tl.load(present + (node * M)[:, None] + m[None, :], mask=p, other=0) != 0)
    return p


@triton.jit
def any_of(p):
    """Return which edges have a source with any modality."""
    return tl.max(p.to(tl.int32), 1) > 0


@triton.jit
def finite(x):
    """Turn the maximum of nothing into 0, so that -inf minus it stays -inf."""
    return tl.where(x == float("-inf"), 0.0, x)


@triton.jit
def ones_if_zero(x):
    """Make a sum a divisor."""
    return tl.where(x == 0, 1.0, x)


@triton.jit
def disagreement(g, p, ACC: tl.constexpr):
    """Return u: minus the mean of ``|g_m - g_m'|`` over the pairs that the source has."""
    both = p[:, :, None] & p[:, None, :]
    gaps = tl.where(both, tl.abs(g[:, :, None] - g[:, None, :]), 0.0)
    count = tl.sum(p.to(ACC), 1)
    return -tl.sum(tl.sum(gaps, 2), 1) / ones_if_zero(count * (count - 1))


@triton.jit
def disagreement_gradient(g, p, du, ACC: tl.constexpr):
    """Return du times the derivative by g_m; 0 without a pair, whatever du is."""
    m = tl.arange(0, p.shape[1])
    # Lanes may have rounded the same sum differently, so that a gap to itself need not be 0.
    both = p[:, :, None] & p[:, None, :] & (m[:, None] != m[None, :])[None, :, :]
    gap = g[:, :, None] - g[:, None, :]
    signs = tl.where(both & (gap > 0), 1.0, 0.0) - tl.where(both & (gap < 0), 1.0, 0.0)
    count = tl.sum(p.to(ACC), 1)
    slope = -2 * tl.sum(signs, 2) / ones_if_zero(count * (count - 1))[:, None]
    return tl.where((count > 1)[:, None], du[:, None] * slope, 0.0)


@triton.jit
def join(g, t, p, A, UNIFORM_NODES: tl.constexpr, UNIFORM_MODALITIES: tl.constexpr, IN_LOGS: tl.constexpr):
    """Return lambda, alpha, ``lambda alpha`` (or its share of b1) and b1 (or its logarithm)."""
    # Subtracted where there is no logit, too: a row's NaN then reaches all its edges, as in other softmaxes.
    log_alpha = tl.where(p, tl.zeros_like(g) if UNIFORM_NODES else g, float("-inf")) - A
    modal = tl.where(p, tl.zeros_like(t) if UNIFORM_MODALITIES else t, float("-inf"))
    modal -= finite(tl.max(modal, 1))[:, None]
    weight = tl.exp(modal)
    total = ones_if_zero(tl.sum(weight, 1))
    lamda = weight / total[:, None]
    alpha = tl.exp(log_alpha)
    if IN_LOGS:
        log_product = log_alpha + modal - tl.log(total)[:, None]
        top = tl.max(log_product, 1)
        shares = tl.exp(log_product - finite(top)[:, None])
        sum_of_shares = ones_if_zero(tl.sum(shares, 1))
        return lamda, alpha, shares / sum_of_shares[:, None], top + tl.log(sum_of_shares)
    product = lamda * alpha
    return lamda, alpha, product, tl.sum(product, 1)


@triton.jit
def edge_logits(b1, u, some, U, P, gamma, rest, COMBINE: tl.constexpr, USES_U: tl.constexpr, USES_B2: tl.constexpr):
    """Return w of the table, and the softmaxes a of b1 (`poster`) and b2 of u, for edges that `some` counts."""
    a, b2 = b1, u
    if COMBINE == POSTER:
        a = tl.exp(tl.where(some, b1 - P, float("-inf")))
    w = a
    if USES_B2:
        b2 = tl.exp(tl.where(some, u - U, float("-inf")))
        w = a + b2 if COMBINE == SUM else a * b2
    elif USES_U:
        w = b1 + gamma * u + rest * u
    return w, a, b2


@triton.jit
def weight_gradients(w, a, b2, p, dv, D, R, COMBINE: tl.constexpr, USES_B2: tl.constexpr, SOFTMAXED: tl.constexpr):
    """Return rho, dL/dw, and dL/d of a and of b2; `dv` is ``<G, v>`` by modality."""
    if SOFTMAXED:
        rho = tl.exp(tl.where(p, w[:, None] - R, float("-inf")))
        dw = tl.sum(tl.where(p, rho * (dv - D), 0.0), 1)
    else:
        rho = tl.where(p, w[:, None], 0.0)
        # Without a softmax of w nothing else brings the weight's NaN to its gradient.
        dw = tl.sum(tl.where(p, dv, 0.0), 1) + w * 0
    da, db2 = dw, dw
    if USES_B2 and COMBINE != SUM:
        da, db2 = dw * b2, dw * a
    return rho, dw, da, db2


@triton.jit
def logit_gradients(
    g, p, lamda, alpha, y, b2, dw, db2, towards_lambda, C, C2, gamma, rest, USES_U: tl.constexpr, USES_B2: tl.constexpr,
    UNIFORM_NODES: tl.constexpr, UNIFORM_MODALITIES: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Return dL/dg and dL/dt; y is the part of b1's gradient that each modality gets."""
    dg = tl.zeros_like(y) if UNIFORM_NODES else y - alpha * C
    if USES_U:
        du = b2 * (db2 - C2) if USES_B2 else gamma * dw + rest * dw
        dg += disagreement_gradient(g, p, du, ACC)
    z = y + lamda * towards_lambda
    dt = tl.zeros_like(z) if UNIFORM_MODALITIES else z - lamda * tl.sum(z, 1)[:, None]
    return tl.where(p, dg, 0.0), tl.where(p, dt, 0.0)
