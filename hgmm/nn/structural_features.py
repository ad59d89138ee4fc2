"""Features of nodes that come from the edges alone: degrees, returns of random walks, diffused random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hgmm import kernels
from hgmm.errors import ConfigError
from hgmm.graph.csc import relation_csc
from hgmm.graph.structure import id_noise
from hgmm.nn.functional import neighbor_mean
from hgmm.typing import CanonicalEtype, NodeDict, RelationCSC

__all__ = ["id_rows", "return_probabilities", "structural_features", "structural_width"]

NUM_STEPS = 16
RANDOM_SIZE = 32
RANDOM_HOPS = 2
# Columns that are walked at once: wide enough for the kernels, small beside the features.
_COLUMNS = 16


def structural_width(canonical_etypes: Sequence[CanonicalEtype], ntype: str) -> int:
    """Return how many columns `structural_features` gives a node type.

    Examples
    --------
    >>> structural_width([("user", "follows", "user"), ("user", "buys", "item")], "user")
    58
    """
    touching = [etype for etype in canonical_etypes if ntype in (etype[0], etype[2])]
    return sum(1 + len(_steps(etype)) for etype in touching) + RANDOM_SIZE


def structural_features(
    graph: Any,
    node_ids: Mapping[str, Sequence[str]],
    canonical_etypes: Sequence[CanonicalEtype],
    *,
    num_probes: int = 64,
    seed: int = 0,
) -> NodeDict:
    """Describe each node by its place in the graph, without reading any feature.

    For each relation that touches the type: ``log(1 + degree)``, and `return_probabilities`. Then 32 standard normal
    numbers a node, tied to its external id, after two steps of the mean over in-neighbours along all relations.

    Parameters
    ----------
    graph : dgl.DGLGraph
        The whole graph, with all of `canonical_etypes`.
    node_ids : mapping of str to sequence of str
        External ids by node type.
    canonical_etypes : sequence of (str, str, str)
        Relations, in the order of the columns.
    num_probes : int, optional
        As in `return_probabilities`.
    seed : int, optional
        Seed of the random numbers and of the probes.

    Returns
    -------
    dict of str to Tensor
        ``(N, structural_width(canonical_etypes, ntype))`` float32 by node type, on the graph's device.

    Raises
    ------
    ConfigError
        `num_probes` is negative.

    Notes
    -----
    Nodes of equal id and surroundings get equal features in any graph, whatever their row.
    """
    if num_probes < 0:
        raise ConfigError(f"structural_features, num_probes: must be at least 0, got {num_probes}; 0 is exact")
    width = RANDOM_SIZE + num_probes
    noise = {t: id_noise(node_ids[t], seed=seed, width=width).to(graph.device) for t in graph.ntypes}
    probes = {ntype: x[:, RANDOM_SIZE:].sign() for ntype, x in noise.items()}
    columns: dict[str, list[Tensor]] = {ntype: [] for ntype in graph.ntypes}
    for etype in canonical_etypes:
        returns = return_probabilities(graph, etype, probes if num_probes else None)
        for ntype, degrees in _degrees(graph, etype).items():
            columns[ntype] += [torch.log1p(degrees).unsqueeze(1), returns[ntype]]
    spread = {ntype: x[:, :RANDOM_SIZE] for ntype, x in noise.items()}
    for _ in range(RANDOM_HOPS):
        spread = _diffuse(graph, canonical_etypes, spread)
    return {ntype: torch.cat([*found, spread[ntype]], dim=1) for ntype, found in columns.items()}


def id_rows(ids: Sequence[str], table_size: int) -> Tensor:
    """Return two rows of a table for each external id, ``(N, 2)`` int64 in [0, table_size).

    Two ids share both rows once in ``table_size ** 2``, so the sum of two rows tells nodes apart in a table of fixed
    size: Svenstrup et al., NeurIPS 2017, arXiv 1709.03933, without their weights.

    Examples
    --------
    >>> id_rows(["a", "b"], 1000).shape
    torch.Size([2, 2])
    """
    digest = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in ids)
    words = np.frombuffer(digest, dtype="<u8").reshape(-1, 2) % np.uint64(table_size)
    return torch.from_numpy(words.astype(np.int64))


def return_probabilities(graph: Any, canonical_etype: CanonicalEtype, probes: NodeDict | None) -> NodeDict:
    r"""Say how likely a random walk is back at its node after 1 to 16 steps along the edges of one relation.

    Edges are walked in both directions, parallel ones with their multiplicity. With ``S = D^-1/2 A D^-1/2`` of the
    relation and its reverse, which is symmetric, the chance after a + b steps is ``(S^a S^b)_ii = sum_j (S^a)_ij
    (S^b)_ij``. For random signs z this is the expectation of ``(S^a z)_i (S^b z)_i``, so a dozen products of S with a
    few columns replace powers of an N x N matrix; a and b differ by 1 at most.

    Parameters
    ----------
    graph : dgl.DGLGraph
        The whole graph.
    canonical_etype : (str, str, str)
        The relation.
    probes : dict of str to Tensor, or None
        ``(N, P)`` float32, -1 or 1, for the relation's node types: the estimate is the mean over the P columns. For an
        even number of steps it is not negative and has a relative standard deviation of at most ``sqrt(2 / P)``. None:
        all unit vectors in turn, which is exact and takes N / P times as long.

    Returns
    -------
    dict of str to Tensor
        For both ends of the relation ``(N, 16)`` float32, or ``(N, 8)`` for the even numbers of steps where a walk
        alternates between two types. Zero for nodes without edges.

    References
    ----------
    Dwivedi et al., ICLR 2022, arXiv 2110.07875 (the features, exact there); Hutchinson, 1990, doi
    10.1080/03610919008812866 (random signs). The split into halves is ours.
    """
    src, _, dst = canonical_etype
    forth = relation_csc(graph, canonical_etype)
    back = _transposed(forth)
    scale = {ntype: d.clamp(min=1).rsqrt().unsqueeze(1) for ntype, d in _degrees(graph, canonical_etype).items()}
    steps = _steps(canonical_etype)
    found = {ntype: torch.zeros(len(x), NUM_STEPS, device=x.device) for ntype, x in scale.items()}
    sizes = {ntype: len(x) for ntype, x in scale.items()}
    for columns in _unit_columns(sizes, graph.device) if probes is None else _split(probes, sizes):
        here = columns
        for half in range(0, NUM_STEPS, 2):
            moved = {ntype: x * scale[ntype] for ntype, x in here.items()}
            ahead = {ntype: torch.zeros_like(x) for ntype, x in here.items()}
            for csc, start, end in ((forth, src, dst), (back, dst, src)):
                ahead[end] += scale[end] * kernels.neighbor_sum(csc, moved[start].unsqueeze(1)).squeeze(1)
            for ntype, x in ahead.items():
                found[ntype][:, half] += (here[ntype] * x).sum(1)
                found[ntype][:, half + 1] += (x * x).sum(1)
            here = ahead
    count = 1 if probes is None else probes[src].shape[1]
    chosen = torch.tensor(steps, device=graph.device) - 1
    return {ntype: x[:, chosen] / count for ntype, x in found.items()}


def _steps(etype: CanonicalEtype) -> range:
    return range(1, NUM_STEPS + 1) if etype[0] == etype[2] else range(2, NUM_STEPS + 1, 2)


def _degrees(graph: Any, etype: CanonicalEtype) -> NodeDict:
    """Count the edges of the relation at each node of its types, in either direction; float32."""
    leaving, arriving = graph.out_degrees(etype=etype).float(), graph.in_degrees(etype=etype).float()
    return {etype[0]: leaving + arriving} if etype[0] == etype[2] else {etype[0]: leaving, etype[2]: arriving}


def _transposed(csc: RelationCSC) -> RelationCSC:
    position = torch.argsort(csc.edge_pos_t).to(csc.edge_pos_t.dtype)
    return RelationCSC(csc.indptr_t, csc.indices_t, csc.indptr, csc.indices, position)


def _split(probes: NodeDict, sizes: Mapping[str, int]) -> Iterator[NodeDict]:
    parts = [torch.split(probes[ntype], _COLUMNS, dim=1) for ntype in sizes]
    return (dict(zip(sizes, columns, strict=True)) for columns in zip(*parts, strict=True))


def _unit_columns(sizes: Mapping[str, int], device: torch.device) -> Iterator[NodeDict]:
    total = sum(sizes.values())
    for start in range(0, total, _COLUMNS):
        rows = torch.arange(start, min(start + _COLUMNS, total), device=device)
        columns = torch.zeros(total, len(rows), device=device)
        columns[rows, rows - start] = 1
        yield dict(zip(sizes, torch.split(columns, list(sizes.values())), strict=True))


def _diffuse(graph: Any, etypes: Sequence[CanonicalEtype], x: NodeDict) -> NodeDict:
    """Take the mean over in-neighbours, and over the relations that have some; zero for nodes without in-edges."""
    total = {ntype: torch.zeros_like(values) for ntype, values in x.items()}
    count = {ntype: torch.zeros(len(values), 1, device=values.device) for ntype, values in x.items()}
    for etype in etypes:
        src, _, dst = etype
        total[dst] += neighbor_mean(graph, etype, x[src].unsqueeze(1)).squeeze(1)
        count[dst] += (graph.in_degrees(etype=etype) > 0).unsqueeze(1)
    return {ntype: values / count[ntype].clamp(min=1) for ntype, values in total.items()}
