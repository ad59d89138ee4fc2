from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, ShapeError
from hgmm.sampling import ENDS, LinkNegativeSampler

USERS, ITEMS = 12, 30
BUYS, LIKES, LINKS = ("user", "buys", "item"), ("user", "likes", "item"), ("item", "links", "item")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shop(idtype: torch.dtype = torch.int64) -> Any:
    """User 0 buys all items but one; likes are other edges between the same types."""
    draws = [torch.randint(n, (60,), generator=rng(n)) for n in (USERS - 1, ITEMS)]
    edges = {
        BUYS: (
            torch.cat([torch.zeros(ITEMS - 1).long(), draws[0] + 1]),
            torch.cat([torch.arange(ITEMS - 1), draws[1]]),
        ),
        LIKES: (torch.arange(USERS), torch.arange(USERS)),
        LINKS: (torch.arange(ITEMS), (torch.arange(ITEMS) + 1) % ITEMS),
    }
    return dgl.heterograph(edges, {"user": USERS, "item": ITEMS}, idtype=idtype)


def ids_of(g: Any) -> dict[Any, Tensor]:
    return {etype: torch.arange(g.num_edges(etype), dtype=g.idtype) for etype in g.canonical_etypes}


def pairs(src: Tensor, dst: Tensor) -> set[tuple[int, int]]:
    return set(zip(src.tolist(), dst.tolist(), strict=True))


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("end", ENDS)
def test_no_negative_is_an_edge_of_its_type(end: str, idtype: torch.dtype) -> None:
    g, K = shop(idtype), 9
    for etype, (src, dst) in LinkNegativeSampler(K, end=end, generator=rng())(g, ids_of(g)).items():
        assert src.dtype == dst.dtype == idtype
        assert src.numel() == dst.numel() == K * g.num_edges(etype)
        assert not pairs(src, dst) & pairs(*g.edges(etype=etype))
        u, v = (x.repeat_interleave(K) for x in g.edges(order="eid", etype=etype))
        kept = {"dst": u == src, "src": v == dst}.get(end, (u == src) ^ (v == dst))
        assert bool(kept.all())
        assert int(src.max()) < g.num_nodes(etype[0])
        assert int(dst.max()) < g.num_nodes(etype[2])


def test_edges_of_another_type_may_be_negatives() -> None:
    g = shop()
    src, dst = LinkNegativeSampler(40, generator=rng())(g, {"likes": torch.arange(USERS)})[LIKES]
    assert pairs(src, dst) & pairs(*g.edges(etype=BUYS))
    # All but one item are bought by user 0, and nobody but the sampler knows which.
    src, dst = LinkNegativeSampler(3, generator=rng())(g, {"buys": torch.arange(5)})[BUYS]
    assert set(dst.tolist()) == {ITEMS - 1}


def test_further_known_edges_are_refused_and_without_a_filter_the_own_one_only() -> None:
    g = shop()
    known = {LIKES: (torch.zeros(ITEMS - 2).long(), torch.arange(1, ITEMS - 1))}
    _, dst = LinkNegativeSampler(20, known=known, generator=rng())(g, {"likes": torch.tensor([0])})[LIKES]
    assert set(dst.tolist()) == {ITEMS - 1}
    _, dst = LinkNegativeSampler(300, filtered=False, known=known, generator=rng())(g, {"likes": torch.tensor([0])})[
        LIKES
    ]
    assert set(dst.tolist()) == set(range(1, ITEMS))


def test_bernoulli_replaces_the_end_that_seldom_makes_an_edge() -> None:
    g = dgl.graph((torch.zeros(40).long(), torch.arange(40)), num_nodes=50)
    src, _ = LinkNegativeSampler(20, end="bernoulli", generator=rng())(g, torch.arange(40))
    # One source by destination and forty destinations by source.
    assert abs(float((src != 0).double().mean()) - 40 / 41) < 0.02


def test_calls_differ_and_repeat_with_the_seed() -> None:
    g, ids = shop(), {"links": torch.arange(ITEMS)}
    first, again = (LinkNegativeSampler(5, generator=rng(3)) for _ in range(2))
    one = first(g, ids)[LINKS][1]
    assert torch.equal(one, again(g, ids)[LINKS][1])
    assert not torch.equal(one, first(g, ids)[LINKS][1])
    torch.manual_seed(4)
    default = LinkNegativeSampler(5)(g, ids)[LINKS][1]
    torch.manual_seed(4)
    assert torch.equal(default, LinkNegativeSampler(5)(g, ids)[LINKS][1])


def test_a_graph_that_is_changed_in_place_is_indexed_again() -> None:
    g = dgl.graph(([0], [1]), num_nodes=4)
    sampler = LinkNegativeSampler(50, generator=rng())
    assert set(sampler(g, torch.tensor([0]))[1].tolist()) == {0, 2, 3}
    g.add_edges([0, 0], [0, 3])
    assert set(sampler(g, torch.tensor([0]))[1].tolist()) == {2}


def test_a_pickled_sampler_draws_the_same() -> None:
    g, ids = shop(), {"links": torch.arange(ITEMS)}
    sampler = LinkNegativeSampler(5)
    sampler(g, ids)
    found = []
    for one in (sampler, pickle.loads(pickle.dumps(sampler))):
        torch.manual_seed(1)
        found.append(one(g, ids)[LINKS][1])
    assert torch.equal(*found)


def test_dgl_calls_it_for_each_batch() -> None:
    g = shop()
    sampler = dgl.dataloading.as_edge_prediction_sampler(
        dgl.dataloading.NeighborSampler([3]), negative_sampler=LinkNegativeSampler(4, generator=rng())
    )
    seen = 0
    for part in range(3):
        seeds = {etype: ids[part::3] for etype, ids in ids_of(g).items()}
        _, positive, negative, _ = sampler.sample(g, seeds)
        for etype in g.canonical_etypes:
            assert negative.num_edges(etype) == 4 * positive.num_edges(etype)
            src, dst = negative.edges(etype=etype)
            original = negative.nodes[etype[0]].data[dgl.NID][src], negative.nodes[etype[2]].data[dgl.NID][dst]
            assert not pairs(*original) & pairs(*g.edges(etype=etype))
            seen += positive.num_edges(etype)
    assert seen == g.num_edges()


def test_wrong_arguments() -> None:
    g = shop()
    with pytest.raises(ConfigError, match=r"num_negs_per_pos: must be a whole number .* got 0"):
        LinkNegativeSampler(0)
    with pytest.raises(ConfigError, match=r"end: unknown end 'tail'; known: bernoulli, both, dst, src"):
        LinkNegativeSampler(1, end="tail")
    with pytest.raises(ShapeError, match=r"eids: a graph of several edge types needs .* got a tensor and 3 types"):
        LinkNegativeSampler(1)(g, torch.tensor([0]))
    one = torch.tensor([0])
    for known, error, message in (
        (
            {("user", "buy", "item"): (one, one)},
            ConfigError,
            r"known: unknown canonical edge type .*'buy'.*Did you mean",
        ),
        ({BUYS: (one, torch.tensor([0, 1]))}, ShapeError, r"one length for .*'buys'.* got \(1,\) and \(2,\)"),
        ({BUYS: (one, torch.tensor([ITEMS]))}, ConfigError, r"nodes of type 'item' lie in \[0, 30\), got 30"),
    ):
        with pytest.raises(error, match=message):
            LinkNegativeSampler(1, known=known)(g, {"buys": one})


def test_a_node_that_is_joined_to_all_others_names_the_relation() -> None:
    g = dgl.heterograph({BUYS: ([0, 0, 0], [0, 1, 2]), LIKES: ([0], [0])}, {"user": 2, "item": 3})
    with pytest.raises(
        ConfigError, match=r"relation \"\('user', 'buys', 'item'\)\", every other tail makes a known one"
    ):
        LinkNegativeSampler(2)(g, {"buys": torch.tensor([1])})
