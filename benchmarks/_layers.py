"""Whole layers under test: projections, operator and output, of hgmm and in the per-edge, degree-bucketed style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from benchmarks._operators import BACKENDS, HALF, Case, Trial, draw_edges, missing_backend
from benchmarks.official_style import OfficialStyleConv, OfficialStyleVariant
from hgmm.dgl_compat import dgl
from hgmm.graph.csc import relation_csc
from hgmm.nn import CrossModalConv
from hgmm.settings import using_backend
from hgmm.typing import RelationCSC

__all__ = ["LAYERS", "LayerProblem", "make_problem", "missing", "trial"]

LAYERS = ("cross_modal_conv",)
NTYPE = "node"
ETYPE = (NTYPE, "to", NTYPE)
OFFICIAL_COMBINES = ("product", "sum", "b1")


class LayerProblem(NamedTuple):
    """A graph with one node type and one relation, states, weights, and the gradient of the result.

    Attributes
    ----------
    h : Tensor
        (N, M, F), a leaf.
    present : Tensor, or None
        (N, M) bool.
    weights : OfficialStyleConv
        Holds the weights that all providers start from.
    stored : torch.dtype
        How keys and values of the reference are stored.
    """

    case: Case
    graph: Any
    csc: RelationCSC
    h: Tensor
    present: Tensor | None
    weights: OfficialStyleConv
    grad: Tensor
    stored: torch.dtype


def make_problem(case: Case, stored: torch.dtype = torch.float32) -> LayerProblem:
    """Draw a graph, the states of its nodes and the weights of a layer."""
    src, dst = draw_edges(case)
    graph = dgl.heterograph({ETYPE: (src, dst)}, num_nodes_dict={NTYPE: case.num_nodes})
    draw = torch.Generator().manual_seed(case.seed)
    shape = (case.num_nodes, case.M, case.H * case.D)
    h = torch.randn(shape, generator=draw).to(case.device).requires_grad_()
    present = (torch.rand(shape[:2], generator=draw) < 0.8).to(case.device) if case.masked else None
    # With any other row the per-edge style is no provider and only holds the weights.
    combine = case.combine if case.combine in OFFICIAL_COMBINES else OFFICIAL_COMBINES[0]
    variant = OfficialStyleVariant(("",) * case.M, frozenset(), scaled=True, temperature=1.0, combine=combine)
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        weights = OfficialStyleConv(
            [NTYPE], [ETYPE], hidden_size=case.H * case.D, num_heads=case.H, variant=variant, use_norm=True
        )
    csc = relation_csc(graph, ETYPE, device=case.device)
    grad = torch.randn(shape, generator=draw).to(case.device)
    return LayerProblem(case, graph, csc, h, present, weights.eval(), grad, stored)


def missing(provider: str, case: Case) -> str | None:
    """Return why a provider cannot run a layer here, None if it can."""
    if provider in ("dgl", "pyg"):
        return "has no counterpart of this layer"
    if provider != "official-style":
        return missing_backend(BACKENDS[provider], "cross_modal_attention", case.device)
    if case.masked:
        return "has no presence mask"
    if case.combine not in OFFICIAL_COMBINES:
        return f"has no combine={case.combine}, only {', '.join(OFFICIAL_COMBINES)}"
    return None if case.device == "cpu" else "DGL from PyPI has no CUDA"


def trial(provider: str, problem: LayerProblem) -> Trial:
    """Let a provider get ready: its own copy of the weights, without dropout."""
    if provider == "official-style":
        layer = deepcopy(problem.weights)
        return _trial(problem, layer, lambda: layer(problem.graph, {NTYPE: problem.h})[NTYPE], _official_named(layer))
    half = provider == HALF or problem.stored == torch.bfloat16
    conv = _conv(problem, "bfloat16" if half else None)
    present = None if problem.present is None else {NTYPE: problem.present}

    def forward() -> Tensor:
        with using_backend(BACKENDS[provider]):
            return cast(Tensor, conv(problem.graph, {NTYPE: problem.h}, present)[0][NTYPE])

    return _trial(problem, conv, forward, _named(conv))


def _trial(
    problem: LayerProblem,
    layer: nn.Module,
    forward: Callable[[], Tensor],
    named: Mapping[str, tuple[Tensor, int | None]],
) -> Trial:
    def step() -> tuple[Tensor, Tensor]:
        problem.h.grad = None
        layer.zero_grad(set_to_none=True)
        return forward(), problem.grad

    def gradients() -> dict[str, Tensor]:
        found = {"h": problem.h.grad}
        for name, (parameter, row) in named.items():
            found[name] = parameter.grad if parameter.grad is None or row is None else parameter.grad[row]
        return {name: grad for name, grad in found.items() if grad is not None}

    return Trial(step, gradients)


def _conv(problem: LayerProblem, kv_dtype: str | None) -> CrossModalConv:
    case = problem.case
    with torch.random.fork_rng():
        # For the vectors of absent modalities, which the per-edge style does not have.
        torch.manual_seed(case.seed)
        conv = CrossModalConv(
            [NTYPE],
            [ETYPE],
            num_modalities=case.M,
            hidden_size=case.H * case.D,
            num_heads=case.H,
            combine=case.combine,
            scale_modal=False,
            relation_reduce="mean",
            message_activation="none",
            kv_dtype=kv_dtype,
        )
    theirs = _official_named(problem.weights)
    with torch.no_grad():
        for name, (parameter, row) in _named(conv).items():
            if name in theirs:
                value, place = theirs[name]
                (parameter if row is None else parameter[row]).copy_(value if place is None else value[place])
    return conv.eval().to(case.device)


def _named(conv: CrossModalConv) -> dict[str, tuple[Tensor, int | None]]:
    """Return the parameters under names that both formulations can be asked for, each whole or one row of it."""
    (node,), (relation,) = conv.nodes.values(), conv.relations.values()
    named: dict[str, tuple[Tensor, int | None]] = {name: (x, None) for name, x in node.named_parameters()}
    for name, x in relation.named_parameters():
        rows = range(conv.num_modalities) if name == "modal" else [None]
        named |= {name if row is None else f"modal.{row}": (x, row) for row in rows}
    return named


def _official_named(conv: OfficialStyleConv) -> dict[str, tuple[Tensor, int | None]]:
    named: dict[str, tuple[Tensor, int | None]] = {}
    for name in "kqva":
        (linear,) = getattr(conv, f"{name}_linears")
        named |= {f"{name}.weight": (linear.weight, None), f"{name}.bias": (linear.bias, None)}
    if conv.norms is not None:
        named |= {f"norm.{name}": (x, None) for name, x in conv.norms[0].named_parameters()}
    named |= {"skip": (conv.skip, 0), "prior": (conv.relation_pri, 0)}
    named |= {"node": (conv.relation_att, 0), "message": (conv.relation_msg, 0)}
    return named | {f"modal.{m}": (conv.crossmodal.w_m[f"modal_{m}"], 0) for m in range(conv.num_modalities)}
