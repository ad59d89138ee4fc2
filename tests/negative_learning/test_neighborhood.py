from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.graph.csc import build_csc
from hgmm.negative_learning import NeighborReference, class_compatibility, neighbor_reference
from hgmm.typing import RelationCSC
from tests.oracles_negative_learning import count_compatibility, neighbor_average
from tests.tolerances import close

NODES, CLASSES = 30, 4
Edges = list[tuple[int, int]]


def csc_of(edges: Edges, num_src: int = NODES, num_dst: int = NODES) -> RelationCSC:
    src, dst = (torch.tensor([e[k] for e in edges], dtype=torch.int64) for k in (0, 1))
    return build_csc(src, dst, num_src=num_src, num_dst=num_dst)[0]


class Graph:
    """Two relations with self-loops and double edges, in which node 0 has no neighbour and node 1 only itself."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(5)
        ends = torch.randint(2, NODES, (2, 90), generator=generator).T.tolist()
        edges = [(j, i) for j, i in ends] + [(k, k) for k in range(1, 8)] + [(4, 5), (4, 5)]
        self.edges = [edges, [(i, j) for j, i in edges[:40]]]
        self.relations = [csc_of(e) for e in self.edges]
        self.probabilities = torch.randn(NODES, CLASSES, generator=generator, dtype=torch.float64).softmax(1).to(dtype)
        self.labels = torch.randint(CLASSES, (NODES,), generator=generator)
        self.known = torch.rand(NODES, generator=generator) < 0.5
        self.labels[~self.known] = -100

    @property
    def nodes(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.probabilities, self.labels, self.known


@pytest.mark.parametrize("num_relations", [1, 2])
@pytest.mark.parametrize("with_table", [False, True], ids=["plain", "compatibility"])
def test_equals_the_definition(num_relations: int, with_table: bool) -> None:
    x = Graph()
    table = torch.rand(CLASSES, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edges = [e for relation in x.edges[:num_relations] for e in relation]
    given = table if with_table else None
    expected, has_neighbors = neighbor_average(
        edges, NODES, x.probabilities, x.labels.tolist(), x.known.tolist(), given
    )
    found = neighbor_reference(x.relations[:num_relations], *x.nodes, compatibility=given)
    close(found.expected, expected, torch.float64)
    assert found.has_neighbors.tolist() == has_neighbors
    assert found.has_neighbors[:3].tolist() == [False, False, True]
    if not with_table:
        torch.testing.assert_close(found.expected.sum(1), found.has_neighbors.double())


def test_one_relation_needs_no_list() -> None:
    x = Graph()
    one, several = (neighbor_reference(r, *x.nodes) for r in (x.relations[0], x.relations[:1]))
    assert one.expected.equal(several.expected)


def test_self_loops_count_if_they_are_kept() -> None:
    x = Graph()
    x.known[1], x.labels[1] = True, 2
    kept = neighbor_reference(x.relations, *x.nodes, drop_self_loops=False)
    assert kept.has_neighbors[:2].tolist() == [False, True]
    assert kept.expected[1].tolist() == [0, 0, 1, 0]
    loopless = [csc_of([e for e in edges if e[0] != e[1]]) for edges in x.edges]
    dropped = neighbor_reference(x.relations, *x.nodes)
    plain = neighbor_reference(loopless, *x.nodes, drop_self_loops=False)
    torch.testing.assert_close(dropped.expected, plain.expected)
    assert dropped.has_neighbors.equal(plain.has_neighbors)


def test_a_node_does_not_see_its_own_label() -> None:
    x = Graph()
    before = neighbor_reference(x.relations, *x.nodes)
    row = int(x.known.nonzero()[-1])
    x.labels[row] = (x.labels[row] + 1) % CLASSES
    after = neighbor_reference(x.relations, *x.nodes)
    assert after.expected[row].equal(before.expected[row])
    assert not after.expected.equal(before.expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_block_gives_the_values_of_the_graph(dtype: torch.dtype) -> None:
    x = Graph(dtype)
    seeds = [9, 0, 17, 4, 1]
    full = neighbor_reference(x.relations, *x.nodes).rows(torch.tensor(seeds))
    # The destinations come first among a block's sources.
    chosen = [[(j, i) for j, i in edges if i in seeds] for edges in x.edges]
    sources = seeds + sorted({j for edges in chosen for j, _ in edges} - set(seeds))
    place = {node: k for k, node in enumerate(sources)}
    blocks = [csc_of([(place[j], place[i]) for j, i in edges], len(sources), len(seeds)) for edges in chosen]
    rows = torch.tensor(sources)
    block = neighbor_reference(blocks, *(part[rows] for part in x.nodes))
    torch.testing.assert_close(block.expected, full.expected, rtol=0, atol=1e-6)
    assert block.has_neighbors.equal(full.has_neighbors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_computes_in_float32(dtype: torch.dtype) -> None:
    x = Graph(dtype)
    found = neighbor_reference(x.relations, *x.nodes).expected
    assert found.dtype == torch.float32
    close(found, neighbor_reference(x.relations, x.probabilities.double(), x.labels, x.known).expected, torch.float32)


def test_inputs_stay_as_they_are() -> None:
    x = Graph()
    before = [part.clone() for part in x.nodes]
    x.probabilities.requires_grad_()
    assert not neighbor_reference(x.relations, *x.nodes).expected.requires_grad
    for part, copy in zip(x.nodes, before, strict=True):
        assert part.equal(copy)


def test_no_edges_and_no_nodes() -> None:
    x = Graph()
    found = neighbor_reference(csc_of([]), *x.nodes)
    assert found.expected.eq(0).all()
    assert not found.has_neighbors.any()
    empty = neighbor_reference(csc_of([], NODES, 0), *x.nodes)
    assert empty.expected.shape == (0, CLASSES)


@pytest.mark.parametrize("drop_self_loops", [True, False])
def test_compatibility_equals_the_definition(drop_self_loops: bool) -> None:
    x = Graph()
    x.known &= x.labels != 3
    x.known[1], x.labels[1] = True, 2
    edges = [e for relation in x.edges for e in relation if drop_self_loops or e[0] != e[1]]
    relations = x.relations if drop_self_loops else [csc_of([e for e in r if e[0] != e[1]]) for r in x.edges]
    expected = count_compatibility(edges, x.labels.tolist(), x.known.tolist(), CLASSES)
    found = class_compatibility(relations, x.labels, x.known, CLASSES, drop_self_loops=drop_self_loops)
    close(found, expected, torch.float64)
    assert found[3].tolist() == [0, 0, 0, 1]
    with_loops = class_compatibility(x.relations, x.labels, x.known, CLASSES, drop_self_loops=False)
    assert with_loops.diagonal().sum() > found.diagonal().sum()


def test_compatibility_finds_the_class_where_neighbours_differ() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0])
    known = torch.tensor([True] * 4 + [False])
    edges = [(j, i) for j in range(4) for i in range(4) if labels[j] != labels[i]] + [(1, 4), (3, 4)]
    csc = csc_of(edges, 5, 5)
    table = class_compatibility(csc, labels, known, 2)
    found = neighbor_reference(csc, torch.full((5, 2), 0.5), labels, known, compatibility=table)
    assert found.expected[4].tolist() == [1, 0]


def test_wrong_labels() -> None:
    x = Graph()
    row = int(x.known.nonzero()[2])
    x.labels[row] = CLASSES
    with pytest.raises(ConfigError, match=rf"neighbor_reference, labels: classes lie in \[0, 4\), got 4 in row {row}"):
        neighbor_reference(x.relations, *x.nodes)
    with pytest.raises(ConfigError, match=rf"class_compatibility, labels: .* got 4 in row {row}"):
        class_compatibility(x.relations, x.labels, x.known, CLASSES)


def test_wrong_shapes() -> None:
    x = Graph()

    def fails(message: str, relations: Any = x.relations, *nodes: Tensor, **given: Any) -> None:
        with pytest.raises(ShapeError, match=message):
            neighbor_reference(relations, *(nodes or x.nodes), **given)

    fails("relations: expected at least one RelationCSC, got none", [])
    fails(r"same \(N_src, N_dst\).*, got \[\(30, 30\), \(31, 30\)\]", [x.relations[0], csc_of([], 31)])
    fails(r"the first N_dst sources being the destinations, got \[\(30, 31\)\]", csc_of([], NODES, 31))
    fails(r"probabilities: expected shape \(30, C\), got \(29, 4\)", x.relations, x.probabilities[1:], *x.nodes[1:])
    fails(r"labels: expected shape \(30,\), got \(29,\)", x.relations, x.probabilities, x.labels[1:], x.known)
    fails(r"labels: expected dtype int64, got int32", x.relations, x.probabilities, x.labels.int(), x.known)
    fails(r"known: expected shape \(30,\), got \(29,\)", x.relations, x.probabilities, x.labels, x.known[1:])
    fails(r"known: expected dtype bool, got int64", x.relations, x.probabilities, x.labels, x.known.long())
    fails(r"compatibility: expected shape \(4, 4\), got \(3, 3\)", compatibility=torch.eye(3))


def test_rows() -> None:
    reference = NeighborReference(torch.arange(6.0).view(3, 2), torch.tensor([True, False, True]))
    found = reference.rows(torch.tensor([2, 1]))
    assert found.expected.tolist() == [[4, 5], [2, 3]]
    assert found.has_neighbors.tolist() == [True, False]
