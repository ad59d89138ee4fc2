from __future__ import annotations

import pytest
import torch

from hgmm.dgl_compat import dgl
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.training.target_neighbors import TargetNeighbors
from tests.oracles_negative_learning import (
    count_compatibility,
    neighbor_average,
    two_step_average,
    two_step_joins,
)
from tests.tolerances import close

CPU = torch.device("cpu")
FILMS = 8
Edges = list[tuple[int, int]]
PLAYS: Edges = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 1), (4, 2), (4, 2), (5, 3)]
WROTE: Edges = [(5, 0), (6, 0)]
LIKE: Edges = [(0, 1), (1, 1), (6, 2)]


def films(*, like: Edges | None = None, back: bool = True) -> MultimodalGraph:
    """Films with actors (two relations each way) and writers; film 7 has nobody."""
    relations = {("film", "with", "actor"): PLAYS, ("film", "by", "writer"): WROTE}
    if back:
        relations |= {("actor", "in", "film"): [(b, k) for k, b in PLAYS], ("writer", "of", "film"): [(0, 5), (0, 6)]}
    if like is not None:
        relations[("film", "like", "film")] = like
    sizes = {"film": FILMS, "actor": 4, "writer": 1}
    g = dgl.heterograph(
        {
            etype: tuple(torch.tensor([e[k] for e in edges], dtype=torch.int64) for k in (0, 1))
            for etype, edges in relations.items()
        },
        num_nodes_dict=sizes,
    )
    g.nodes["film"].data["text"] = torch.ones(FILMS, 2)
    g.nodes["film"].data["label"] = torch.arange(FILMS) % 3
    schema = GraphSchema(
        ("film", "actor", "writer"),
        tuple(relations),
        {"film": {"text": ModalitySpec("text", 2)}},
        target="film",
        classes=("a", "b", "c"),
    )
    return MultimodalGraph(g, schema)


PROBABILITIES = torch.randn(FILMS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
LABELS = torch.arange(FILMS) % 3
KNOWN = torch.arange(FILMS) % 2 == 0


def test_edges_between_targets_are_followed() -> None:
    neighbors = TargetNeighbors(films(like=LIKE), CPU)
    assert (len(neighbors.direct), len(neighbors.two_step)) == (1, 0)
    expected, has = neighbor_average(LIKE, FILMS, PROBABILITIES, LABELS.tolist(), KNOWN.tolist())
    found = neighbors.reference(PROBABILITIES, LABELS, KNOWN, None)
    close(found.expected, expected, torch.float64)
    assert found.has_neighbors.tolist() == has
    table = count_compatibility(LIKE, LABELS.tolist(), KNOWN.tolist(), 3)
    close(neighbors.compatibility(LABELS, KNOWN, 3), table, torch.float64)


@pytest.mark.parametrize("like", [None, [], [(0, 0), (3, 3)]], ids=["no relation", "no edge", "self-loops"])
def test_otherwise_paths_of_two_steps(like: Edges | None) -> None:
    neighbors = TargetNeighbors(films(like=like), CPU)
    assert (len(neighbors.direct), len(neighbors.two_step)) == (0, 2)
    paths = [(edges, [(b, k) for k, b in edges]) for edges in (PLAYS, WROTE)]
    expected, has = two_step_average(paths, PROBABILITIES, LABELS.tolist(), KNOWN.tolist())
    found = neighbors.reference(PROBABILITIES, LABELS, KNOWN, None)
    close(found.expected, expected, torch.float64)
    # Films 4 and 7 meet nobody.
    assert has == [True, True, True, True, False, True, True, False] == found.has_neighbors.tolist()
    table = two_step_joins(paths, LABELS.tolist(), KNOWN.tolist(), 3)
    close(neighbors.compatibility(LABELS, KNOWN, 3), table, torch.float64)


def test_without_a_way_back_there_are_no_neighbours() -> None:
    assert not TargetNeighbors(films(back=False), CPU)


@pytest.mark.parametrize("like", [None, LIKE], ids=["two steps", "direct"])
def test_only_those_heard_matter(like: Edges | None) -> None:
    neighbors = TargetNeighbors(films(like=like), CPU)
    asked = torch.arange(FILMS) == 2 if like is None else torch.arange(FILMS) == 1
    heard = neighbors.heard_by(asked)
    assert heard.nonzero().flatten().tolist() == ([0, 1, 2, 3] if like is None else [0, 1])
    before = neighbors.reference(PROBABILITIES, LABELS, ~KNOWN & KNOWN, None).expected[asked]
    other = PROBABILITIES.where(heard.unsqueeze(1), 1 / 3)
    close(neighbors.reference(other, LABELS, ~KNOWN & KNOWN, None).expected[asked], before, torch.float64)
