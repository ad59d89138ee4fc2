"""The operators under test: the same problem for every provider, and what each provider makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hgmm import kernels
from hgmm.dgl_compat import dgl
from hgmm.graph.csc import build_csc
from hgmm.typing import RelationCSC

__all__ = ["DEGREES", "OPERATORS", "PROVIDERS", "Case", "Problem", "gather_seconds", "make_problem", "missing", "step"]

OPERATORS = ("cross_modal_attention", "inter_node_attention", "neighbor_mean")
PROVIDERS = ("hgmm-cpu", "hgmm-cpu-bf16", "hgmm-triton", "reference", "dgl", "pyg")
DEGREES = ("uniform", "power")
EDGES_PER_NODE = 10
# Zipf weights rank^-0.75 on both sides, as many real relations have them.
POWER = -0.75


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


def make_problem(case: Case, dtype: torch.dtype = torch.float32) -> Problem:
    """Draw a relation and its tensors: keys, queries (two for cross_modal_attention) and values, or rows."""
    rng = np.random.default_rng(case.seed)
    n = case.num_nodes
    weights = np.ones(n) if case.degrees == "uniform" else np.arange(1, n + 1) ** POWER
    weights /= weights.sum()
    src, dst = (torch.from_numpy(rng.permutation(n)[rng.choice(n, case.num_edges, p=weights)]) for _ in range(2))
    csc, _ = build_csc(src, dst, num_src=n, num_dst=n)
    csc = RelationCSC(*(x.to(case.device) for x in csc))
    draw = torch.Generator().manual_seed(case.seed)
    count = {"cross_modal_attention": 4, "inter_node_attention": 3, "neighbor_mean": 1}[case.op]
    shape = (n, case.M, case.H * case.D) if count == 1 else (n, case.M, case.H, case.D)
    # Logits of deviation one.
    leaves = [torch.randn(shape, generator=draw) * (1 if count == 1 else case.D**-0.25) for _ in range(count)]
    present = torch.rand(n, case.M, generator=draw) < 0.8 if case.masked else None
    return Problem(
        case,
        csc,
        tuple(x.to(case.device, dtype).requires_grad_() for x in leaves),
        None if present is None else present.to(case.device),
        torch.randn(shape, generator=draw).to(case.device, dtype),
    )


def missing(provider: str, case: Case) -> str | None:
    """Return why a provider cannot run a case here, None if it can."""
    if provider in ("dgl", "pyg") and case.masked:
        return "has no presence mask"
    if provider == "dgl" and case.device != "cpu":
        return "DGL from PyPI has no CUDA"
    if provider == "dgl" and case.combine not in ("product", "sum"):
        return f"combine={case.combine} is not composed of its operators here"
    if provider == "pyg":
        if find_spec("torch_geometric") is None:
            return "torch_geometric is not installed: pip install 'hgmm[pyg]'"
        return None if case.op != "cross_modal_attention" else "has no counterpart of this operator"
    if provider == "hgmm-cpu-bf16" and case.op == "neighbor_mean":
        return "has no half storage apart from the result's"
    backend = _BACKENDS.get(provider)
    if backend is None:
        return None
    if (case.device == "cpu") != (backend == "cpu") and backend != "reference":
        return f"does not run on {case.device}"
    for candidate in kernels.OPERATORS[case.op]:
        if candidate.name == backend:
            return "; ".join(candidate.unavailable_reasons()) or None
    return f"{case.op} has no backend {backend}"


_BACKENDS = {"hgmm-cpu": "cpu", "hgmm-cpu-bf16": "cpu", "hgmm-triton": "triton", "reference": "reference"}


@contextmanager
def _backend(name: str) -> Iterator[None]:
    before = os.environ.get("HGMM_BACKEND")
    os.environ["HGMM_BACKEND"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["HGMM_BACKEND"]
        else:
            os.environ["HGMM_BACKEND"] = before


def step(provider: str, problem: Problem) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that clears the gradients and runs the forward pass; it gives result and its gradient."""
    forward = _forward(provider, problem)

    def run() -> tuple[Tensor, Tensor]:
        for leaf in problem.leaves:
            leaf.grad = None
        return forward(), problem.grad

    return run


def _forward(provider: str, problem: Problem) -> Callable[[], Tensor]:
    if provider == "dgl":
        return _dgl(problem)
    if provider == "pyg":
        return _pyg(problem)
    backend, op = _BACKENDS[provider], problem.case.op
    half = provider == "hgmm-cpu-bf16"
    # Storing the rows is part of the step: their float32 originals are what a layer's projection gives.
    stored = (lambda x: x.bfloat16()) if half else (lambda x: x)
    csc, present, case = problem.csc, problem.present, problem.case

    def run() -> Tensor:
        with _backend(backend):
            if op == "neighbor_mean":
                return kernels.neighbor_mean(csc, problem.leaves[0], present=present)
            if op == "inter_node_attention":
                k, q, v = problem.leaves
                return kernels.inter_node_attention(csc, stored(k), q, stored(v), present=present).out
            k, q_node, q_modal, v = problem.leaves
            return kernels.cross_modal_attention(
                csc, stored(k), q_node, q_modal, stored(v), present=present, combine=case.combine
            ).out

    return run


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


def gather_seconds(problem: Problem) -> Mapping[str, Callable[[], Any]]:
    """Return ways to sum random rows of 2 F numbers over the same edges: the best is the honest ceiling."""
    case, csc = problem.case, problem.csc
    table = torch.randn(case.num_nodes, 2 * case.M * case.H * case.D, device=case.device)
    bag = torch.nn.functional.embedding_bag
    ways: dict[str, Callable[[], Any]] = {
        "embedding_bag": lambda: bag(csc.indices, table, csc.indptr, mode="sum", include_last_offset=True)
    }
    if missing("hgmm-cpu", Case("neighbor_mean", *(case.num_edges, case.degrees, 1, 1, 1), device=case.device)) is None:
        rows = table.unsqueeze(1)

        def own() -> Tensor:
            with _backend("cpu"):
                return kernels.neighbor_sum(csc, rows)

        ways["neighbor_sum"] = own
    return ways
