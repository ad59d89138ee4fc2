"""Checks of a graph's content against its schema; every finding is collected before anything is raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import Problem, first_problems, unknown_name
from hgmm.graph.schema import PRESENT_SUFFIX, GraphSchema
from hgmm.triples import TripleSet

__all__ = ["graph_problems"]


def graph_problems(
    g: Any,
    schema: GraphSchema,
    node_ids: Mapping[str, Sequence[str]],
    node_names: Mapping[str, Sequence[str]],
    triples: TripleSet | None = None,
) -> list[Problem]:
    """Return everything in which a DGL graph and its ids differ from what the schema says.

    Parameters
    ----------
    g : dgl.DGLGraph
        The graph with features, masks, labels and splits in its frames.
    schema : GraphSchema
        What it shall consist of.
    node_ids, node_names : mapping of str to sequence of str
        External ids and display names by node type.
    triples : TripleSet, optional
        Of a knowledge graph.

    Returns
    -------
    list of Problem
        Empty if all is well.
    """
    problems = list(_structure(g, schema))
    if problems:
        return problems
    for ntype in schema.ntypes:
        problems += _features(g, schema, ntype)
        problems += _ids(ntype, g.num_nodes(ntype), node_ids, node_names)
    problems += _unknown_types(schema, node_ids, node_names)
    problems += _ends(g, schema)
    problems += _labels(g, schema)
    problems += _relations(g, schema)
    if triples is not None:
        problems += _triples(g, schema, triples)
    return problems


def _out_of_range(where: str, numbers: Tensor, known: str, count: int) -> list[Problem]:
    if not numbers.numel() or 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        return []
    return [Problem("out of range", where, f"ids go from {int(numbers.min())} to {int(numbers.max())}, {known}")]


def _structure(g: Any, schema: GraphSchema) -> Iterator[Problem]:
    if set(g.ntypes) != set(schema.ntypes):
        text = f"the graph has {sorted(g.ntypes)}, the schema {sorted(schema.ntypes)}"
        yield Problem("other node types", "node types", text)
    if set(g.canonical_etypes) != set(schema.canonical_etypes):
        text = f"the graph has {sorted(g.canonical_etypes)}, the schema {sorted(schema.canonical_etypes)}"
        yield Problem("other edge types", "edge types", text)


def _ends(g: Any, schema: GraphSchema) -> Iterator[Problem]:
    """Find node numbers that DGL lets pass, negative ones among them: kernels would read foreign memory."""
    for etype in schema.canonical_etypes:
        ends = g.edges(order="eid", etype=etype)
        for what, ntype, numbers in (("source", etype[0], ends[0]), ("destination", etype[2], ends[1])):
            count = g.num_nodes(ntype)
            yield from _out_of_range(f"edge type {etype!r} {what}", numbers, f"{ntype!r} has {count} nodes", count)


def _unknown_types(
    schema: GraphSchema, node_ids: Mapping[str, Sequence[str]], node_names: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    for what, table in (("node_ids", node_ids), ("node_names", node_names)):
        for ntype in table:
            if ntype not in schema.ntypes:
                yield Problem("unknown node type", what, unknown_name("node type", ntype, schema.ntypes))


def _features(g: Any, schema: GraphSchema, ntype: str) -> Iterator[Problem]:
    data = g.nodes[ntype].data
    for modality, spec in schema.modalities[ntype].items():
        where = f"{ntype}.{modality}"
        values = data.get(modality)
        if values is None:
            yield Problem("no features", where, f"the schema lists it, but g.nodes[{ntype!r}].data has no {modality!r}")
            continue
        if values.ndim != 2 or values.shape[1] != spec.width:
            shape = tuple(values.shape)
            yield Problem("wrong width", where, f"the schema says (N, {spec.width}), the features are {shape}")
        elif not values.is_floating_point():
            yield Problem("wrong dtype", where, f"features must be floating point, got {values.dtype}")
        else:
            yield from _not_finite(where, values)
        mask = data.get(modality + PRESENT_SUFFIX)
        if mask is not None and (mask.dtype != torch.bool or mask.ndim != 1):
            text = f"must be (N,) bool, got {tuple(mask.shape)} {mask.dtype}"
            yield Problem("wrong mask", where + PRESENT_SUFFIX, text)


def _not_finite(where: str, values: Tensor) -> Iterator[Problem]:
    if bool(torch.isfinite(values.sum())):
        return
    cells: list[list[int]] = torch.nonzero(~torch.isfinite(values)).tolist()
    yield from first_problems(
        "not finite",
        cells,
        lambda cell: (where, f"row {cell[0]} column {cell[1]} is {values[cell[0], cell[1]].item()}"),
    )


def _ids(
    ntype: str, num_nodes: int, node_ids: Mapping[str, Sequence[str]], node_names: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    for what, table in (("node_ids", node_ids), ("node_names", node_names)):
        names = table.get(ntype)
        if names is not None and len(names) != num_nodes:
            yield Problem("wrong length", f"{what}[{ntype!r}]", f"{len(names)} entries for {num_nodes} nodes")
        strange = [name for name in names or () if not isinstance(name, str)]
        if strange:
            text = f"must hold text, got {strange[0]!r}"
            yield Problem("not text", f"{what}[{ntype!r}]", text, count=len(strange))
            return
    if len(set(node_ids[ntype])) < len(node_ids[ntype]):
        repeated = [(name, count) for name, count in Counter(node_ids[ntype]).items() if count > 1]
        yield from first_problems(
            "duplicate id",
            repeated,
            lambda found: (f"node type {ntype!r}", f"id {found[0]!r} stands for {found[1]} nodes"),
        )


def _labels(g: Any, schema: GraphSchema) -> Iterator[Problem]:
    if schema.target is None:
        return
    data = g.nodes[schema.target].data
    label = data.get("label")
    if label is not None:
        if label.dtype != torch.int64 or label.ndim != 1:
            yield Problem("wrong labels", "label", f"must be (N,) int64, got {tuple(label.shape)} {label.dtype}")
            return
        last = schema.num_classes - 1
        yield from first_problems(
            "label out of range",
            _rows((label < -1) | (label > last)),
            lambda row: ("label", f"row {row} is {int(label[row])}; labels go from 0 to {last}, -1 means none"),
        )
    masks = {name: data[f"{name}_mask"] for name in ("train", "val", "test") if f"{name}_mask" in data}
    wrong = {name for name, mask in masks.items() if mask.dtype != torch.bool or mask.ndim != 1}
    for name in sorted(wrong):
        mask = masks[name]
        yield Problem("wrong mask", f"{name}_mask", f"must be (N,) bool, got {tuple(mask.shape)} {mask.dtype}")
    if masks and not wrong:
        yield from _splits(masks, label)


def _splits(masks: Mapping[str, Tensor], label: Tensor | None) -> Iterator[Problem]:
    stacked = torch.stack([mask.long() for mask in masks.values()])

    def overlap(row: int) -> tuple[str, str]:
        return f"row {row}", f"it is in {' and in '.join(name for name, mask in masks.items() if bool(mask[row]))}"

    yield from first_problems("overlapping splits", _rows(stacked.sum(0) > 1), overlap)
    for name, mask in masks.items():
        yield from _unlabelled(f"{name}_mask", mask if label is None else mask & (label < 0))


def _unlabelled(where: str, mask: Tensor) -> list[Problem]:
    return first_problems("split without label", _rows(mask), lambda row: (where, f"row {row} has no label"))


def _rows(mask: Tensor) -> list[int]:
    return torch.nonzero(mask)[:, 0].tolist()


def _relations(g: Any, schema: GraphSchema) -> Iterator[Problem]:
    if not schema.relations:
        return
    for etype in schema.canonical_etypes:
        relation = g.edges[etype].data.get("relation")
        if relation is None:
            yield Problem("no relation", f"edge type {etype!r}", "edges of a knowledge graph need the data 'relation'")
        else:
            count = len(schema.relations)
            yield from _out_of_range(f"edge type {etype!r} relation", relation, f"known are {count}", count)


def _triples(g: Any, schema: GraphSchema, triples: TripleSet) -> Iterator[Problem]:
    if len(schema.ntypes) != 1 or len(schema.canonical_etypes) != 1:
        text = f"triples need one node type and one edge type, got {schema.ntypes} and {schema.canonical_etypes}"
        yield Problem("no knowledge graph", "triples", text)
        return
    if g.num_nodes() != triples.num_entities:
        text = f"{triples.num_entities} entities in the vocabulary, {g.num_nodes()} nodes in the graph"
        yield Problem("wrong length", "triples", text)
    if schema.relations != triples.relation_vocab:
        text = f"{triples.num_relations} relations in the vocabulary, others in the schema ({len(schema.relations)})"
        yield Problem("other relations", "triples", text)
    relation = g.edata.get("relation")
    if relation is not None and not torch.equal(edge_triples(g), triples.train.to(g.device)):
        text = f"the {g.num_edges()} edges must be the {len(triples.train)} training triples in the order of their rows"
        yield Problem("other edges", "triples", text)


def edge_triples(g: Any) -> Tensor:
    """Return ``(E, 3)`` int64 rows (head, relation, tail) of a knowledge graph's edges, in their order."""
    head, tail = g.edges(order="eid")
    return torch.stack([head, g.edata["relation"], tail], dim=1)
