"""Knowledge graphs: their triples."""

from __future__ import annotations

from hgmm.kg.triples import LeakReport, TripleSet

__all__ = ["LeakReport", "TripleSet"]
