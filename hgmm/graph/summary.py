"""What a graph consists of, in numbers; rendering is left to others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hgmm.graph.multimodal import SPLITS, MultimodalGraph
from hgmm.typing import CanonicalEtype

__all__ = [
    "QUANTILES",
    "ClassBalance",
    "EdgeSummary",
    "GraphSummary",
    "Homophily",
    "ModalitySummary",
    "NodeSummary",
    "summarize",
]

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)
"""Which degree quantiles are reported."""


@dataclass(frozen=True)
class ModalitySummary:
    """One modality of a node type.

    Parameters
    ----------
    name, kind, source : str
        From the schema.
    width : int
        Columns.
    coverage_percent : float
        Nodes that have it, 0 to 100; 0 for a type without nodes.
    """

    name: str
    kind: str
    width: int
    source: str
    coverage_percent: float


@dataclass(frozen=True)
class NodeSummary:
    """One node type.

    Parameters
    ----------
    ntype : str
        The node type.
    count : int
        Nodes.
    isolated : int
        Nodes without any edge.
    modalities : tuple of ModalitySummary
        In schema order.
    """

    ntype: str
    count: int
    isolated: int
    modalities: tuple[ModalitySummary, ...]


@dataclass(frozen=True)
class EdgeSummary:
    """One relation.

    Parameters
    ----------
    canonical_etype : (str, str, str)
        The relation.
    count : int
        Edges.
    out_degree, in_degree : tuple of int
        Degrees of source and destination nodes at `QUANTILES` (the next lower degree); empty without nodes.
    """

    canonical_etype: CanonicalEtype
    count: int
    out_degree: tuple[int, ...]
    in_degree: tuple[int, ...]


@dataclass(frozen=True)
class ClassBalance:
    """One class: labelled nodes in all and in each split.

    Parameters
    ----------
    name : str
        The class.
    count, train, val, test : int
        Nodes.
    """

    name: str
    count: int
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Homophily:
    """How often two labelled target nodes that are connected have the same class.

    Parameters
    ----------
    canonical_etype : (str, str, str)
        A relation with the target at its start: between target nodes, or to another type whose nodes join them.
    hops : int
        1 for an edge between target nodes, 2 for a pair that shares a neighbour.
    ratio : float
        Share of pairs with equal classes; pairs are counted once for each edge or shared neighbour.
    pairs : int
        Number of these pairs.
    """

    canonical_etype: CanonicalEtype
    hops: int
    ratio: float
    pairs: int


@dataclass(frozen=True)
class GraphSummary:
    """Types, counts, coverage, degrees, classes and homophily of a graph; plain data.

    Parameters
    ----------
    name, source, note : str
        Of the graph and its `DataSource`.
    nodes : tuple of NodeSummary
        In schema order.
    edges : tuple of EdgeSummary
        In schema order.
    target : str or None
        The node type that carries labels.
    classes : tuple of ClassBalance
        In label order.
    unlabelled : int
        Target nodes without label.
    splits : dict of str to int
        Sizes of ``train``, ``val`` and ``test``.
    homophily : tuple of Homophily
        Relations in which there is a pair.
    chance : float or None
        Share of equal classes among pairs drawn at random, to compare `homophily` with.
    """

    name: str
    source: str
    note: str
    nodes: tuple[NodeSummary, ...]
    edges: tuple[EdgeSummary, ...]
    target: str | None
    classes: tuple[ClassBalance, ...]
    unlabelled: int
    splits: dict[str, int]
    homophily: tuple[Homophily, ...]
    chance: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def summarize(graph: MultimodalGraph) -> GraphSummary:
    """Count what a graph consists of.

    Parameters
    ----------
    graph : MultimodalGraph
        The graph.

    Returns
    -------
    GraphSummary
    """
    target = graph.schema.target
    labels = None if target is None else graph.labels.cpu()
    splits = {split: graph.split(split).cpu() if target is not None else torch.empty(0) for split in SPLITS}
    return GraphSummary(
        name=graph.name,
        source=graph.source.source,
        note=graph.source.note,
        nodes=tuple(_node_summary(graph, ntype) for ntype in graph.schema.ntypes),
        edges=tuple(_edge_summary(graph, etype) for etype in graph.schema.canonical_etypes),
        target=target,
        classes=() if labels is None else _balance(graph.schema.classes, labels, splits),
        unlabelled=0 if labels is None else int((labels < 0).sum()),
        splits={split: int(chosen.numel()) for split, chosen in splits.items()},
        homophily=() if labels is None else _homophily(graph, labels),
        chance=None if labels is None else _chance(labels),
    )


def _node_summary(graph: MultimodalGraph, ntype: str) -> NodeSummary:
    count = graph.num_nodes(ntype)
    present = graph.present(ntype).cpu().double()
    covered = 100.0 * present.sum(dim=0) / max(count, 1)
    degree = torch.zeros(count, dtype=torch.int64)
    for etype in graph.schema.canonical_etypes:
        if etype[0] == ntype:
            degree += graph.g.out_degrees(etype=etype).cpu()
        if etype[2] == ntype:
            degree += graph.g.in_degrees(etype=etype).cpu()
    modalities = tuple(
        ModalitySummary(name, spec.kind, spec.width, spec.source, float(covered[column]))
        for column, name in enumerate(graph.schema.modality_names)
        if (spec := graph.schema.modalities[ntype].get(name)) is not None
    )
    return NodeSummary(ntype, count, int((degree == 0).sum()), modalities)


def _edge_summary(graph: MultimodalGraph, etype: CanonicalEtype) -> EdgeSummary:
    return EdgeSummary(
        etype,
        int(graph.g.num_edges(etype)),
        _quantiles(graph.g.out_degrees(etype=etype)),
        _quantiles(graph.g.in_degrees(etype=etype)),
    )


def _quantiles(degrees: Tensor) -> tuple[int, ...]:
    if not degrees.numel():
        return ()
    # torch.quantile refuses more than 16 million numbers.
    ordered = degrees.cpu().sort().values
    return tuple(int(ordered[int(share * (ordered.numel() - 1))]) for share in QUANTILES)


def _balance(classes: tuple[str, ...], labels: Tensor, splits: dict[str, Tensor]) -> tuple[ClassBalance, ...]:
    def count(chosen: Tensor) -> list[int]:
        return torch.bincount(chosen[chosen >= 0], minlength=len(classes)).tolist()

    columns = [count(labels), *(count(labels[splits[split]]) for split in SPLITS)]
    return tuple(ClassBalance(name, *counts) for name, *counts in zip(classes, *columns, strict=True))


def _chance(labels: Tensor) -> float | None:
    known = labels[labels >= 0]
    if known.numel() < 2:
        return None
    counts = torch.bincount(known).double()
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1)))


def _homophily(graph: MultimodalGraph, labels: Tensor) -> tuple[Homophily, ...]:
    found = []
    for etype in graph.schema.canonical_etypes:
        if etype[0] != graph.schema.target:
            continue
        src, dst = (ends.cpu() for ends in graph.g.edges(order="eid", etype=etype))
        if etype[2] == etype[0]:
            both = (labels[src] >= 0) & (labels[dst] >= 0) & (src != dst)
            equal, pairs = int((labels[src] == labels[dst])[both].sum()), int(both.sum())
        else:
            equal, pairs = _shared(src, dst, labels)
        if pairs:
            found.append(Homophily(etype, 1 if etype[2] == etype[0] else 2, equal / pairs, pairs))
    return tuple(found)


def _shared(src: Tensor, joint: Tensor, labels: Tensor) -> tuple[int, int]:
    """Return (pairs of equal class, pairs) over all pairs of labelled nodes that share a joint node."""
    known = labels[src] >= 0
    if not bool(known.any()):
        return 0, 0
    # Parallel edges would pair a node with itself.
    links = torch.unique(joint[known] * labels.numel() + src[known])
    joint, label = links // labels.numel(), labels[links % labels.numel()]
    width = int(label.max()) + 1
    of_class = torch.unique(joint * width + label, return_counts=True)[1]
    of_joint = torch.unique(joint, return_counts=True)[1]
    return int((of_class * (of_class - 1) // 2).sum()), int((of_joint * (of_joint - 1) // 2).sum())
