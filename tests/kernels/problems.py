"""Leaves and calls of the operators, the same for every compiled backend; tensors move to the device of the leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hgmm.kernels import cross_modal_attention, inter_node_attention, neighbor_mean, neighbor_sum, translational_score
from hgmm.kernels._philox import keep_scale, philox
from hgmm.typing import RelationCSC
from tests.kernels.against_reference import STORAGES, Results
from tests.kernels.cases import Case, generator, node_tensors, presence, relation

ROWS = ("product", "sum", "b1", "poster", "sharp")
BAD = (math.nan, math.inf)
UNIFORM = ((False, False), (True, False), (False, True), (True, True))
FUNCTIONS = {"sum": neighbor_sum, "mean": neighbor_mean}
SEED = torch.tensor(-(2**40) - 17)
CROSS_MODAL: dict[str, Any] = {
    "combine": ROWS,
    "align": (True, False),
    "uniform": UNIFORM,
    "present": ("none", "all", "some"),
    "weighted": (False, True),
}
INTER_NODE: dict[str, Any] = {"present": ("none", "all", "some"), "biased": (False, True), "dropout": (0.0, 0.4)}
NEIGHBORS: dict[str, Any] = {
    "function": tuple(FUNCTIONS),
    "present": ("none", "all", "some"),
    "weight": ("none", "edge", "modality"),
}
NEIGHBOR_DTYPES = {name: dtype for name, (dtype, other) in STORAGES.items() if dtype == other}


def _to(device: torch.device, csc: RelationCSC, mask: Tensor | None) -> tuple[RelationCSC, Tensor | None]:
    return RelationCSC(*(x.to(device) for x in csc)), None if mask is None else mask.to(device)


def cross_modal_leaves(case: Case, storage: str, *, M: int, H: int, D: int, seed: int = 0) -> list[Tensor]:
    kv, q = STORAGES[storage]
    k, q_node, q_modal, v = (x.detach() for x in node_tensors(case, "sdds", M=M, H=H, D=D, seed=seed))
    scale = D**-0.5
    tensors = (k.to(kv), (q_node * scale).to(q), (q_modal * scale).to(q), v.to(kv))
    return [x.requires_grad_() for x in tensors]


def cross_modal_call(
    case: Case,
    *,
    M: int,
    combine: str,
    align: bool = True,
    uniform: tuple[bool, bool] = (False, False),
    present: str = "some",
    weighted: bool = True,
    index: torch.dtype = torch.int32,
) -> Callable[..., Results]:
    whole, some = relation(case, index), presence(case, present, M=M)
    weight = torch.rand(case.num_src, M, generator=generator(4)).bfloat16() if weighted else None

    def run(*x: Tensor) -> Results:
        csc, mask = _to(x[0].device, whole, some)
        return cross_modal_attention(
            csc,
            *x,
            present=mask,
            lambda_weight=None if weight is None else weight.to(x[1]),
            combine=combine,
            align=align,
            gamma=0.7,
            uniform_nodes=uniform[0],
            uniform_modalities=uniform[1],
        )

    return run


def of_a_lone_source(combine: str, device: torch.device | str = "cpu") -> float:
    """Return the output of modality 1, which source 1 alone has with the value 7.

    Its logits are so low that its beta is about e^-1200 in `b1` and `sharp`.
    """
    k = torch.tensor([[300.0, 0.0], [-300.0, -900.0]]).view(2, 2, 1, 1)
    v = torch.tensor([[2.0, 0.0], [5.0, 7.0]]).view(2, 2, 1, 1)
    q = torch.ones(1, 2, 1, 1)
    mask = torch.tensor([[True, False], [True, True]])
    csc, present = _to(torch.device(device), relation(Case((0, 1), (0, 0), 2, 1)), mask)
    k, q, v = (x.to(device) for x in (k, q, v))
    return float(cross_modal_attention(csc, k, q, q, v, present=present, combine=combine).out[0, 1])


def inter_node_leaves(case: Case, storage: str, *, M: int, H: int, D: int, biased: bool = False) -> list[Tensor]:
    kv, q_dtype = STORAGES[storage]
    k, q, v = (x.detach() for x in node_tensors(case, "sds", M=M, H=H, D=D))
    tensors = [k.to(kv), (q * D**-0.5).to(q_dtype), v.to(kv)]
    if biased:
        tensors.append(torch.randn(len(case.src), M, H, generator=generator(7)).to(q_dtype))
    return [x.requires_grad_() for x in tensors]


def inter_node_call(
    case: Case, *, M: int, present: str = "some", dropout: float = 0.0, index: torch.dtype = torch.int32
) -> Callable[..., Results]:
    whole, some = relation(case, index), presence(case, present, M=M)

    def run(k: Tensor, q: Tensor, v: Tensor, bias: Tensor | None = None) -> Results:
        csc, mask = _to(k.device, whole, some)
        return inter_node_attention(csc, k, q, v, present=mask, edge_bias=bias, dropout=dropout, seed=SEED)

    return run


def dropout_of_one_edge(position: int, dropout: float, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the gradient of the value of a relation's only edge, and the factor of dropout that it must be.

    The backward pass to the sources takes the edge's position from the relation, so it may be larger than any graph.
    """
    csc, _ = _to(torch.device(device), relation(Case((0,), (0,), 1, 1)), None)
    csc = csc._replace(edge_pos_t=torch.full_like(csc.edge_pos_t, position))
    k, q, v = (torch.zeros(1, 2, 5, 1, dtype=torch.float64, device=device, requires_grad=True) for _ in range(3))
    out = inter_node_attention(csc, k, q, v, dropout=dropout, seed=SEED).out
    (grad,) = torch.autograd.grad(out.sum(), v)
    places = torch.tensor([position])
    return grad.cpu().squeeze(3), keep_scale(places, 2, 5, dropout=dropout, seed=int(SEED), dtype=torch.float64)


def dropout_at_a_word() -> float:
    """Return the probability whose limit is the random word of edge 0, modality 0 and head 0."""
    zero, seed = torch.zeros((), dtype=torch.int64), int(SEED)
    return float(philox(zero, zero, zero, zero, seed % 2**32, seed % 2**64 >> 32)[0]) / 2**32


def neighbor_leaves(case: Case, dtype: str, weight: str, *, M: int, D: int) -> list[Tensor]:
    """Features, and positive weights, so that no mean divides by what is left of a cancellation."""
    tensors = [torch.randn(case.num_src, M, D, generator=generator(1), dtype=torch.float64)]
    if weight != "none":
        shape = (len(case.src),) if weight == "edge" else (len(case.src), M)
        tensors.append(torch.rand(shape, generator=generator(2), dtype=torch.float64) + 0.1)
    return [x.to(NEIGHBOR_DTYPES[dtype]).requires_grad_() for x in tensors]


def neighbor_call(
    case: Case, *, M: int, function: str, present: str = "some", index: torch.dtype = torch.int32
) -> Callable[..., Results]:
    whole, some = relation(case, index), presence(case, present, M=M)

    def run(x: Tensor, weight: Tensor | None = None) -> Results:
        csc, mask = _to(x.device, whole, some)
        return (FUNCTIONS[function](csc, x, present=mask, edge_weight=weight),)

    return run


class Draws(NamedTuple):
    """Sizes of a problem of `translational_score`, and whether nearly all draws are of one entity."""

    B: int
    K: int
    N: int
    S: int = 2
    A: int = 2
    one_entity: bool = False


DRAWS = {
    "plain": Draws(5, 7, 6),
    "no-draws": Draws(3, 0, 4),
    "no-rows": Draws(0, 5, 4),
    "no-entities": Draws(3, 0, 0),
    "one-entity": Draws(4, 11, 9, one_entity=True),
    "one-side": Draws(3, 4, 5, S=1, A=1),
    "many-sides": Draws(2, 9, 3, S=4, A=3),
}
TRANSLATIONAL_NORMS: tuple[Any, ...] = (1, 2, "complex")


def translational_leaves(draws: Draws, storage: str, *, M: int, D: int) -> list[Tensor]:
    """Queries and table; entity 0 lies where the first query does, in its first modality and some coordinates."""
    table_dtype, query_dtype = STORAGES[storage]
    rng = generator(1)
    query = torch.randn(draws.B, draws.S, draws.A, D, generator=rng, dtype=torch.float64)
    table = torch.randn(draws.N, M, D, generator=rng, dtype=torch.float64)
    # Whole numbers, which every dtype holds exactly, so that many coordinates are equal on both sides.
    query[..., ::2], table[..., ::2] = query[..., ::2].round(), table[..., ::2].round()
    if draws.B and draws.N:
        query[0, 0, 0] = query[0, 0, 0].bfloat16().double()
        table[0, 0] = query[0, 0, 0]
    return [query.to(query_dtype).requires_grad_(), table.to(table_dtype).requires_grad_()]


def translational_ids(
    draws: Draws, *, M: int, P: int, index: torch.dtype = torch.int64
) -> tuple[Tensor, Tensor, Tensor]:
    """Entities, sides and pairs; the first query's first draw is entity 0 on side 0, its first pair (0, 0)."""
    rng = generator(2)
    entity = torch.randint(max(1, draws.N), (draws.B, draws.K), generator=rng)
    side = torch.randint(draws.S, (draws.B, draws.K), generator=rng)
    if draws.one_entity:
        entity[torch.rand(entity.shape, generator=rng) < 0.9] = draws.N - 2
    entity[:1, :1], side[:1, :1] = 0, 0
    places = [torch.randint(n, (draws.S, P), generator=rng) for n in (draws.A, M)]
    pairs = torch.stack(places, -1)
    pairs[0, 0] = 0
    return entity.to(index), side.to(torch.int8), pairs


def translational_call(
    draws: Draws, *, M: int, P: int, norm: Any, index: torch.dtype = torch.int64
) -> Callable[..., Results]:
    ids = translational_ids(draws, M=M, P=P, index=index)

    def run(query: Tensor, table: Tensor) -> Results:
        return (translational_score(query, table, *(x.to(query.device) for x in ids), norm),)

    return run
