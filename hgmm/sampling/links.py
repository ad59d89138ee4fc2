"""False edges for true ones of a DGL graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError, unknown_name
from hgmm.kernels._checks import check_choice
from hgmm.kernels.negative_sampling import DrawInputs, KnownTriples, draw_entities
from hgmm.sampling.batch import TAIL, check_count
from hgmm.sampling.entities import bernoulli_head_share
from hgmm.typing import CanonicalEtype

__all__ = ["ENDS", "LinkNegativeSampler"]

ENDS = ("dst", "src", "both", "bernoulli")
"""Which end of an edge is replaced."""

EdgePairs = tuple[Tensor, Tensor]


class _Relation(NamedTuple):
    """What is known of one relation of a graph; `structure` is replaced when the graph is changed in place."""

    structure: Any
    known: KnownTriples | None
    head_below: Tensor


class LinkNegativeSampler:
    """Replace one end of an edge by another node of its type, so that no edge of that relation is met.

    An object is a ``negative_sampler`` of ``dgl.dataloading.as_edge_prediction_sampler``: called with a graph and edge
    ids, it returns sources and destinations. Edges are filtered by canonical edge type, exactly, and there are always K
    for each edge, which neither ``dgl.dataloading.negative_sampler.PerSourceUniform`` (no filter) nor ``GlobalUniform``
    (at most K) give.

    Parameters
    ----------
    num_negs_per_pos : int
        K, at least 1.
    end : str, optional
        ``dst`` or ``src`` replaces that end; ``both`` either with probability 1/2; ``bernoulli`` the source with
        probability ``d / (d + s)``, where d and s are the mean numbers of destinations by source and of sources by
        destination, so that a true edge is seldom met.
    known : mapping of (str, str, str) to (Tensor, Tensor), optional
        Sources and destinations of further true edges by canonical edge type, such as those of validation and test,
        which the graph that is trained on does not have.
    filtered : bool, optional
        False keeps negatives that are edges, except the positive itself.
    generator : torch.Generator, optional
        Gives the seed of each call. Default: torch's, which the workers of a ``DataLoader`` seed each for itself; leave
        it out with workers.

    Raises
    ------
    ConfigError
        `end` is unknown or `num_negs_per_pos` out of range.

    Notes
    -----
    What is known of a relation is indexed at the first call and kept while the graph object lives.

    Examples
    --------
    >>> import torch
    >>> from hgmm.dgl_compat import dgl
    >>> from hgmm.sampling import LinkNegativeSampler
    >>> g = dgl.heterograph({("user", "buys", "item"): ([0, 0, 1], [0, 1, 2])}, {"user": 2, "item": 4})
    >>> src, dst = LinkNegativeSampler(2)(g, {"buys": torch.tensor([0, 2])})["user", "buys", "item"]
    >>> src
    tensor([0, 0, 1, 1])
    >>> bool(g.has_edges_between(src, dst).any())
    False
    """

    def __init__(
        self,
        num_negs_per_pos: int,
        *,
        end: str = "dst",
        known: Mapping[CanonicalEtype, EdgePairs] | None = None,
        filtered: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        check_count(_WHERE, "num_negs_per_pos", num_negs_per_pos)
        check_choice(_WHERE, "end", end, ENDS)
        self.num_negs_per_pos, self.end, self.filtered, self.generator = num_negs_per_pos, end, filtered, generator
        self.known = dict(known or {})
        self._relations: WeakKeyDictionary[Any, dict[CanonicalEtype, _Relation]] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        # Workers of a DataLoader that are started anew get the sampler by pickle, which takes no weak references.
        return {**self.__dict__, "_relations": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _relations=WeakKeyDictionary())

    def __call__(
        self, graph: Any, eids: Tensor | Mapping[str | CanonicalEtype, Tensor]
    ) -> EdgePairs | dict[CanonicalEtype, EdgePairs]:
        """Draw K negatives for each edge.

        Parameters
        ----------
        graph : dgl.DGLGraph
            The graph that the edges are of.
        eids : Tensor or mapping of edge type to Tensor
            ``(B,)`` ids of edges; a tensor if the graph has one edge type.

        Returns
        -------
        (Tensor, Tensor) or dict of (str, str, str) to (Tensor, Tensor)
            ``(B K,)`` sources and destinations in the graph's integer type, those of an edge side by side.

        Raises
        ------
        ConfigError
            Every node makes an edge, or `known` names another edge type or nodes that the graph does not have.
        ShapeError
            A tensor is given for a graph of several edge types, or `known` does not hold tensors of one length.
        """
        if isinstance(eids, Mapping):
            named = {graph.to_canonical_etype(etype): ids for etype, ids in eids.items()}
            return {etype: self._draw(graph, etype, ids) for etype, ids in named.items()}
        if len(graph.canonical_etypes) != 1:
            raise ShapeError(
                f"{_WHERE}, eids: a graph of several edge types needs a mapping from type to ids, got a tensor and "
                f"{len(graph.canonical_etypes)} types; pass {{etype: ids}}"
            )
        return self._draw(graph, graph.canonical_etypes[0], eids)

    def _draw(self, graph: Any, etype: CanonicalEtype, eids: Tensor) -> EdgePairs:
        src, dst = graph.find_edges(eids, etype=etype)
        relation = self._relation(graph, etype)
        # A seed of its own for each call: a counter would be the same in every worker.
        seed = int(torch.randint(-(2**63), 2**63 - 1, (), generator=self.generator))
        sizes = graph.num_nodes(etype[0]), graph.num_nodes(etype[2])
        drawn = draw_entities(
            DrawInputs(
                _pairs(src, dst),
                self.num_negs_per_pos,
                relation.head_below.to(src.device),
                *sizes,
                None,
                relation.known,
                seed,
                0,
                relation_names=(str(etype),),
            )
        )
        is_dst = drawn.side == TAIL
        entity = drawn.entity.to(graph.idtype)
        return src.unsqueeze(1).where(is_dst, entity).flatten(), entity.where(is_dst, dst.unsqueeze(1)).flatten()

    def _relation(self, graph: Any, etype: CanonicalEtype) -> _Relation:
        kept = self._relations.setdefault(graph, {})
        # DGL gives a graph that is changed in place a new index object.
        if etype not in kept or kept[etype].structure is not graph._graph:
            edges = _pairs(*graph.edges(order="eid", etype=etype))
            known = None
            sizes = graph.num_nodes(etype[0]), graph.num_nodes(etype[2])
            if self.filtered:
                rows = torch.cat([edges, self._further(graph, etype)])
                known = KnownTriples.build(rows, num_entities=max(sizes), num_relations=1)
            kept[etype] = _Relation(graph._graph, known, self._thresholds(edges, max(sizes)))
        return kept[etype]

    def _thresholds(self, edges: Tensor, num_nodes: int) -> Tensor:
        if self.end == "bernoulli":
            share = bernoulli_head_share(edges, num_entities=num_nodes, num_relations=1)
        else:
            share = torch.tensor([{"dst": 0.0, "src": 1.0, "both": 0.5}[self.end]], dtype=torch.float64)
        return (share * 2**32).round().long()

    def _further(self, graph: Any, etype: CanonicalEtype) -> Tensor:
        """Return what `known` says of a relation, checked."""
        for name in self.known:
            if name not in graph.canonical_etypes:
                what = unknown_name("canonical edge type", name, map(str, graph.canonical_etypes))
                raise ConfigError(f"{_WHERE}, known: {what}")
        if etype not in self.known:
            return torch.zeros(0, 3, dtype=torch.int64, device=graph.device)
        src, dst = self.known[etype]
        if src.dim() != 1 or src.shape != dst.shape:
            raise ShapeError(
                f"{_WHERE}, known: expected sources and destinations of one length for {etype!r}, got "
                f"{tuple(src.shape)} and {tuple(dst.shape)}"
            )
        for ends, ntype in ((src, etype[0]), (dst, etype[2])):
            outside = ends[(ends < 0) | (ends >= graph.num_nodes(ntype))]
            if outside.numel():
                raise ConfigError(
                    f"{_WHERE}, known: nodes of type {ntype!r} lie in [0, {graph.num_nodes(ntype)}), got "
                    f"{int(outside[0])} for {etype!r}; number them as in the graph"
                )
        return _pairs(src, dst).to(graph.device)


_WHERE = "LinkNegativeSampler"


def _pairs(src: Tensor, dst: Tensor) -> Tensor:
    """Return edges as triples of the one relation 0."""
    src, dst = src.long(), dst.long()
    return torch.stack([src, torch.zeros_like(src), dst], 1)
