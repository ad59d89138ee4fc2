"""What a node classifier reads from graphs and blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import ConfigError, SchemaError
from hgmm.graph.multimodal import MultimodalGraph, present_mask
from hgmm.graph.schema import GraphSchema
from hgmm.nn.functional import num_source_rows
from hgmm.typing import NodeDict

__all__ = ["layer_graphs", "read_frames", "read_inputs"]


def layer_graphs(where: str, graph: Any, num_layers: int) -> list[Any]:
    """Return the graph of each layer: one graph for all, or a block each.

    Raises
    ------
    ConfigError
        The number of blocks is not the number of layers.
    """
    if isinstance(graph, MultimodalGraph):
        graph = graph.g
    if not isinstance(graph, list | tuple):
        return [graph] * num_layers
    if len(graph) != num_layers:
        raise ConfigError(
            f"{where}, graph: the model has {num_layers} layers, got {len(graph)} blocks; sample one block a layer"
        )
    return list(graph)


def read_inputs(
    where: str, graph: Any, schema: GraphSchema, device: torch.device
) -> tuple[dict[str, dict[str, Tensor]], NodeDict]:
    """Read features and presence of the source nodes from the frames.

    Raises
    ------
    SchemaError
        The graph has an unknown type, or lacks a declared feature.
    """
    features: dict[str, dict[str, Tensor]] = {}
    present = {}
    for ntype, frame in _source_frames(graph):
        schema.check_ntype(ntype)
        features[ntype] = {}
        for name in schema.widths(ntype):
            if name not in frame:
                raise SchemaError(
                    f"{where}, graph: node type {ntype!r} has no feature {name!r}, got {sorted(frame)}; "
                    "put the features of the schema into the graph's frames"
                )
            features[ntype][name] = frame[name].to(device)
        present[ntype] = present_mask(frame, schema, ntype, num_source_rows(graph, ntype), graph.device).to(device)
    return features, present


def read_frames(where: str, graph: Any, name: str, device: torch.device) -> NodeDict:
    """Read from the frames of the source nodes what the model's ``prepare`` has put there.

    Raises
    ------
    SchemaError
        The graph was not prepared.
    """
    result = {}
    for ntype, frame in _source_frames(graph):
        if name not in frame:
            raise SchemaError(
                f"{where}, graph: node type {ntype!r} has no data {name!r}, got {sorted(frame)}; pass, or sample from, "
                "the graph that the model's prepare(graph) returns"
            )
        result[ntype] = frame[name].to(device)
    return result


def _source_frames(graph: Any) -> Iterator[tuple[str, Any]]:
    """Go through the node types of the source nodes and their frames."""
    # In a graph whose types are all either sources or destinations DGL lists only the former in srctypes.
    for ntype in graph.srctypes if graph.is_block else graph.ntypes:
        yield ntype, (graph.srcnodes if graph.is_block else graph.nodes)[ntype].data
