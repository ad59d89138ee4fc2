from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch

from hgmm.graph import MultimodalGraph, from_tensors, read_folder, summarize


def test_counts_coverage_and_classes(shop: Path) -> None:
    summary = summarize(read_folder(shop))
    item, user = summary.nodes
    assert (item.ntype, item.count, item.isolated) == ("item", 9, 5)
    assert {m.name: m.coverage_percent for m in item.modalities} == pytest.approx(
        {"numeric": 800 / 9, "text": 800 / 9, "categorical": 800 / 9, "image": 300 / 9, "photo": 300 / 9}
    )
    assert [m.name for m in user.modalities] == ["structure"]
    assert [(edge.canonical_etype, edge.count) for edge in summary.edges] == [
        (("user", "buys", "item"), 5),
        (("item", "bought_by", "user"), 5),
    ]
    assert summary.edges[0].out_degree == (1, 1, 2, 2, 2, 2)
    assert summary.edges[0].in_degree == (0, 0, 0, 1, 1, 2)
    assert [(c.name, c.count, c.train, c.val, c.test) for c in summary.classes] == [
        ("hat", 4, 2, 1, 1),
        ("shoe", 4, 2, 1, 1),
    ]
    assert summary.unlabelled == 1
    assert summary.splits == {"train": 4, "val": 2, "test": 2}
    json.dumps(summary.to_dict())


def test_homophily_counts_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 3, (30,), generator=generator)
    src, joint = torch.randint(0, 30, (80,), generator=generator), torch.randint(0, 9, (80,), generator=generator)
    ends = torch.randint(0, 30, (2, 50), generator=generator)
    graph = from_tensors(
        {"a": 30, "b": 9},
        {("a", "in", "b"): (src, joint), ("a", "to", "a"): (ends[0], ends[1])},
        target="a",
        labels=labels,
    )
    by_joint: dict[int, set[int]] = {}
    for node, place in zip(src.tolist(), joint.tolist(), strict=True):
        if labels[node] >= 0:
            by_joint.setdefault(place, set()).add(node)
    pairs = [pair for nodes in by_joint.values() for pair in combinations(nodes, 2)]
    direct = [(i, j) for i, j in ends.T.tolist() if i != j and labels[i] >= 0 and labels[j] >= 0]

    def ratio(found: list[tuple[int, int]]) -> float:
        return sum(bool(labels[i] == labels[j]) for i, j in found) / len(found)

    two_hops, one_hop = summarize(graph).homophily
    assert (two_hops.hops, two_hops.pairs, two_hops.ratio) == (2, len(pairs), pytest.approx(ratio(pairs)))
    assert (one_hop.hops, one_hop.pairs, one_hop.ratio) == (1, len(direct), pytest.approx(ratio(direct)))
    known = [node for node in range(30) if labels[node] >= 0]
    assert summarize(graph).chance == pytest.approx(ratio(list(combinations(known, 2))))


def test_a_graph_without_target_and_an_empty_type() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    summary = summarize(from_tensors({"a": 2, "b": 0}, {("a", "to", "b"): (none, none)}))
    assert summary.target is None
    assert summary.chance is None
    assert summary.homophily == summary.classes == ()
    assert summary.nodes[1].count == 0
    assert summary.edges[0].in_degree == ()
    assert summary.splits == {"train": 0, "val": 0, "test": 0}


def test_labels_without_any_known(small_graph: MultimodalGraph) -> None:
    small_graph.g.nodes["item"].data["label"] = torch.full((12,), -1)
    summary = summarize(small_graph)
    assert summary.unlabelled == 12
    assert summary.chance is None
    assert summary.homophily == ()
