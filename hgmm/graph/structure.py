"""Features for node types that have none: degrees by relation and random numbers tied to the external id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hgmm.graph.hashing import mix64, unit_numbers
from hgmm.graph.schema import STRUCTURE, GraphSchema

__all__ = ["NUM_RANDOM", "STRUCTURE_SOURCE", "id_noise", "renew_structure", "structure_features"]

NUM_RANDOM = 16

STRUCTURE_SOURCE = "log degrees by relation, random numbers by id"
"""The `ModalitySpec.source` of what `structure_features` returns."""


def id_noise(ids: Sequence[str], *, seed: int, width: int) -> Tensor:
    """Return standard normal numbers that depend on nothing but the seed and each node's external id.

    A node keeps its numbers when the graph grows or is reordered, which row numbers would not give.

    Parameters
    ----------
    ids : sequence of str
        External ids of ``N`` nodes.
    seed : int
        Chooses the family of numbers.
    width : int
        Numbers a node.

    Returns
    -------
    Tensor
        ``(N, width)`` float32.
    """
    if not len(ids):
        return torch.zeros(0, width)
    digest = b"".join(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in ids)
    keys = np.frombuffer(digest, dtype="<u8").reshape(-1, 1)
    with np.errstate(over="ignore"):
        bits = mix64(keys + np.arange(1, 2 * width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    uniform = unit_numbers(bits)
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, :width]))
    return torch.from_numpy((radius * np.cos(2.0 * np.pi * uniform[:, width:])).astype(np.float32))


def structure_features(graph: Any, ntype: str, ids: Sequence[str], *, seed: int = 0) -> Tensor:
    """Return the modality ``structure`` of one node type.

    Parameters
    ----------
    graph : dgl.DGLGraph
        The heterograph.
    ntype : str
        The node type.
    ids : sequence of str
        External ids of its ``N`` nodes.
    seed : int, optional
        Seed of the random part.

    Returns
    -------
    Tensor
        ``(N, R + 16)`` float32: ``log(1 + degree)`` for each of the ``R`` relations that touch the type (in-degree for
        relations that end here, out-degree for those that start here and end elsewhere), then 16 numbers of `id_noise`.
    """
    columns = []
    for etype in graph.canonical_etypes:
        if etype[2] == ntype:
            columns.append(graph.in_degrees(etype=etype))
        elif etype[0] == ntype:
            columns.append(graph.out_degrees(etype=etype))
    noise = id_noise(ids, seed=seed, width=NUM_RANDOM)
    if not columns:
        return noise
    return torch.cat([torch.log1p(torch.stack(columns, dim=1).float()).cpu(), noise], dim=1)


def renew_structure(g: Any, schema: GraphSchema, node_ids: Mapping[str, Sequence[str]]) -> None:
    """Compute in place what node types without features got from their degrees, after the edges have changed."""
    for ntype, specs in schema.modalities.items():
        if list(specs) == [STRUCTURE] and specs[STRUCTURE].source == STRUCTURE_SOURCE:
            g.nodes[ntype].data[STRUCTURE] = structure_features(g, ntype, node_ids[ntype]).to(g.device)
