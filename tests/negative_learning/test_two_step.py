from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.graph.csc import build_csc
from hgmm.negative_learning import (
    TwoStepRelation,
    two_step_compatibility,
    two_step_reference,
    two_step_relation,
)
from hgmm.typing import RelationCSC
from tests.oracles_negative_learning import two_step_average, two_step_joins
from tests.tolerances import close

NODES, CLASSES = 20, 4
Edges = list[tuple[int, int]]


def csc_of(edges: Edges, num_src: int, num_dst: int) -> RelationCSC:
    src, dst = (torch.tensor([e[k] for e in edges], dtype=torch.int64) for k in (0, 1))
    return build_csc(src, dst, num_src=num_src, num_dst=num_dst)[0]


class Graph:
    """Two types between, with double edges; node 0 meets nobody, node 1 only itself; a hub where most meet."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.edges: list[tuple[Edges, Edges]] = []
        for middles in (6, 3):
            nodes = torch.randint(2, NODES, (30,), generator=generator).tolist()
            between = torch.randint(1, middles, (30,), generator=generator).tolist()
            inward = list(zip(nodes, between, strict=True))
            inward += inward[:3]
            outward = [(b, k) for k, b in inward[4:]] + [(1, 2), (2, 3), (2, 3)]
            self.edges.append(([*inward, (1, 0), (1, 0)], [*outward, (0, 1)]))
        self.relations = [
            two_step_relation(csc_of(inward, NODES, middles), csc_of(outward, middles, NODES))
            for (inward, outward), middles in zip(self.edges, (6, 3), strict=True)
        ]
        self.probabilities = torch.randn(NODES, CLASSES, generator=generator, dtype=torch.float64).softmax(1)
        self.labels = torch.randint(CLASSES, (NODES,), generator=generator)
        self.known = torch.rand(NODES, generator=generator) < 0.5
        self.labels[~self.known] = -100

    @property
    def nodes(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.probabilities, self.labels, self.known


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("with_table", [False, True], ids=["plain", "compatibility"])
def test_equals_the_definition(count: int, with_table: bool) -> None:
    x = Graph()
    table = torch.rand(CLASSES, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = table if with_table else None
    expected, has_neighbors = two_step_average(x.edges[:count], x.probabilities, x.labels.tolist(), x.known.tolist())
    found = two_step_reference(x.relations[:count], *x.nodes, compatibility=given)
    close(found.expected, expected if given is None else expected @ given, torch.float64)
    assert found.has_neighbors.tolist() == has_neighbors
    assert found.has_neighbors[:3].tolist() == [False, False, True]
    if not with_table:
        torch.testing.assert_close(found.expected.sum(1), found.has_neighbors.double())


def test_a_node_sees_neither_its_own_label_nor_its_own_posterior() -> None:
    x = Graph()
    before = two_step_reference(x.relations, *x.nodes).expected
    for row in (int(x.known.nonzero()[-1]), int((~x.known).nonzero()[-1])):
        changed = Graph()
        if changed.known[row]:
            changed.labels[row] = (changed.labels[row] + 1) % CLASSES
        else:
            changed.probabilities[row] = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
        after = two_step_reference(changed.relations, *changed.nodes).expected
        close(after[row], before[row], torch.float64)
        assert (after - before).abs().max() > 1e-3


def test_single_precision_is_as_good_as_its_own_rounding() -> None:
    x = Graph()
    found = two_step_reference(x.relations, x.probabilities.float(), x.labels, x.known).expected
    assert found.dtype == torch.float32
    close(found, two_step_reference(x.relations, *x.nodes).expected, torch.float32)
    assert found.min() >= 0


def test_compatibility_equals_the_definition() -> None:
    x = Graph()
    expected = two_step_joins(x.edges, x.labels.tolist(), x.known.tolist(), CLASSES)
    close(two_step_compatibility(x.relations, x.labels, x.known, CLASSES), expected, torch.float64)
    nobody = torch.zeros_like(x.known)
    assert two_step_compatibility(x.relations, x.labels, nobody, CLASSES).equal(torch.eye(CLASSES).double())


def test_without_edges_nobody_has_neighbours() -> None:
    relation = two_step_relation(csc_of([], NODES, 3), csc_of([(0, 1)], 3, NODES))
    x = Graph()
    found = two_step_reference([relation], *x.nodes)
    assert not found.has_neighbors.any()
    assert not found.expected.any()


def wrong(relations: list[TwoStepRelation] | None = None, **changes: Any) -> object:
    x = Graph()
    given = {"probabilities": x.probabilities, "labels": x.labels, "known": x.known, **changes}
    return two_step_reference(x.relations if relations is None else relations, **given)


def other_size() -> TwoStepRelation:
    return two_step_relation(csc_of([(0, 0)], 7, 2), csc_of([(0, 0)], 2, 7))


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (
            lambda: two_step_relation(csc_of([(0, 0)], 5, 2), csc_of([(0, 0)], 2, 6)),
            r"outward: expected the nodes of inward in reverse, \(2, 5\), got \(2, 6\)",
        ),
        (lambda: wrong([]), r"relations: expected at least one, .*, got \[\]"),
        (lambda: wrong([*Graph().relations, other_size()]), r"relations: .* the same N .*, got \[20, 20, 7\]"),
        (lambda: wrong(probabilities=torch.ones(3, 4)), r"probabilities: expected shape \(20, C\), got \(3, 4\)"),
        (lambda: wrong(labels=torch.zeros(3, dtype=torch.int64)), r"labels: expected shape \(20,\), got \(3,\)"),
        (lambda: wrong(known=torch.zeros(20)), r"known: expected dtype bool, got float32"),
        (lambda: wrong(compatibility=torch.eye(2)), r"compatibility: expected shape \(4, 4\), got \(2, 2\)"),
    ],
)
def test_wrong_shapes(act: Any, match: str) -> None:
    with pytest.raises(ShapeError, match=match):
        act()


def test_labels_outside_the_range() -> None:
    x = Graph()
    x.labels[int(x.known.nonzero()[0])] = 9
    with pytest.raises(ConfigError, match=r"two_step_reference, labels: classes lie in \[0, 4\), got 9 in row"):
        two_step_reference(x.relations, *x.nodes)
    with pytest.raises(ConfigError, match=r"two_step_compatibility, labels: classes lie in \[0, 4\), got 9 in row"):
        two_step_compatibility(x.relations, x.labels, x.known, 4)


def test_errors_of_compatibility_name_it_and_its_own_arguments() -> None:
    x = Graph()
    with pytest.raises(ShapeError, match=r"two_step_compatibility, relations: .*, got \[\]"):
        two_step_compatibility([], x.labels, x.known, 4)
    with pytest.raises(ShapeError, match=r"two_step_compatibility, labels: expected shape \(20,\), got \(19,\)"):
        two_step_compatibility(x.relations, x.labels[1:], x.known, 4)
    with pytest.raises(ShapeError, match=r"two_step_compatibility, known: expected dtype bool, got int64"):
        two_step_compatibility(x.relations, x.labels, x.known.long(), 4)
