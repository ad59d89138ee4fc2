"""Bring a new graph into the form that a trained model knows: same types, relations, modalities and classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import DataError, Problem, SchemaError, raise_problems, unknown_name
from hgmm.graph import GraphSchema, MultimodalGraph
from hgmm.graph.multimodal import SPLITS
from hgmm.graph.schema import PRESENT_SUFFIX, STRUCTURE
from hgmm.graph.structure import structure_features

__all__ = ["conform"]


def conform(graph: MultimodalGraph, schema: GraphSchema, transforms: Mapping[str, Any]) -> MultimodalGraph:
    """Return a graph with exactly the types, relations, modalities and classes of `schema`.

    What the graph lacks is added empty: types without nodes, relations without edges, modalities that nobody has.
    Labels are matched by class name; a label of an unknown class counts as none.

    Parameters
    ----------
    graph : MultimodalGraph
        Any nodes and edges. Not changed.
    schema : GraphSchema
        The trained model's.
    transforms : mapping
        What was fitted for the trained model, as in `MultimodalGraph.transforms`.

    Raises
    ------
    SchemaError
        If the graph has a type, relation or modality that the model has not seen, or another width or target.
    DataError
        If features were fitted on other data than the model's.
    """
    hint = "A trained model can do without something, but not with something new: train on a graph that has it."
    where = f"graph {graph.name!r} for the trained model"
    raise_problems(_problems(graph, schema), where=where, error=SchemaError, hint=hint)
    _check_transforms(graph, schema, transforms)
    if graph.schema == schema:
        return graph
    g = _with_all_types(graph, schema)
    for ntype in schema.ntypes:
        _fill_features(g, graph, schema, ntype)
    if schema.target in graph.schema.ntypes:
        _match_labels(g.nodes[schema.target].data, graph, schema)
    return MultimodalGraph(
        g,
        schema,
        node_ids=graph.node_ids,
        node_names=graph.node_names,
        source=graph.source,
        transforms=graph.transforms,
        name=graph.name,
    )


def _problems(graph: MultimodalGraph, schema: GraphSchema) -> Iterator[Problem]:
    for ntype in graph.schema.ntypes:
        if ntype not in schema.ntypes:
            yield Problem("unknown node type", "node types", unknown_name("node type", ntype, schema.ntypes))
    for etype in graph.schema.canonical_etypes:
        if etype not in schema.canonical_etypes:
            known = ", ".join(map(str, schema.canonical_etypes))
            yield Problem("unknown edge type", "edge types", f"{etype!r} is not one of: {known}")
    if schema.target not in graph.schema.ntypes or graph.schema.target not in (None, schema.target):
        text = f"the model predicts {schema.target!r}, the graph's target is {graph.schema.target!r}"
        yield Problem("other target", "target", text)
    for ntype in graph.schema.ntypes:
        known_specs = schema.modalities.get(ntype)
        if known_specs is None:
            continue
        for name, spec in graph.schema.modalities[ntype].items():
            where = f"node type {ntype!r}"
            if _made_here(graph, ntype, name):
                continue
            if name not in known_specs:
                yield Problem("unknown modality", where, unknown_name("modality", name, known_specs))
            elif spec.width != known_specs[name].width:
                text = f"modality {name!r} has {spec.width} columns here and {known_specs[name].width} in the model"
                yield Problem("other width", where, text)


def _made_here(graph: MultimodalGraph, ntype: str, modality: str) -> bool:
    """Say whether it is the `structure` that a type without features gets; its width follows the graph's relations."""
    return modality == STRUCTURE and list(graph.schema.modalities[ntype]) == [STRUCTURE]


def _check_transforms(graph: MultimodalGraph, schema: GraphSchema, transforms: Mapping[str, Any]) -> None:
    def differs(ntype: str, modality: str) -> bool:
        here, there = graph.transforms.get(ntype, {}).get(modality), transforms.get(ntype, {}).get(modality)
        # JSON makes lists of tuples; what was stored and what was just fitted must compare equal.
        return here is not None and there is not None and json.dumps(here) != json.dumps(there)

    problems = [
        Problem("fitted on other data", f"{ntype}.{modality}", "its numbers mean something else than in training")
        for ntype in graph.schema.ntypes
        for modality in schema.modalities[ntype]
        if differs(ntype, modality)
    ]
    hint = "Load the folder with the run's transforms: run.load_graph(FOLDER), or hgmm predict RUN --dataset FOLDER"
    raise_problems(problems, where=f"graph {graph.name!r} for the trained model", error=DataError, hint=hint)


def _with_all_types(graph: MultimodalGraph, schema: GraphSchema) -> Any:
    nothing = torch.empty(0, dtype=torch.int64)
    known = graph.schema.canonical_etypes
    edges = {
        etype: graph.g.edges(etype=etype, order="eid") if etype in known else (nothing, nothing)
        for etype in schema.canonical_etypes
    }
    counts = {ntype: graph.num_nodes(ntype) if ntype in graph.schema.ntypes else 0 for ntype in schema.ntypes}
    return dgl.heterograph(edges, num_nodes_dict=counts, device=graph.g.device)


def _fill_features(g: Any, graph: MultimodalGraph, schema: GraphSchema, ntype: str) -> None:
    data = g.nodes[ntype].data
    num_nodes = g.num_nodes(ntype)
    given = graph.schema.modalities.get(ntype, {})
    for name, spec in schema.modalities[ntype].items():
        if name == STRUCTURE and list(schema.modalities[ntype]) == [STRUCTURE]:
            data[name] = structure_features(g, ntype, graph.node_ids.get(ntype, [])).to(g.device)
        elif name in given:
            frame = graph.g.nodes[ntype].data
            data[name] = frame[name]
            if name + PRESENT_SUFFIX in frame:
                data[name + PRESENT_SUFFIX] = frame[name + PRESENT_SUFFIX]
        else:
            data[name] = torch.zeros(num_nodes, spec.width, device=g.device)
            data[name + PRESENT_SUFFIX] = torch.zeros(num_nodes, dtype=torch.bool, device=g.device)


def _match_labels(data: Any, graph: MultimodalGraph, schema: GraphSchema) -> None:
    if graph.schema.target is None or not graph.schema.classes:
        return
    index = {name: number for number, name in enumerate(schema.classes)}
    # The last entry is what label -1 picks.
    table = torch.tensor([*(index.get(name, -1) for name in graph.schema.classes), -1], device=graph.g.device)
    labels: Tensor = table[graph.labels]
    data["label"] = labels
    for name in SPLITS:
        mask = graph.g.nodes[graph.target].data.get(f"{name}_mask")
        if mask is not None:
            data[f"{name}_mask"] = mask & (labels >= 0)
