"""Edge tables: from columns of ids to node numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hgmm.errors import Problem, first_problems, unknown_name
from hgmm.graph.tables import Table
from hgmm.typing import CanonicalEtype

__all__ = ["EdgeSource", "KnownIds", "read_edges"]


@dataclass(frozen=True)
class EdgeSource:
    """One relation as its user declared it; `table` is a DataFrame or a path."""

    etype: CanonicalEtype
    table: Any
    src: str
    dst: str
    reverse: str | None


class KnownIds:
    """The ids of one node type, ready for look-ups.

    Parameters
    ----------
    ids : ndarray
        ``(N,)`` str.
    table : str
        Name of the table that they stand in.
    """

    def __init__(self, ids: NDArray[np.object_], table: str) -> None:
        self.table = table
        # An id that stands twice is reported where the nodes are read; an index must not have it twice.
        self._index = pd.Index(pd.unique(pd.Series(ids, dtype=object)), dtype=object)

    def positions(self, texts: NDArray[np.object_]) -> NDArray[np.int64]:
        """Return ``(n,)`` node numbers, -1 for an unknown id."""
        return np.asarray(self._index.get_indexer(pd.Index(texts, dtype=object)), dtype=np.int64)


def read_edges(
    declared: Sequence[EdgeSource],
    known: Mapping[str, KnownIds | None],
    open_table: Callable[[Any, str, list[Problem]], Table | None],
    *,
    problems: list[Problem],
) -> dict[CanonicalEtype, tuple[Tensor, Tensor]]:
    """Read all edge tables.

    Parameters
    ----------
    declared : sequence of EdgeSource
        What to read.
    known : mapping of str to KnownIds or None
        Ids by node type; None where they could not be read, and nothing can be said about edges.
    open_table : callable
        Turns a DataFrame or path, and words for messages, into a table.
    problems : list of Problem
        Findings are appended to it.

    Returns
    -------
    dict of (str, str, str) to (Tensor, Tensor)
        ``(E,)`` int64 sources and destinations in the order of the table, with the reverse relations.
    """
    read: dict[CanonicalEtype, tuple[Tensor, Tensor]] = {}
    for edges in declared:
        src_type, relation, dst_type = edges.etype
        unknown = [ntype for ntype in dict.fromkeys((src_type, dst_type)) if ntype not in known]
        for ntype in unknown:
            where = f"edge type {edges.etype!r}"
            problems.append(Problem("unknown node type", where, unknown_name("node type", ntype, known)))
        table = open_table(edges.table, f"table of {relation!r}", problems)
        if table is None or unknown:
            continue
        src = _ends(table, edges.src, src_type, known[src_type], problems)
        dst = _ends(table, edges.dst, dst_type, known[dst_type], problems)
        added: list[tuple[CanonicalEtype, tuple[Tensor, Tensor]]] = [(edges.etype, (src, dst))]
        if edges.reverse:
            added.append(((dst_type, edges.reverse, src_type), (dst, src)))
        for name, ends in added:
            if name in read:
                problems.append(Problem("duplicate edge type", f"edge type {name!r}", "it is added twice"))
            read[name] = ends
    return read


def _ends(table: Table, column: str, ntype: str, known: KnownIds | None, problems: list[Problem]) -> Tensor:
    """Return ``(E,)`` node numbers of a column of ids; note ids that no node has."""
    texts = table.texts(column, problems)
    if texts is None or known is None:
        return torch.zeros(0, dtype=torch.int64)
    position = known.positions(texts)
    problems += first_problems(
        "unknown id",
        np.flatnonzero(position < 0).tolist(),
        lambda row: (table.at(row), f"{column} {texts[row]!r} is no id of {ntype!r} ({known.table})"),
    )
    return torch.from_numpy(position)
