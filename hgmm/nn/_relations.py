"""What every layer over node types and relations has: its declaration, and checks of graphs and states against it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hgmm.errors import ConfigError, SchemaError, ShapeError, unknown_name
from hgmm.nn.functional import count_present_neighbors, destination_types, num_source_rows
from hgmm.typing import CanonicalEtype, NodeDict

__all__ = ["RelationConv", "types_towards"]


class RelationConv(nn.Module):
    """Node types, relations and modalities of a layer, whose ``in_size``-wide states it checks; a base class."""

    def __init__(
        self, ntypes: Sequence[str], canonical_etypes: Sequence[CanonicalEtype], *, num_modalities: int
    ) -> None:
        super().__init__()
        where = type(self).__name__
        if num_modalities < 1:
            raise ConfigError(f"{where}, num_modalities: must be at least 1, got {num_modalities}")
        self.ntypes = tuple(ntypes)
        self.canonical_etypes: tuple[CanonicalEtype, ...] = tuple((s, e, d) for s, e, d in canonical_etypes)
        for etype in self.canonical_etypes:
            for end in (etype[0], etype[2]):
                if end not in self.ntypes:
                    raise SchemaError(f"{where}, canonical_etypes {etype!r}: {unknown_name('node type', end, ntypes)}")
        self.num_modalities = num_modalities

    def _active(self, graph: Any, ntypes: Collection[str] | None) -> tuple[list[str], list[CanonicalEtype]]:
        """Return the node types to update and the relations that bring them something."""
        self._check_types(graph)
        updated = destination_types(graph)
        wanted = [t for t in self.ntypes if t in updated and (ntypes is None or t in ntypes)]
        present = [e for e in self.canonical_etypes if e[2] in wanted and e in graph.canonical_etypes]
        return wanted, [e for e in present if graph.num_edges(e)]

    def _check_types(self, graph: Any) -> None:
        where = type(self).__name__
        for ntype in dict.fromkeys([*graph.srctypes, *graph.dsttypes]):
            if ntype not in self.ntypes:
                raise SchemaError(f"{where}, graph: {unknown_name('node type', ntype, self.ntypes)}")
        for etype in graph.canonical_etypes:
            if etype not in self.canonical_etypes:
                known = map(str, self.canonical_etypes)
                raise SchemaError(f"{where}, graph: {unknown_name('relation', str(etype), known)}")

    def _check_rows(
        self, graph: Any, ntypes: Iterable[str], h: NodeDict, present: NodeDict | None, *, width: int
    ) -> None:
        where = type(self).__name__
        for ntype in ntypes:
            rows = num_source_rows(graph, ntype)
            _check_shape(where, "h", h, ntype, (rows, self.num_modalities, width))
            if present is not None:
                _check_shape(where, "present", present, ntype, (rows, self.num_modalities))

    def _reached(self, graph: Any, etype: CanonicalEtype, present: Tensor | None) -> Tensor:
        """Return ``(N_dst, M)`` or ``(N_dst, 1)`` bool: to which node the relation brings which modality."""
        return self._count(graph, etype, present) > 0

    def _count(self, graph: Any, etype: CanonicalEtype, present: Tensor | None) -> Tensor:
        """Count the in-neighbours that have each modality, ``(N_dst, M)``, or all in-neighbours, ``(N_dst, 1)``."""
        if present is None:
            degrees: Tensor = graph.in_degrees(etype=etype)
            return degrees.unsqueeze(-1).to(next(self.parameters()).device)
        return count_present_neighbors(graph, etype, present)


def _check_shape(where: str, name: str, tensors: Mapping[str, Tensor], ntype: str, shape: tuple[int, ...]) -> None:
    if ntype not in tensors:
        raise ShapeError(
            f"{where}, {name}: node type {ntype!r} is missing, got {sorted(tensors)}; pass a tensor {shape} for it"
        )
    if tensors[ntype].shape != shape:
        raise ShapeError(
            f"{where}, {name}[{ntype!r}]: expected shape {shape}, got {tuple(tensors[ntype].shape)}; the sizes follow "
            "from the graph's source nodes and the constructor"
        )


def types_towards(
    target: str, canonical_etypes: Sequence[CanonicalEtype], num_layers: int
) -> tuple[frozenset[str], ...]:
    """Return the node types whose states reach `target`: before the first layer, and after each of `num_layers`.

    Examples
    --------
    >>> [sorted(types) for types in types_towards("item", [("user", "buys", "item"), ("shop", "serves", "user")], 2)]
    [['item', 'shop', 'user'], ['item', 'user'], ['item']]
    """
    needed = [frozenset({target})]
    while len(needed) <= num_layers:
        needed.append(needed[-1] | {src for src, _, dst in canonical_etypes if dst in needed[-1]})
    return tuple(reversed(needed))
