"""The CUDA kernels of the three passes; `triton_kernels` launches them. A program holds one head of some rows.

Statistics of a row are ``(2 M + 2, H)``: A, R by modality, U, P. A record adds what the backward pass hands from the
destinations to the sources, ``(H, 4 M + 4)``: A, R, D, C by modality, U, P, C2, C3. The README has the equations.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hgmm.kernels._triton_device import edges_from, row_bounds, run_bounds
from hgmm.kernels.cross_modal_attention.triton_math import (
    POSTER,
    any_of,
    disagreement,
    edge_logits,
    finite,
    gather_vectors,
    has_modality,
    join,
    load_vectors,
    logit_gradients,
    ones_if_zero,
    store_vectors,
    weight_gradients,
)

__all__ = ["attention_pass", "destination_pass", "forward_pass", "source_pass"]


@triton.jit
def _raise(top, total, logits):
    """Add a tile to running maxima and sums; also return what earlier sums were multiplied by, and the weights."""
    higher = tl.maximum(top, tl.max(logits, 0))
    shrink = tl.exp(top - finite(higher))
    weights = tl.exp(logits - finite(higher)[None, :])
    return higher, total * shrink + tl.sum(weights, 0), shrink, weights


@triton.jit
def _finish(top, total, SPLIT: tl.constexpr):
    """Return the logarithm of a sum; of an empty one -inf for a part, which must not count, and 0 for a row."""
    if SPLIT:
        return top + tl.log(ones_if_zero(total))
    return finite(top) + tl.log(ones_if_zero(total))


@triton.jit
def _edges(
    k, indices, present, start, end, h, node, modal, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BM: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, MASKED: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Gather a tile of in-edges: sources, which there are, p, keys and both logits."""
    edge = edges_from(start, BE)
    ok = edge < end
    source = tl.load(indices + edge, mask=ok, other=0).to(tl.int64)
    keys = gather_vectors(k, source, ok, h, M, H, D, BM, BD, ACC)
    p = has_modality(present, source, ok, M, BM, MASKED)
    return source, ok, p, keys, tl.sum(keys * node[None, :, :], 2), tl.sum(keys * modal[None, :, :], 2)


@triton.jit
def _load_statistics(stats, node, h, M: tl.constexpr, H: tl.constexpr, BM: tl.constexpr, ACC: tl.constexpr):
    """Return A, R of shape (BM,) and U, P of shape (1,)."""
    m = tl.arange(0, BM)
    at = stats + node * ((2 * M + 2) * H) + h
    one = tl.arange(0, 1)
    A = tl.load(at + m * H, mask=m < M, other=0.0).to(ACC)
    R = tl.load(at + (M + m) * H, mask=m < M, other=0.0).to(ACC)
    return A, R, tl.load(at + (2 * M + one) * H).to(ACC), tl.load(at + (2 * M + 1 + one) * H).to(ACC)


@triton.jit
def forward_pass(
    k, q_node, q_modal, v, indptr, indices, runs, part_row, part_begin, part_end, longest, present, lambda_weight,
    gamma, rest, known, stats, out, lambda_sum, M: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
    BD: tl.constexpr, ACC: tl.constexpr, MASKED: tl.constexpr, COMBINE: tl.constexpr, USES_U: tl.constexpr,
    USES_B2: tl.constexpr, IN_LOGS: tl.constexpr, SOFTMAXED: tl.constexpr, UNIFORM_NODES: tl.constexpr,
    UNIFORM_MODALITIES: tl.constexpr, LAMBDA: tl.constexpr, STATISTICS: tl.constexpr, SOFTMAX_B1: tl.constexpr,
    VALUES: tl.constexpr, SPLIT: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Run the sweeps that are asked for; what the others would find is read from `known`."""
    h = tl.program_id(0) % H
    m, one = tl.arange(0, BM), tl.arange(0, 1)
    first, last = run_bounds(tl.program_id(0) // H, runs, SPLIT)
    for row in range(first, last):
        i, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            node = load_vectors(q_node, i, h, M, H, D, BM, BD, ACC)
            modal = load_vectors(q_modal, i, h, M, H, D, BM, BD, ACC)
            store = stats + row * ((2 * M + 2) * H) + h
            A, _unread, U, P = _load_statistics(known, i, h, M, H, BM, ACC)
            if STATISTICS:
                P = tl.zeros([1], ACC)
                top, total = tl.full([BM], float("-inf"), ACC), tl.zeros([BM], ACC)
                u_top, u_total = tl.full([1], float("-inf"), ACC), tl.zeros([1], ACC)
                for start in range(begin, end, BE):
                    _, _, p, _, g, _ = _edges(
                        k, indices, present, start, end, h, node, modal, M, H, D, BM, BD, ACC, MASKED, BE
                    )
                    logits = tl.where(p, tl.zeros_like(g) if UNIFORM_NODES else g, float("-inf"))
                    top, total, _, _ = _raise(top, total, logits)
                    if USES_B2:
                        u = tl.where(any_of(p), disagreement(g, p, ACC), float("-inf"))
                        u_top, u_total, _, _ = _raise(u_top, u_total, u[:, None])
                A, U = _finish(top, total, SPLIT), _finish(u_top, u_total, SPLIT)
                tl.store(store + m * H, A, mask=m < M)
                tl.store(store + (2 * M + one) * H, U)
            if SOFTMAX_B1:
                total = tl.zeros([1], ACC)
                for start in range(begin, end, BE):
                    _, _, p, _, g, t = _edges(
                        k, indices, present, start, end, h, node, modal, M, H, D, BM, BD, ACC, MASKED, BE
                    )
                    _, _, _, b1 = join(g, t, p, A[None, :], UNIFORM_NODES, UNIFORM_MODALITIES, IN_LOGS)
                    # b1 lies in [0, 1], so its softmax needs no maximum.
                    total += tl.sum(tl.exp(tl.where(any_of(p), b1, float("-inf")))[:, None], 0)
                P = tl.log(total) if SPLIT else tl.log(ones_if_zero(total))
            if STATISTICS or SOFTMAX_B1:
                tl.store(store + (2 * M + 1 + one) * H, P)
            if VALUES:
                top, total = tl.full([BM], float("-inf"), ACC), tl.zeros([BM], ACC)
                sums, lambdas = tl.zeros([BM, BD], ACC), tl.zeros([BM], ACC)
                for start in range(begin, end, BE):
                    source, ok, p, _, g, t = _edges(
                        k, indices, present, start, end, h, node, modal, M, H, D, BM, BD, ACC, MASKED, BE
                    )
                    lamda, _, _, b1 = join(g, t, p, A[None, :], UNIFORM_NODES, UNIFORM_MODALITIES, IN_LOGS)
                    u = disagreement(g, p, ACC) if USES_U else b1
                    w, _, _ = edge_logits(b1, u, any_of(p), U, P, gamma, rest, COMBINE, USES_U, USES_B2)
                    weights = tl.where(p, w[:, None], 0.0)
                    if SOFTMAXED:
                        top, total, shrink, weights = _raise(top, total, tl.where(p, w[:, None], float("-inf")))
                        sums *= shrink[:, None]
                    values = gather_vectors(v, source, ok, h, M, H, D, BM, BD, ACC)
                    sums += tl.sum(weights[:, :, None] * values, 0)
                    if LAMBDA:
                        factor = tl.load(lambda_weight + (source * M)[:, None] + m[None, :], mask=p, other=0.0)
                        lambdas += tl.sum(lamda * factor, 0)
                R = tl.zeros([BM], ACC)
                if SOFTMAXED:
                    sums /= ones_if_zero(total)[:, None]
                    R = _finish(top, total, SPLIT)
                tl.store(store + (M + m) * H, R, mask=m < M)
                store_vectors(out, sums, row, h, M, H, D, BM, BD)
                if LAMBDA:
                    tl.store(lambda_sum + (row * M + m) * H + h, lambdas, mask=m < M)


@triton.jit
def attention_pass(
    k, q_node, q_modal, indptr, indices, runs, present, gamma, rest, stats, attn, M: tl.constexpr, H: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, MASKED: tl.constexpr,
    COMBINE: tl.constexpr, USES_U: tl.constexpr, USES_B2: tl.constexpr, IN_LOGS: tl.constexpr,
    UNIFORM_NODES: tl.constexpr, UNIFORM_MODALITIES: tl.constexpr, BETA_IS_W: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Write beta. For explanation, not for training: long rows are not split."""
    h = tl.program_id(0) % H
    first, last = run_bounds(tl.program_id(0) // H, runs, False)
    for i in range(first, last):
        begin, end = tl.load(indptr + i).to(tl.int64), tl.load(indptr + i + 1).to(tl.int64)
        node = load_vectors(q_node, i, h, M, H, D, BM, BD, ACC)
        modal = load_vectors(q_modal, i, h, M, H, D, BM, BD, ACC)
        A, _unread, U, P = _load_statistics(stats, i, h, M, H, BM, ACC)
        top, total = tl.full([1], float("-inf"), ACC), tl.zeros([1], ACC)
        for sweep in tl.static_range(2):
            for start in range(begin, end, BE):
                _, ok, p, _, g, t = _edges(
                    k, indices, present, start, end, h, node, modal, M, H, D, BM, BD, ACC, MASKED, BE
                )
                _, _, _, b1 = join(g, t, p, A[None, :], UNIFORM_NODES, UNIFORM_MODALITIES, IN_LOGS)
                some = any_of(p)
                u = disagreement(g, p, ACC) if USES_U else b1
                w, _, _ = edge_logits(b1, u, some, U, P, gamma, rest, COMBINE, USES_U, USES_B2)
                if sweep == 0:
                    top, total, _, _ = _raise(top, total, tl.where(some, w, float("-inf"))[:, None])
                else:
                    if BETA_IS_W:
                        beta = tl.exp(w) if IN_LOGS else w
                    else:
                        beta = tl.exp(tl.where(some, w - finite(top), float("-inf"))) / ones_if_zero(total)
                    tl.store(attn + edges_from(start, BE) * H + h, tl.where(some, beta, 0.0), mask=ok)


@triton.jit
def _load_record(records, node, ok, h, M: tl.constexpr, H: tl.constexpr, BM: tl.constexpr, ACC: tl.constexpr):
    """Return A, R, D, C of shape (nodes, BM) and U, P, C2, C3 of shape (nodes,)."""
    m = tl.arange(0, BM)
    at = records + (node * H + h) * (4 * M + 4)
    by_modality = at[:, None] + m[None, :]
    mask = ok[:, None] & (m < M)[None, :]
    return (
        tl.load(by_modality, mask=mask, other=0.0),
        tl.load(by_modality + M, mask=mask, other=0.0),
        tl.load(by_modality + 2 * M, mask=mask, other=0.0),
        tl.load(by_modality + 3 * M, mask=mask, other=0.0),
        tl.load(at + 4 * M, mask=ok, other=0.0),
        tl.load(at + 4 * M + 1, mask=ok, other=0.0),
        tl.load(at + 4 * M + 2, mask=ok, other=0.0),
        tl.load(at + 4 * M + 3, mask=ok, other=0.0),
    )


@triton.jit
def _edge_gradients(
    g, t, p, dv, A, R, D, U, P, gamma, rest, ACC: tl.constexpr, COMBINE: tl.constexpr, USES_U: tl.constexpr,
    USES_B2: tl.constexpr, IN_LOGS: tl.constexpr, SOFTMAXED: tl.constexpr, UNIFORM_NODES: tl.constexpr,
    UNIFORM_MODALITIES: tl.constexpr,
):  # fmt: skip
    """Return lambda, alpha, ``lambda alpha`` (or its share), a, b2, rho, dL/dw, dL/da and dL/db2."""
    lamda, alpha, part, b1 = join(g, t, p, A, UNIFORM_NODES, UNIFORM_MODALITIES, IN_LOGS)
    u = disagreement(g, p, ACC) if USES_U else b1
    w, a, b2 = edge_logits(b1, u, any_of(p), U, P, gamma, rest, COMBINE, USES_U, USES_B2)
    rho, dw, da, db2 = weight_gradients(w, a, b2, p, dv, D, R, COMBINE, USES_B2, SOFTMAXED)
    return lamda, alpha, part, a, b2, rho, dw, da, db2


@triton.jit
def destination_pass(
    k, q_node, q_modal, v, grad_out, out, indptr, indices, runs, part_row, part_begin, part_end, longest, present,
    lambda_weight, grad_lambda, gamma, rest, stats, records, sums, grad_node, grad_modal, M: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, MASKED: tl.constexpr,
    COMBINE: tl.constexpr, USES_U: tl.constexpr, USES_B2: tl.constexpr, IN_LOGS: tl.constexpr,
    SOFTMAXED: tl.constexpr, UNIFORM_NODES: tl.constexpr, UNIFORM_MODALITIES: tl.constexpr, LAMBDA: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr, QUERIES: tl.constexpr, SPLIT: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form the sums C2, C3 and C of each row (FIRST; C of `poster` needs C3: SECOND), and the queries' gradients.

    A part writes its sums; all else that it needs stands in the row's record.
    """
    h = tl.program_id(0) % H
    m, one = tl.arange(0, BM), tl.arange(0, 1)
    first, last = run_bounds(tl.program_id(0) // H, runs, SPLIT)
    for row in range(first, last):
        i, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            node = load_vectors(q_node, i, h, M, H, D, BM, BD, ACC)
            modal = load_vectors(q_modal, i, h, M, H, D, BM, BD, ACC)
            gradient = load_vectors(grad_out, i, h, M, H, D, BM, BD, ACC)
            towards = tl.zeros([BM], ACC)
            if LAMBDA:
                towards = tl.load(grad_lambda + (i * M + m) * H + h, mask=m < M, other=0.0).to(ACC)
            if SPLIT:
                A, R, mean, C, U, P, C2, C3 = _load_record(records, i + one, one == 0, h, M, H, BM, ACC)
            else:
                A, R, U, P = _load_statistics(stats, i, h, M, H, BM, ACC)
                A, R = A[None, :], R[None, :]
                mean = tl.sum(gradient * load_vectors(out, i, h, M, H, D, BM, BD, ACC), 1)[None, :]
                C, C2, C3 = tl.zeros([1, BM], ACC), tl.zeros([1], ACC), tl.zeros([1], ACC)
            if FIRST:
                C, C2, C3 = tl.zeros([1, BM], ACC), tl.zeros([1], ACC), tl.zeros([1], ACC)
            for sweep in tl.static_range(3):
                if (FIRST and sweep == 0) or (SECOND and sweep == 1) or (QUERIES and sweep == 2):
                    node_sums, modal_sums = tl.zeros([BM, BD], ACC), tl.zeros([BM, BD], ACC)
                    for start in range(begin, end, BE):
                        source, ok, p, keys, g, t = _edges(
                            k, indices, present, start, end, h, node, modal, M, H, D, BM, BD, ACC, MASKED, BE
                        )
                        dv = tl.sum(gather_vectors(v, source, ok, h, M, H, D, BM, BD, ACC) * gradient[None, :, :], 2)
                        lamda, alpha, part, a, b2, _, dw, da, db2 = _edge_gradients(
                            g, t, p, dv, A, R, mean, U, P, gamma, rest, ACC, COMBINE, USES_U, USES_B2, IN_LOGS,
                            SOFTMAXED, UNIFORM_NODES, UNIFORM_MODALITIES,
                        )  # fmt: skip
                        if COMBINE == POSTER and sweep > 0:
                            da = a * (da - C3)
                        y = part * da[:, None]
                        if sweep == 0:
                            if USES_B2:
                                C2 += tl.sum((b2 * db2)[:, None], 0)
                            if COMBINE == POSTER:
                                C3 += tl.sum((a * da)[:, None], 0)
                            else:
                                C += tl.sum(y, 0)[None, :]
                        elif sweep == 1:
                            C += tl.sum(y, 0)[None, :]
                        else:
                            wanted = tl.zeros_like(y)
                            if LAMBDA:
                                at = lambda_weight + (source * M)[:, None] + m[None, :]
                                wanted = tl.load(at, mask=p, other=0.0).to(ACC) * towards[None, :]
                            dg, dt = logit_gradients(
                                g, p, lamda, alpha, y, b2, dw, db2, wanted, C, C2, gamma, rest, USES_U, USES_B2,
                                UNIFORM_NODES, UNIFORM_MODALITIES, ACC,
                            )  # fmt: skip
                            node_sums += tl.sum(dg[:, :, None] * keys, 0)
                            modal_sums += tl.sum(dt[:, :, None] * keys, 0)
                    if sweep == 2:
                        store_vectors(grad_node, node_sums, row, h, M, H, D, BM, BD)
                        store_vectors(grad_modal, modal_sums, row, h, M, H, D, BM, BD)
            if SPLIT and (FIRST or SECOND):
                at = sums + (row * H + h) * (M + 2)
                tl.store(at + m[None, :], C, mask=(m < M)[None, :])
                tl.store(at + M + one, C2)
                tl.store(at + M + 1 + one, C3)
            elif FIRST:
                at = records + (row * H + h) * (4 * M + 4)
                by_modality = at + m[None, :]
                tl.store(by_modality, A, mask=(m < M)[None, :])
                tl.store(by_modality + M, R, mask=(m < M)[None, :])
                tl.store(by_modality + 2 * M, mean, mask=(m < M)[None, :])
                tl.store(by_modality + 3 * M, C, mask=(m < M)[None, :])
                tl.store(at + 4 * M + one, U)
                tl.store(at + 4 * M + 1 + one, P)
                tl.store(at + 4 * M + 2 + one, C2)
                tl.store(at + 4 * M + 3 + one, C3)


@triton.jit
def source_pass(
    k, q_node, q_modal, v, grad_out, indptr, indices, runs, part_row, part_begin, part_end, longest, present,
    lambda_weight, grad_lambda, gamma, rest, records, grad_k, grad_v, M: tl.constexpr, H: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, ACC: tl.constexpr, MASKED: tl.constexpr,
    COMBINE: tl.constexpr, USES_U: tl.constexpr, USES_B2: tl.constexpr, IN_LOGS: tl.constexpr,
    SOFTMAXED: tl.constexpr, UNIFORM_NODES: tl.constexpr, UNIFORM_MODALITIES: tl.constexpr, LAMBDA: tl.constexpr,
    SPLIT: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Form the gradients of keys and values, over the out-edges of each source."""
    h = tl.program_id(0) % H
    m, one = tl.arange(0, BM), tl.arange(0, 1)
    first, last = run_bounds(tl.program_id(0) // H, runs, SPLIT)
    for row in range(first, last):
        j, begin, end = row_bounds(row, indptr, part_row, part_begin, part_end, SPLIT)
        if end - begin <= longest:
            key = load_vectors(k, j, h, M, H, D, BM, BD, ACC)
            value = load_vectors(v, j, h, M, H, D, BM, BD, ACC)
            has = has_modality(present, j + one, one == 0, M, BM, MASKED)
            factor = tl.zeros([1, BM], ACC)
            if LAMBDA:
                factor = tl.load(lambda_weight + j * M + m[None, :], mask=has, other=0.0).to(ACC)
            key_sums, value_sums = tl.zeros([BM, BD], ACC), tl.zeros([BM, BD], ACC)
            for start in range(begin, end, BE):
                edge = edges_from(start, BE)
                ok = edge < end
                i = tl.load(indices + edge, mask=ok, other=0).to(tl.int64)
                p = ok[:, None] & has
                # A gradient of 0 would not take out what is infinite or NaN in a query that is not read.
                node, modal = tl.zeros([BE, BM, BD], ACC), tl.zeros([BE, BM, BD], ACC)
                if USES_U or not UNIFORM_NODES:
                    node = gather_vectors(q_node, i, ok, h, M, H, D, BM, BD, ACC)
                if not UNIFORM_MODALITIES:
                    modal = gather_vectors(q_modal, i, ok, h, M, H, D, BM, BD, ACC)
                gradient = gather_vectors(grad_out, i, ok, h, M, H, D, BM, BD, ACC)
                g, t = tl.sum(node * key[None, :, :], 2), tl.sum(modal * key[None, :, :], 2)
                dv = tl.sum(gradient * value[None, :, :], 2)
                A, R, mean, C, U, P, C2, C3 = _load_record(records, i, ok, h, M, H, BM, ACC)
                lamda, alpha, part, a, b2, rho, dw, da, db2 = _edge_gradients(
                    g, t, p, dv, A, R, mean, U, P, gamma, rest, ACC, COMBINE, USES_U, USES_B2, IN_LOGS,
                    SOFTMAXED, UNIFORM_NODES, UNIFORM_MODALITIES,
                )  # fmt: skip
                if COMBINE == POSTER:
                    da = a * (da - C3)
                wanted = tl.zeros_like(lamda)
                if LAMBDA:
                    at = grad_lambda + (i * M * H)[:, None] + (m * H)[None, :] + h
                    wanted = tl.load(at, mask=p, other=0.0).to(ACC) * factor
                dg, dt = logit_gradients(
                    g, p, lamda, alpha, part * da[:, None], b2, dw, db2, wanted, C, C2, gamma, rest, USES_U, USES_B2,
                    UNIFORM_NODES, UNIFORM_MODALITIES, ACC,
                )  # fmt: skip
                # A factor of 0 would not take out what is infinite or NaN.
                key_sums += tl.sum(tl.where(p[:, :, None], dg[:, :, None] * node + dt[:, :, None] * modal, 0.0), 0)
                value_sums += tl.sum(tl.where(p[:, :, None], rho[:, :, None] * gradient, 0.0), 0)
            store_vectors(grad_k, key_sums, row, h, M, H, D, BM, BD)
            store_vectors(grad_v, value_sums, row, h, M, H, D, BM, BD)
