"""The triples of a knowledge graph; the graph needs them too, so the classes stand below it, in `hgmm.triples`."""

from __future__ import annotations

from hgmm.triples import LeakReport, TripleSet

__all__ = ["LeakReport", "TripleSet"]
