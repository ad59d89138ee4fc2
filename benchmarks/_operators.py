"""The operators under test: the same problem for every provider, and what each provider makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hgmm import kernels
from hgmm.dgl_compat import dgl
from hgmm.graph.csc import build_csc
from hgmm.settings import using_backend
from hgmm.typing import RelationCSC

__all__ = [
    "BACKENDS",
    "DEGREES",
    "HALF",
    "OPERATORS",
    "Case",
    "Problem",
    "Trial",
    "casts",
    "draw_edges",
    "gathers",
    "make_problem",
    "missing",
    "missing_backend",
    "own_backend",
    "trial",
]

OPERATORS = ("cross_modal_attention", "inter_node_attention", "neighbor_mean")
DEGREES = ("uniform", "power")
EDGES_PER_NODE = 10
# Zipf weights rank^-0.75 on both sides, as many real relations have them.
POWER = -0.75
# Providers that are hgmm's own, and the implementation that each of them is.
BACKENDS = {"hgmm-cpu": "cpu", "hgmm-cpu-bf16": "cpu", "hgmm-triton": "triton", "reference": "reference"}
HALF = "hgmm-cpu-bf16"
LEAVES = {
    "cross_modal_attention": ("k", "q_node", "q_modal", "v"),
    "inter_node_attention": ("k", "q", "v"),
    "neighbor_mean": ("x",),
}


@dataclass(frozen=True)
class Case:
    """Sizes of one problem; N = E / 10 nodes on each side."""

    op: str
    num_edges: int
    degrees: str
    M: int
    H: int
    D: int
    combine: str = "product"
    masked: bool = False
    device: str = "cpu"
    seed: int = 0

    @property
    def num_nodes(self) -> int:
        """Nodes on each side."""
        return max(2, self.num_edges // EDGES_PER_NODE)


class Problem(NamedTuple):
    """Inputs of an operator, leaves that want a gradient, and the gradient of the result."""

    case: Case
    csc: RelationCSC
    leaves: tuple[Tensor, ...]
    present: Tensor | None
    grad: Tensor


class Trial(NamedTuple):
    """What a provider makes of a problem.

    Attributes
    ----------
    step : callable
        Clears the gradients and runs the forward pass; gives the result and its gradient.
    gradients : callable
        Gives, after a backward pass, the gradients by name; the names are the same for all providers.
    """

    step: Callable[[], tuple[Tensor, Tensor]]
    gradients: Callable[[], dict[str, Tensor]]


def draw_edges(case: Case) -> tuple[Tensor, Tensor]:
    """Draw both ends of every edge: (E,) each."""
    rng = np.random.default_rng(case.seed)
    n = case.num_nodes
    weights = np.ones(n) if case.degrees == "uniform" else np.arange(1, n + 1) ** POWER
    weights /= weights.sum()
    src, dst = (torch.from_numpy(rng.permutation(n)[rng.choice(n, case.num_edges, p=weights)]) for _ in range(2))
    return src, dst


def make_problem(case: Case, stored: torch.dtype = torch.float32) -> Problem:
    """Draw a relation and its tensors: keys, queries (two for cross_modal_attention) and values, or rows.

    Keys and values, or the rows, are rounded to what `stored` holds exactly.
    """
    n = case.num_nodes
    src, dst = draw_edges(case)
    csc, _ = build_csc(src, dst, num_src=n, num_dst=n)
    csc = RelationCSC(*(x.to(case.device) for x in csc))
    draw = torch.Generator().manual_seed(case.seed)
    count = len(LEAVES[case.op])
    shape = (n, case.M, case.H * case.D) if count == 1 else (n, case.M, case.H, case.D)
    # Logits of deviation one.
    leaves = [torch.randn(shape, generator=draw) * (1 if count == 1 else case.D**-0.25) for _ in range(count)]
    leaves = [x if 0 < i < count - 1 else x.to(stored).float() for i, x in enumerate(leaves)]
    present = torch.rand(n, case.M, generator=draw) < 0.8 if case.masked else None
    return Problem(
        case,
        csc,
        tuple(x.to(case.device).requires_grad_() for x in leaves),
        None if present is None else present.to(case.device),
        torch.randn(shape, generator=draw).to(case.device),
    )


def missing(provider: str, case: Case) -> str | None:
    """Return why a provider cannot run an operator here, None if it can."""
    if provider == "official-style":
        return "is a whole layer, no single operator"
    if provider in ("dgl", "pyg") and case.masked:
        return "has no presence mask"
    if provider == "dgl" and case.device != "cpu":
        return "DGL from PyPI has no CUDA"
    if provider == "dgl" and case.combine not in ("product", "sum"):
        return f"combine={case.combine} is not composed of its operators here"
    if provider == "dgl":
        return None
    if provider == "pyg":
        if find_spec("torch_geometric") is None:
            return "torch_geometric is not installed: pip install 'hgmm[pyg]'"
        return None if case.op != "cross_modal_attention" else "has no counterpart of this operator"
    if provider == HALF and case.op == "neighbor_mean":
        return "has no half storage apart from the result's"
    return missing_backend(BACKENDS[provider], case.op, case.device)


def missing_backend(name: str, op: str, device: str) -> str | None:
    """Return why an implementation of an operator cannot run on a device, None if it can."""
    if (device == "cpu") != (name == "cpu") and name != "reference":
        return f"does not run on {device}"
    for candidate in kernels.OPERATORS[op]:
        if candidate.name == name:
            return "; ".join(candidate.unavailable_reasons()) or None
    return f"{op} has no backend {name}"


def own_backend(device: str) -> str:
    """Return the compiled implementation of a device."""
    return "cpu" if device == "cpu" else "triton"


def trial(provider: str, problem: Problem) -> Trial:
    """Let a provider get ready: what it needs once, such as its own kind of graph, is not timed."""
    leaves = _stored(problem) if provider == HALF else problem.leaves
    forward = {"dgl": _dgl, "pyg": _pyg}[provider] if provider in ("dgl", "pyg") else _hgmm(BACKENDS[provider])
    compute = forward(problem._replace(leaves=leaves))

    def step() -> tuple[Tensor, Tensor]:
        for leaf in leaves:
            leaf.grad = None
        return compute(), problem.grad

    def gradients() -> dict[str, Tensor]:
        named = zip(LEAVES[problem.case.op], leaves, strict=True)
        return {name: leaf.grad.float() for name, leaf in named if leaf.grad is not None}

    return Trial(step, gradients)


def _stored(problem: Problem) -> tuple[Tensor, ...]:
    """Give keys and values as the projection of a layer would hand them over: in bfloat16 already."""
    k, *queries, v = problem.leaves
    return (k.detach().bfloat16().requires_grad_(), *queries, v.detach().bfloat16().requires_grad_())


def casts(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Return what it costs to store keys and values in bfloat16 and to get their gradients back, by mode."""
    k, *_, v = (x.detach() for x in problem.leaves)
    halves = (k.bfloat16(), v.bfloat16())
    return {
        "forward": lambda: (k.bfloat16(), v.bfloat16()),
        "backward": lambda: tuple(x.float() for x in halves),
        "both": lambda: (k.bfloat16(), v.bfloat16(), *(x.float() for x in halves)),
    }


def _hgmm(name: str) -> Callable[[Problem], Callable[[], Tensor]]:
    def forward(problem: Problem) -> Callable[[], Tensor]:
        csc, leaves, present, case = problem.csc, problem.leaves, problem.present, problem.case

        def run() -> Tensor:
            with using_backend(name):
                if case.op == "neighbor_mean":
                    return kernels.neighbor_mean(csc, *leaves, present=present)
                if case.op == "inter_node_attention":
                    return kernels.inter_node_attention(csc, *leaves, present=present).out
                return kernels.cross_modal_attention(csc, *leaves, present=present, combine=case.combine).out

        return run

    return forward


def _dgl(problem: Problem) -> Callable[[], Tensor]:
    """Compose the operator of DGL's own: no tensor of size E x H x D, numbers by edge, modality and head only."""
    csc, case, leaves = problem.csc, problem.case, problem.leaves
    n = case.num_nodes
    edges = ("csc", (csc.indptr, csc.indices, torch.arange(0, dtype=csc.indices.dtype)))
    g = dgl.heterograph({("s", "to", "d"): edges}, num_nodes_dict={"s": n, "d": n})
    g.create_formats_()
    ops, softmax = dgl.ops, dgl.ops.edge_softmax
    if case.op == "neighbor_mean":
        return lambda: ops.copy_u_mean(g, leaves[0])
    if case.op == "inter_node_attention":
        k, q, v = leaves
        return lambda: ops.u_mul_e_sum(g, v, softmax(g, ops.u_dot_v(g, k, q)))
    k, q_node, q_modal, v = leaves

    def run() -> Tensor:
        logits = ops.u_dot_v(g, k, q_node)
        alpha = softmax(g, logits)
        b1 = (torch.softmax(ops.u_dot_v(g, k, q_modal), 1) * alpha).sum(1)
        gaps = [(logits[:, a] - logits[:, b]).abs() for a in range(case.M) for b in range(a + 1, case.M)]
        b2 = softmax(g, -sum(gaps) / len(gaps)) if gaps else softmax(g, torch.zeros_like(b1))
        beta = softmax(g, b1 * b2 if case.combine == "product" else b1 + b2)
        return ops.u_mul_e_sum(g, v, beta.unsqueeze(1))

    return run


def _pyg(problem: Problem) -> Callable[[], Tensor]:
    """Message passing as PyTorch Geometric users write it: gathered rows, its softmax and its scatter."""
    from torch_geometric.utils import scatter, softmax

    csc, case, leaves = problem.csc, problem.case, problem.leaves
    src = csc.indices.long()
    dst = torch.arange(case.num_nodes, device=src.device).repeat_interleave(csc.indptr.diff())
    if case.op == "neighbor_mean":
        return lambda: scatter(leaves[0][src], dst, dim=0, dim_size=case.num_nodes, reduce="mean")
    k, q, v = leaves

    def run() -> Tensor:
        attn = softmax((q[dst] * k[src]).sum(-1), dst, num_nodes=case.num_nodes)
        return scatter(attn.unsqueeze(-1) * v[src], dst, dim=0, dim_size=case.num_nodes, reduce="sum")

    return run


def gathers(case: Case, csc: RelationCSC) -> list[Callable[[], Any]]:
    """Return ways to sum random rows of 2 F numbers over the same edges: the best is the honest ceiling."""
    table = torch.randn(case.num_nodes, 2 * case.M * case.H * case.D, device=case.device)
    bag = torch.nn.functional.embedding_bag
    ways: list[Callable[[], Any]] = [
        lambda: bag(csc.indices, table, csc.indptr, mode="sum", include_last_offset=True),
    ]
    own = own_backend(case.device)
    if missing_backend(own, "neighbor_mean", case.device) is None:
        rows = table.unsqueeze(1)

        def neighbor_sum() -> Tensor:
            with using_backend(own):
                return kernels.neighbor_sum(csc, rows)

        ways.append(neighbor_sum)
    return ways
