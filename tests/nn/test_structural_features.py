from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError
from hgmm.graph.structure import id_noise
from hgmm.nn.structural_features import return_probabilities, structural_features, structural_width
from tests.nn.graphs import EDGES, ETYPES, NTYPES, SIZES, graph

LIKE = ("item", "v1.like", "item")
BUYS = ("user", "buys", "item")
IDS = {ntype: [f"{ntype}{n}" for n in range(SIZES[ntype])] for ntype in NTYPES}


def walk_by_loops(etype: tuple[str, str, str]) -> dict[str, list[list[float]]]:
    """Multiply out the walk's probabilities, one dense matrix over both ends of the relation, 16 times."""
    nodes = [(t, n) for t in dict.fromkeys((etype[0], etype[2])) for n in range(SIZES[t])]
    place = {node: row for row, node in enumerate(nodes)}
    weight = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for j, i in zip(*EDGES[etype], strict=True):
        weight[place[etype[0], j], place[etype[2], i]] += 1
        weight[place[etype[2], i], place[etype[0], j]] += 1
    step = weight / weight.sum(1, keepdim=True).clamp(min=1)
    chance = torch.eye(len(nodes), dtype=torch.float64)
    result: dict[str, list[list[float]]] = {node[0]: [[] for _ in range(SIZES[node[0]])] for node in nodes}
    for steps in range(1, 17):
        chance = chance @ step
        if etype[0] == etype[2] or steps % 2 == 0:
            for (ntype, n), row in place.items():
                result[ntype][n].append(float(chance[row, row]))
    return result


def signs(count: int) -> dict[str, Tensor]:
    return {t: id_noise(IDS[t], seed=3, width=count).sign() for t in NTYPES}


@pytest.mark.parametrize("etype", ETYPES, ids=lambda e: e[1])
def test_all_unit_vectors_give_the_exact_chances(etype: tuple[str, str, str]) -> None:
    found = return_probabilities(graph(), etype, None)
    expected = {t: torch.tensor(rows) for t, rows in walk_by_loops(etype).items()}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("etype", [LIKE, BUYS], ids=lambda e: e[1])
def test_random_signs_estimate_them(etype: tuple[str, str, str]) -> None:
    exact = return_probabilities(graph(), etype, None)
    near = return_probabilities(graph(), etype, signs(4000))
    far = return_probabilities(graph(), etype, signs(8))
    for ntype, values in exact.items():
        torch.testing.assert_close(near[ntype], values, rtol=0, atol=0.06)
        assert (far[ntype] - values).abs().max() > 0.06
        even = slice(1, None, 2) if etype == LIKE else slice(None)
        assert (far[ntype][:, even] >= 0).all()


def test_columns_are_degrees_returns_and_diffused_numbers() -> None:
    features = structural_features(graph(), IDS, ETYPES, num_probes=0)
    assert {t: x.shape for t, x in features.items()} == {t: (SIZES[t], structural_width(ETYPES, t)) for t in NTYPES}
    column = 0
    for etype in ETYPES:
        if "user" in etype:
            ends = EDGES[etype][0 if etype[0] == "user" else 1]
            assert features["user"][:, column].tolist() == pytest.approx([math.log1p(ends.count(n)) for n in range(4)])
            torch.testing.assert_close(features["user"][:, column + 1 : column + 9],
                                       torch.tensor(walk_by_loops(etype)["user"]), rtol=1e-5, atol=1e-6)  # fmt: skip
            column += 9
    assert features["user"][:, column:].shape == (4, 32)


def test_random_numbers_are_diffused_twice() -> None:
    g = dgl.graph(([0, 1, 3], [1, 2, 2]), num_nodes=5)
    ids = {"_N": list("abcde")}
    spread = structural_features(g, ids, g.canonical_etypes)["_N"][:, -32:]
    noise = id_noise(ids["_N"], seed=0, width=32 + 64)[:, :32]
    # Node 2 hears 1, which heard 0, and 3, which heard nobody.
    torch.testing.assert_close(spread[2], noise[0] / 2)
    assert not spread[[0, 1, 3, 4]].any()


def test_a_node_keeps_its_features_when_rows_are_reordered() -> None:
    g = graph()
    order = {t: torch.randperm(SIZES[t], generator=torch.Generator().manual_seed(2)) for t in NTYPES}
    moved = dgl.heterograph(
        {e: tuple(order[t][x] for t, x in zip(e[::2], g.edges(etype=e), strict=True)) for e in ETYPES},
        num_nodes_dict=SIZES,
    )
    ids = {t: [IDS[t][int(n)] for n in order[t].argsort()] for t in NTYPES}
    features, again = structural_features(g, IDS, ETYPES), structural_features(moved, ids, ETYPES)
    torch.testing.assert_close({t: x[order[t]] for t, x in again.items()}, features, rtol=1e-5, atol=1e-6)
    assert not torch.equal(structural_features(g, IDS, ETYPES, seed=1)["item"], features["item"])


def test_a_graph_without_nodes_or_edges() -> None:
    etype = ("a", "to", "b")
    g = dgl.heterograph({etype: ([], [])}, num_nodes_dict={"a": 0, "b": 2})
    features = structural_features(g, {"a": [], "b": ["x", "y"]}, [etype])
    assert features["a"].shape == (0, structural_width([etype], "a"))
    assert not features["b"].any()
    assert structural_features(g, {"a": [], "b": ["x", "y"]}, [etype], num_probes=0)["b"].shape == features["b"].shape


def test_probes_must_not_be_negative() -> None:
    with pytest.raises(ConfigError, match=r"structural_features, num_probes: must be at least 0, got -1"):
        structural_features(graph(), IDS, ETYPES, num_probes=-1)
