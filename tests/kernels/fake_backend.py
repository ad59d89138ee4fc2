"""A stand-in for compiled implementations: results and gradients come from the reference.

It serves the tests of what lies between an operator's public function and its implementations, on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.kernels import _dispatch
from hgmm.kernels.cross_modal_attention import CrossModalInputs
from hgmm.kernels.cross_modal_attention import reference as cross_modal_reference
from hgmm.kernels.inter_node_attention import InterNodeInputs
from hgmm.kernels.inter_node_attention import reference as inter_node_reference
from hgmm.kernels.neighbor_mean import NeighborInputs
from hgmm.kernels.neighbor_mean import reference as neighbor_reference
from hgmm.kernels.translational_score import TranslationalInputs
from hgmm.kernels.translational_score import reference as translational_reference

calls: list[str] = []
"""What was called, in order, as ``operator.forward`` or ``operator.backward``."""


def _checked(*tensors: Any) -> None:
    for x in tensors:
        assert not isinstance(x, Tensor) or x.is_contiguous()


def _gradients(result: Any, leaves: list[Tensor], grads: list[Tensor | None]) -> list[Tensor]:
    pairs = [(x, g.to(x.dtype)) for x, g in zip(result, grads, strict=True) if x is not None and g is not None]
    results, grads = zip(*((x, g) for x, g in pairs if x.requires_grad), strict=True)
    return list(torch.autograd.grad(results, leaves, grads, allow_unused=True, materialize_grads=True))


def _recorded(run: Callable[[], Any]) -> Any:
    """Run something with autograd, which torch keeps from this thread inside an operator."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


class _CrossModal:
    @staticmethod
    def _inputs(csc, k, q_node, q_modal, v, present, lambda_weight, options, return_attention) -> CrossModalInputs:
        return CrossModalInputs(csc, k, q_node, q_modal, v, present, lambda_weight, *options, return_attention)

    @classmethod
    def forward(cls, csc, k, q_node, q_modal, v, present, lambda_weight, options, return_attention):
        calls.append("cross_modal_attention.forward")
        _checked(*csc, k, q_node, q_modal, v, present, lambda_weight)
        inputs = cls._inputs(csc, k, q_node, q_modal, v, present, lambda_weight, options, return_attention)
        out, lambda_sum, attn = cross_modal_reference.run(inputs)
        acc = torch.promote_types(q_node.dtype, torch.float32)
        _, M, H, _ = k.shape
        return (
            out,
            out.new_empty(0, dtype=acc) if lambda_sum is None else lambda_sum,
            out.new_empty(0, dtype=acc) if attn is None else attn.to(acc, copy=True),
            out.new_zeros(csc.num_dst, 2 * M + 2, H, dtype=acc),
        )

    @classmethod
    def backward(cls, csc, k, q_node, q_modal, v, present, lambda_weight, options, out, stats, *rest):
        calls.append("cross_modal_attention.backward")
        grad_out, grad_lambda_sum, need_dst, need_src = rest
        _checked(*csc, k, q_node, q_modal, v, present, lambda_weight, out, stats, grad_out, grad_lambda_sum)

        def grads_of() -> list[Tensor]:
            leaves = [_leaf(x) for x in (k, q_node, q_modal, v)]
            result = cross_modal_reference.run(cls._inputs(csc, *leaves, present, lambda_weight, options, False))
            return _gradients(result, leaves, [grad_out, grad_lambda_sum, None])

        grads = _recorded(grads_of)
        needs = (need_src, need_dst, need_dst, need_src)
        return tuple(g if need else g.new_empty(0) for g, need in zip(grads, needs, strict=True))


class _InterNode:
    @staticmethod
    def forward(csc, k, q, v, present, edge_bias, dropout, seed, return_attention):
        calls.append("inter_node_attention.forward")
        _checked(*csc, k, q, v, present, edge_bias)
        inputs = InterNodeInputs(csc, k, q, v, present, edge_bias, dropout, torch.tensor(seed), return_attention)
        out, attn = inter_node_reference.run(inputs)
        acc = torch.promote_types(q.dtype, torch.float32)
        return (
            out,
            out.new_empty(0, dtype=acc) if attn is None else attn.to(acc, copy=True),
            out.new_zeros(csc.num_dst, *k.shape[1:3], dtype=acc),
        )

    @staticmethod
    def backward(csc, k, q, v, present, edge_bias, dropout, seed, out, lse, grad_out, *needs):
        calls.append("inter_node_attention.backward")
        _checked(*csc, k, q, v, present, edge_bias, out, lse, grad_out)

        def grads_of() -> list[Tensor]:
            leaves = [_leaf(x) for x in (k, q, v)] + ([] if edge_bias is None else [_leaf(edge_bias)])
            bias = None if edge_bias is None else leaves[3]
            inputs = InterNodeInputs(csc, *leaves[:3], present, bias, dropout, torch.tensor(seed), False)
            return _gradients(inter_node_reference.run(inputs), leaves, [grad_out, None])

        grads = _recorded(grads_of)
        if edge_bias is None:
            grads.append(grad_out.new_empty(0))
        need_dst, need_src, need_bias = needs
        wanted = (need_src, need_dst, need_src, need_bias)
        return tuple(g if need else g.new_empty(0) for g, need in zip(grads, wanted, strict=True))


class _NeighborMean:
    @staticmethod
    def forward(csc, x, present, edge_weight, mean):
        calls.append("neighbor_mean.forward")
        _checked(*csc, x, present, edge_weight)
        out = neighbor_reference.run(NeighborInputs(csc, x, present, edge_weight, mean))
        acc = torch.promote_types(x.dtype, torch.float32)
        return out, out.new_zeros((csc.num_dst, x.shape[1]) if mean else (0,), dtype=acc)

    @staticmethod
    def backward(csc, x, present, edge_weight, mean, out, total, grad_out, need_x, need_weight):
        calls.append("neighbor_mean.backward")
        _checked(*csc, x, present, edge_weight, out, total, grad_out)

        def grads_of() -> list[Tensor]:
            leaves = [_leaf(x)] + ([] if edge_weight is None else [_leaf(edge_weight)])
            weight = None if edge_weight is None else leaves[1]
            result = neighbor_reference.run(NeighborInputs(csc, leaves[0], present, weight, mean))
            return _gradients((result,), leaves, [grad_out])

        grads = _recorded(grads_of)
        if edge_weight is None:
            grads.append(grad_out.new_empty(0))
        return tuple(g if need else g.new_empty(0) for g, need in zip(grads, (need_x, need_weight), strict=True))


class _TranslationalScore:
    @staticmethod
    def forward(inputs, signs):
        calls.append("translational_score.forward")
        _checked(*inputs, signs)
        signs.zero_()
        return translational_reference.run(inputs)

    @staticmethod
    def backward(inputs, signs, out, grad_out, *needs):
        calls.append("translational_score.backward")
        _checked(*inputs, signs, out, grad_out)

        def grads_of() -> list[Tensor]:
            leaves = [_leaf(x) for x in inputs[:2]]
            return _gradients(
                (translational_reference.run(TranslationalInputs(*leaves, *inputs[2:])),), leaves, [grad_out]
            )

        return tuple(g if need else g.new_empty(0) for g, need in zip(_recorded(grads_of), needs, strict=True))


_FAKES: dict[str, Any] = {
    "cross_modal_attention": _CrossModal,
    "inter_node_attention": _InterNode,
    "neighbor_mean": _NeighborMean,
    "translational_score": _TranslationalScore,
}


def _reasons(inputs: Any) -> list[str]:
    floats = [x for x in inputs if isinstance(x, Tensor) and x.is_floating_point()]
    if getattr(inputs, "return_attention", False) and torch.is_grad_enabled() and any(x.requires_grad for x in floats):
        return ["attention has no gradient here"]
    return []


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the stand-in in place of ``cpu`` and ask for it."""
    for op, fake in _FAKES.items():
        module = ModuleType(f"hgmm.kernels.{op}.cpu")
        module.forward, module.backward = fake.forward, fake.backward  # type: ignore[attr-defined]
        module.unsupported_reasons = _reasons  # type: ignore[attr-defined]
        patch.setitem(_dispatch._implementations, module.__name__, module)
    patch.setattr(_dispatch, "_unavailable_reasons", lambda op, backend: [])
    patch.setenv("HGMM_BACKEND", "cpu")
    calls.clear()
