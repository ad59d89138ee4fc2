"""Take leaking triples out of a knowledge graph."""

from __future__ import annotations

from dataclasses import replace

from hgmm.errors import SchemaError
from hgmm.graph.multimodal import MultimodalGraph

__all__ = ["drop_leaks"]


def drop_leaks(graph: MultimodalGraph) -> MultimodalGraph:
    """Return a knowledge graph without the triples that `TripleSet.drop_leaks` drops; its note says how many.

    Parameters
    ----------
    graph : MultimodalGraph
        A knowledge graph. Not changed.

    Raises
    ------
    SchemaError
        If it is none.
    """
    if graph.triples is None:
        raise SchemaError(f"drop_leaks graph: {graph.name!r} has no triples, so nothing leaks; leave the option out")
    kept = graph.triples.drop_leaks()
    lost = {split: len(rows) - len(kept.splits[split]) for split, rows in graph.triples.splits.items()}
    if not any(lost.values()):
        return graph
    words = ", ".join(f"{count:,} {split}" for split, count in lost.items() if count)
    note = "; ".join([*filter(None, [graph.source.note]), f"leaks dropped: {words} triples"])
    return graph.with_triples(kept, source=replace(graph.source, note=note))
