"""Damage a graph on purpose, to see what a model makes of it: modalities away, noise on features, labels, edges.

A corruption is written ``WHAT=AMOUNT``:

===================  =================================================================================
``image=0.3``        30 % of the nodes that have the modality ``image`` lose it
``missing:image=…``  the same in full, needed if a modality is called ``labels`` or ``edges``
``noise:image=0.5``  Gaussian noise of half of each column's standard deviation on ``image``
``labels=0.2``       20 % of the training nodes get another class; validation and test labels stay
``edges=0.1``        10 % of the pairs of connected nodes lose every edge between them
===================  =================================================================================

The rules are ours. Every corruption draws from a stream of its own, so that adding one does not change the others, and
what a smaller amount takes away, a larger one takes away too.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError, unknown_name
from hgmm.graph.hashing import mix64, unit_numbers
from hgmm.graph.multimodal import MultimodalGraph
from hgmm.graph.schema import PRESENT_SUFFIX
from hgmm.graph.structure import renew_structure
from hgmm.graph.validation import edge_triples
from hgmm.typing import CanonicalEtype

__all__ = ["CORRUPTIONS", "Corruption", "corrupt"]

CORRUPTIONS = ("edges", "noise", "missing", "labels")
"""Kinds of damage, in the order in which they are done.

Features that stem from degrees follow the edges, and noise is measured before rows are taken away, so that how much of
the one is asked for does not change the other.
"""

OF_MODALITIES = ("missing", "noise")
HOW = "write image=0.3, noise:image=0.5, labels=0.2 or edges=0.1"


@dataclass(frozen=True)
class Corruption:
    """One kind of damage and how much of it.

    Parameters
    ----------
    kind : str
        ``edges``, ``noise``, ``missing`` or ``labels``.
    amount : float
        For ``noise`` the standard deviation of the noise in units of each column's own, at least 0; else a share from 0
        to 1.
    modality : str, optional
        The modality that ``missing`` and ``noise`` are about; the others have none.

    Raises
    ------
    ConfigError
        If the kind is unknown, the amount out of range, or a modality is lacking or too many.

    Examples
    --------
    >>> Corruption.parse("noise:image=0.5")
    Corruption(kind='noise', amount=0.5, modality='image')
    >>> str(Corruption("missing", 0.3, "image"))
    'missing:image=0.3'
    """

    kind: str
    amount: float
    modality: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS:
            raise ConfigError(f"Corruption kind: {unknown_name('kind', self.kind, CORRUPTIONS)}")
        if (self.kind in OF_MODALITIES) != bool(self.modality):
            rule = "needs the name of a modality" if self.kind in OF_MODALITIES else "has no modality"
            raise ConfigError(f"Corruption modality: {self.kind!r} {rule}, got {self.modality!r}; {HOW}")
        most = math.inf if self.kind == "noise" else 1.0
        if not 0.0 <= self.amount <= most or math.isinf(self.amount):
            rule = "the noise must be at least 0 and finite" if self.kind == "noise" else "a share is from 0 to 1"
            raise ConfigError(f"Corruption amount of {self.name!r}: {rule}, got {self.amount}")

    @classmethod
    def parse(cls, text: str) -> Corruption:
        """Read ``WHAT=AMOUNT`` as the head of this module describes it.

        Raises
        ------
        ConfigError
            If it is written in another way, or the constructor refuses it.
        """
        what, equals, number = text.partition("=")
        kind, colon, modality = (part.strip() for part in what.partition(":"))
        try:
            amount = float(number)
        except ValueError:
            amount = math.nan
        if not equals or not kind or (colon and not modality) or math.isnan(amount):
            raise ConfigError(f"corruption {text!r}: must be a name and a number; {HOW}")
        if not colon and kind not in ("labels", "edges"):
            return cls("missing", amount, kind)
        return cls(kind, amount, modality or None)

    @property
    def name(self) -> str:
        """What it is about, as in ``missing:image`` or ``labels``."""
        return f"{self.kind}:{self.modality}" if self.modality else self.kind

    def __str__(self) -> str:
        return f"{self.name}={self.amount:g}"


def corrupt(graph: MultimodalGraph, corruptions: Iterable[Corruption | str], *, seed: int = 0) -> MultimodalGraph:
    """Return a damaged copy of a graph; what is not damaged is shared, not copied.

    Parameters
    ----------
    graph : MultimodalGraph
        Any graph. Not changed.
    corruptions : iterable of Corruption or str
        What to damage; a string as in `Corruption.parse`. Their order does not matter.
    seed : int, optional
        At least 0. Equal seeds damage equal graphs equally.

    Returns
    -------
    MultimodalGraph
        Its `source` says what was done: `corrupted` in short, `note` in numbers.

    Raises
    ------
    ConfigError
        If a corruption is wrong, stands twice, or the seed is negative.
    SchemaError
        If a modality is unknown, or labels shall be changed where there are none or fewer than two classes.

    Notes
    -----
    A modality is taken away from a node at every node type that has it, its features become zero; a share that is no
    whole number of nodes is rounded. The noise has mean 0 and is drawn for every present row; a column that is constant
    stays so. A wrong label is any other class with equal probability. Edges are drawn by their unordered pair of nodes,
    so that a relation and its reverse lose the same ones; the features that a type without any got from its degrees
    are computed anew, and of a knowledge graph training triples go with their edges.

    Examples
    --------
    >>> from hgmm.datasets import synthetic
    >>> damaged = corrupt(synthetic(), ["image=0.3", "labels=0.1"], seed=1)
    >>> damaged.source.note.split("; ")[-1]
    'corrupted on purpose (seed 1): image taken from 360 of 1,200 item, another class for 24 of 240 training nodes'
    """
    wanted = sorted(
        (entry if isinstance(entry, Corruption) else Corruption.parse(entry) for entry in corruptions),
        key=lambda entry: (CORRUPTIONS.index(entry.kind), entry.modality or ""),
    )
    _check(graph, wanted, seed)
    g, triples = graph.g.local_var(), graph.triples
    words: list[str] = []
    for entry in wanted:
        g, done = _DAMAGE[entry.kind](g, graph, entry, seed)
        words += done
    if triples is not None and any(entry.kind == "edges" for entry in wanted):
        triples = replace(triples, train=edge_triples(g))
    before = graph.source
    note = [f"corrupted on purpose (seed {seed}): {', '.join(words)}"] if wanted else []
    source = replace(
        before,
        note="; ".join([*filter(None, [before.note]), *note]),
        corrupted=(*before.corrupted, *map(str, wanted)),
    )
    return MultimodalGraph(
        g,
        graph.schema,
        node_ids=graph.node_ids,
        node_names=graph.node_names,
        source=source,
        transforms=graph.transforms,
        triples=triples,
        name=graph.name,
    )


def _check(graph: MultimodalGraph, wanted: Sequence[Corruption], seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"corrupt seed: must be at least 0, got {seed}")
    for name, count in Counter(entry.name for entry in wanted).items():
        if count > 1:
            raise ConfigError(f"corrupt corruptions: {name!r} stands {count} times; give one amount for it")
    for entry in wanted:
        if entry.modality is not None and entry.modality not in graph.schema.modality_names:
            known = unknown_name("modality", entry.modality, graph.schema.modality_names)
            raise SchemaError(f"corrupt corruptions: {str(entry)!r} on graph {graph.name!r}: {known}")
        if entry.kind == "labels" and graph.schema.num_classes < 2:
            raise SchemaError(
                f"corrupt corruptions: {str(entry)!r} needs two classes, and graph {graph.name!r} has "
                f"{graph.schema.num_classes}; leave it out"
            )


def _remove_edges(g: Any, graph: MultimodalGraph, entry: Corruption, seed: int) -> tuple[Any, list[str]]:
    kept = {
        etype: torch.from_numpy(np.flatnonzero(_pair_draws(g, graph, etype, seed) >= entry.amount)).to(g.device)
        for etype in graph.schema.canonical_etypes
    }
    total = int(g.num_edges())
    g = dgl.edge_subgraph(g, kept, relabel_nodes=False, store_ids=False)
    renew_structure(g, graph.schema, graph.node_ids)
    return g, [f"{total - int(g.num_edges()):,} of {total:,} edges removed"]


def _pair_draws(g: Any, graph: MultimodalGraph, etype: CanonicalEtype, seed: int) -> NDArray[np.float64]:
    """Return ``(E,)`` numbers in [0, 1) that depend on the two nodes of an edge, whichever way round it leads."""
    src, dst = (ends.cpu().numpy().astype(np.uint64) for ends in g.edges(order="eid", etype=etype))
    place = graph.schema.ntypes.index
    if etype[0] == etype[2]:
        src, dst = np.minimum(src, dst), np.maximum(src, dst)
    elif place(etype[0]) > place(etype[2]):
        src, dst = dst, src
    ntypes = sorted((etype[0], etype[2]), key=place)
    with np.errstate(over="ignore"):
        bits = mix64(mix64(np.uint64(_stream_seed(seed, "edges", *ntypes)) + src) + dst)
    return unit_numbers(bits)


def _add_noise(g: Any, graph: MultimodalGraph, entry: Corruption, seed: int) -> tuple[Any, list[str]]:
    name = str(entry.modality)
    for ntype in _having(graph, name):
        data = g.nodes[ntype].data
        values, present = data[name], _present(data, name)
        # There is no standard deviation of nothing.
        if not bool(present.any()):
            continue
        draws = torch.randn(values.shape, generator=_stream(seed, entry.name, ntype)).to(values.device)
        spread = values[present].float().std(dim=0, correction=0)
        noisy = values.float() + entry.amount * spread * draws
        data[name] = torch.where(present[:, None], noisy.to(values.dtype), values)
    return g, [f"noise of {entry.amount:g} standard deviations on {name}"]


def _take_away(g: Any, graph: MultimodalGraph, entry: Corruption, seed: int) -> tuple[Any, list[str]]:
    name, words = str(entry.modality), []
    for ntype in _having(graph, name):
        data = g.nodes[ntype].data
        present = _present(data, name)
        lost = _chosen(present, entry.amount, _stream(seed, entry.name, ntype))
        data[name] = data[name].masked_fill(lost[:, None], 0.0)
        data[name + PRESENT_SUFFIX] = present & ~lost
        words.append(f"{name} taken from {int(lost.sum()):,} of {int(present.sum()):,} {ntype}")
    return g, words


def _change_labels(g: Any, graph: MultimodalGraph, entry: Corruption, seed: int) -> tuple[Any, list[str]]:
    generator = _stream(seed, entry.name, graph.target)
    candidates = torch.zeros_like(graph.labels, dtype=torch.bool).index_fill(0, graph.train_idx, True)
    wrong = _chosen(candidates, entry.amount, generator)
    steps = torch.randint(1, graph.schema.num_classes, wrong.shape, generator=generator).to(wrong.device)
    other = (graph.labels + steps) % graph.schema.num_classes
    g.nodes[graph.target].data["label"] = torch.where(wrong, other, graph.labels)
    return g, [f"another class for {int(wrong.sum()):,} of {int(candidates.sum()):,} training nodes"]


def _having(graph: MultimodalGraph, modality: str) -> list[str]:
    return [ntype for ntype in graph.schema.ntypes if modality in graph.schema.modalities[ntype]]


def _present(data: Mapping[str, Tensor], modality: str) -> Tensor:
    mask = data.get(modality + PRESENT_SUFFIX)
    values = data[modality]
    return torch.ones(len(values), dtype=torch.bool, device=values.device) if mask is None else mask


def _chosen(candidates: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return ``(N,)`` bool that is True at the given share of the candidates; a larger share holds a smaller one."""
    draws = torch.rand(len(candidates), generator=generator).to(candidates.device)
    order = draws.masked_fill(~candidates, 2.0).argsort(stable=True)
    return torch.zeros_like(candidates).index_fill(0, order[: round(share * int(candidates.sum()))], True)


def _stream_seed(seed: int, *names: str) -> int:
    digest = hashlib.blake2b("/".join([str(seed), *names]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _stream(seed: int, *names: str) -> torch.Generator:
    return torch.Generator().manual_seed(_stream_seed(seed, *names))


_DAMAGE: dict[str, Callable[[Any, MultimodalGraph, Corruption, int], tuple[Any, list[str]]]] = {
    "edges": _remove_edges,
    "noise": _add_noise,
    "missing": _take_away,
    "labels": _change_labels,
}
