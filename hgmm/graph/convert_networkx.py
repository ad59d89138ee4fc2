"""From and to NetworkX."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hgmm.errors import Problem, unknown_name
from hgmm.graph.builder import GraphBuilder
from hgmm.graph.multimodal import SPLITS, MultimodalGraph

__all__ = ["from_networkx", "to_networkx"]

DEFAULT_TYPE = "node"
DEFAULT_RELATION = "edge"


def to_networkx(graph: MultimodalGraph) -> nx.MultiDiGraph:
    """Return the graph as a ``MultiDiGraph``.

    Parameters
    ----------
    graph : MultimodalGraph
        The graph; a large one becomes slow and big in this form.

    Returns
    -------
    networkx.MultiDiGraph
        Nodes ``(ntype, id)`` with the attributes ``ntype``, ``id``, ``name`` if there is one, a vector for each
        modality that the node has, and ``label`` (class name) and ``split`` where known. Edges have the attribute
        ``etype``. ``target``, ``classes`` and ``kinds`` are attributes of the graph. Types without nodes and relations
        without edges leave no trace.
    """
    kinds = {name: spec.kind for specs in graph.schema.modalities.values() for name, spec in specs.items()}
    result = nx.MultiDiGraph(
        name=graph.name, target=graph.schema.target, classes=list(graph.schema.classes), kinds=kinds
    )
    keys = {ntype: [(ntype, name) for name in graph.node_ids[ntype]] for ntype in graph.schema.ntypes}
    for ntype in graph.schema.ntypes:
        attributes = _attributes(graph, ntype)
        result.add_nodes_from(zip(keys[ntype], attributes, strict=True))
    for etype in graph.schema.canonical_etypes:
        src, dst = (ends.tolist() for ends in graph.g.edges(order="eid", etype=etype))
        starts, stops = keys[etype[0]], keys[etype[2]]
        result.add_edges_from(((starts[i], stops[j]) for i, j in zip(src, dst, strict=True)), etype=etype[1])
    return result


def _attributes(graph: MultimodalGraph, ntype: str) -> list[dict[str, Any]]:
    ids = graph.node_ids[ntype]
    attributes: list[dict[str, Any]] = [{"ntype": ntype, "id": name} for name in ids]
    for row, name in enumerate(graph.node_names.get(ntype, ())):
        attributes[row]["name"] = name
    present = graph.present(ntype)
    for modality, values in graph.features(ntype).items():
        table = values.detach().cpu().numpy()
        column = graph.schema.modality_names.index(modality)
        for row in present[:, column].nonzero()[:, 0].tolist():
            attributes[row][modality] = table[row]
    if ntype == graph.schema.target:
        labels = graph.labels
        for row in (labels >= 0).nonzero()[:, 0].tolist():
            attributes[row]["label"] = graph.schema.classes[int(labels[row])]
        for split in SPLITS:
            for row in graph.split(split).tolist():
                attributes[row]["split"] = split
    return attributes


def from_networkx(
    graph: nx.Graph,
    *,
    target: str | None = None,
    modalities: Mapping[str, Mapping[str, Any]] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> MultimodalGraph:
    """Take a NetworkX graph whose nodes and edges say their types.

    Parameters
    ----------
    graph : networkx.Graph
        Directed or not, with parallel edges or not; an undirected edge becomes one in each direction. Node attributes:
        ``ntype`` (default ``node``), ``id`` (default: the node itself as text), ``name``, ``label``, ``split``. Every
        attribute that holds vectors (arrays, tensors, lists of numbers) is a modality, absent where a node lacks it.
        Edge attribute: ``etype`` (default ``edge``). Other attributes of edges are left out.
    target : str, optional
        The node type that carries labels. Default: ``graph.graph["target"]``, else the first type with ``label``.
    modalities : mapping of str to mapping, optional
        Modalities from other attributes, by node type, as in `GraphBuilder.add_nodes`; an attribute is a column.
    classes : sequence of str, optional
        Class names. Default: ``graph.graph["classes"]``, else the sorted distinct labels.
    name : str, optional
        Default: the name of `graph`, else ``graph``.

    Raises
    ------
    DataError
        If anything is wrong with the attributes; all problems are listed.

    Examples
    --------
    >>> graph = nx.Graph()
    >>> graph.add_node("a", ntype="item", numeric=[1.0, 2.0])
    >>> graph.add_node("b", ntype="user")
    >>> graph.add_edge("a", "b", etype="bought_by")
    >>> from_networkx(graph).schema.canonical_etypes
    (('item', 'bought_by', 'user'), ('user', 'bought_by', 'item'))
    """
    problems: list[Problem] = []
    types: dict[str, list[Any]] = defaultdict(list)
    for node, ntype in graph.nodes(data="ntype", default=DEFAULT_TYPE):
        types[str(ntype)].append(node)
    for ntype in modalities or {}:
        if ntype not in types:
            problems.append(Problem("unknown node type", "modalities", unknown_name("node type", ntype, types)))
    stored = graph.graph
    builder = GraphBuilder(
        target or stored.get("target"),
        classes=classes or stored.get("classes"),
        name=name or stored.get("name") or "graph",
    )
    ids: dict[Any, str] = {}
    for ntype, nodes in types.items():
        frame = pd.DataFrame([dict(graph.nodes[node]) for node in nodes], dtype=object)
        own = [str(graph.nodes[node].get("id", node)) for node in nodes]
        ids.update(zip(nodes, own, strict=True))
        frame["id"] = pd.Series(own, dtype=object)
        builder.add_nodes(
            ntype,
            frame,
            id="id",
            name="name" if "name" in frame else None,
            label="label" if "label" in frame else None,
            split="split" if "split" in frame else None,
            **_vector_modalities(ntype, frame, (modalities or {}).get(ntype, {}), stored.get("kinds", {}), problems),
        )
    for etype, ends in _relations(graph, ids).items():
        builder.add_edges(etype, pd.DataFrame(ends, columns=["src", "dst"], dtype=object), src="src", dst="dst")
    return builder.build(problems=problems)


def _relations(graph: nx.Graph, ids: Mapping[Any, str]) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    relations: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    directed = graph if graph.is_directed() else graph.to_directed(as_view=True)
    kinds = {node: str(ntype) for node, ntype in graph.nodes(data="ntype", default=DEFAULT_TYPE)}
    for start, stop, relation in directed.edges(data="etype", default=DEFAULT_RELATION):
        relations[kinds[start], str(relation), kinds[stop]].append((ids[start], ids[stop]))
    return relations


def _vector_modalities(
    ntype: str, frame: pd.DataFrame, given: Mapping[str, Any], kinds: Mapping[str, str], problems: list[Problem]
) -> dict[str, Any]:
    """Return `modalities` and `present` for `add_nodes`: the given ones, and one for each attribute of vectors."""
    modalities: dict[str, Any] = dict(given)
    present: dict[str, NDArray[np.bool_]] = {}
    for attribute in frame.columns:
        cells = frame[attribute]
        has = np.array([_is_vector(cell) for cell in cells], dtype=bool)
        if attribute in given or not has.any():
            continue
        vectors = [np.asarray(cell, dtype=np.float32) for cell in cells[has]]
        widths = sorted({vector.shape[0] for vector in vectors})
        if len(widths) > 1:
            text = f"its vectors have different widths: {', '.join(map(str, widths))}"
            problems.append(Problem("wrong width", f"attribute {attribute!r} of {ntype!r}", text))
            continue
        array = np.zeros((len(frame), widths[0]), dtype=np.float32)
        array[has] = np.stack(vectors)
        modalities[attribute] = {"array": array, **({"kind": kinds[attribute]} if attribute in kinds else {})}
        present[attribute] = has
    return {"modalities": modalities, "present": present}


def _is_vector(cell: Any) -> bool:
    if isinstance(cell, np.ndarray | torch.Tensor):
        return cell.ndim == 1
    return isinstance(cell, list | tuple) and bool(cell) and all(isinstance(part, int | float) for part in cell)
