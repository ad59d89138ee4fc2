"""What a gate remembers of each node from epoch to epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels._checks import check_axes, check_number

__all__ = ["NEVER", "NodeMemory"]

NEVER = -1
"""Stands for no epoch and for no branch."""

_WHERE = "StabilityGate"
_PARTS = ("average", "history", "last_epoch", "stability", "changes")
_AVERAGE_DTYPES = (torch.float32, torch.bfloat16)


class NodeMemory(nn.Module):
    """Buffers with one row for each of k nodes, which come into being when the number of classes is known.

    ``last_epoch`` and ``stability`` ``(k,)`` as of the last note; ``average (k, C)`` of posteriors; ``history (k,
    window)`` of the last dominant branches, the newest last, and ``changes (k,)`` as of the last note.

    Parameters
    ----------
    num_nodes : int
        Nodes of the graph.
    node_ids : Tensor or None
        ``(k,)`` ids of the nodes with a row. None: all.
    average_dtype : torch.dtype or None
        float32 or bfloat16. None: no average.
    window : int
        Length of the history. 0: none, and no changes.

    Raises
    ------
    ConfigError
        An argument is out of range.
    ShapeError
        `node_ids` is not ``(k,)`` int64.
    """

    def __init__(
        self, num_nodes: int, *, node_ids: Tensor | None, average_dtype: torch.dtype | None, window: int
    ) -> None:
        super().__init__()
        check_number(_WHERE, "num_nodes", num_nodes, low=1, hint="count the nodes that are classified")
        if average_dtype not in (None, *_AVERAGE_DTYPES):
            raise ConfigError(
                f"{_WHERE}, average_dtype: expected torch.float32 or torch.bfloat16, got {average_dtype}; "
                "the posterior itself is computed in float32 at least"
            )
        self.num_nodes = num_nodes
        self.average_dtype = average_dtype
        self.window = window
        self.node_ids: Tensor | None
        self.register_buffer("node_ids", None if node_ids is None else self._sorted(node_ids), persistent=False)
        for name in _PARTS:
            self.register_buffer(name, None)

    @property
    def num_rows(self) -> int:
        """K."""
        return self.num_nodes if self.node_ids is None else len(self.node_ids)

    def part(self, name: str) -> Tensor:
        """Return a buffer that exists."""
        value = getattr(self, name)
        assert isinstance(value, Tensor)
        return value

    def prepare(self, num_classes: int, device: torch.device) -> None:
        """Make the buffers, or check that they are of as many classes and move them to the device.

        Raises
        ------
        ShapeError
            If the number of classes differs.
        """
        if getattr(self, "last_epoch", None) is None:
            self._set(self._blank(num_classes, device))
        self.to(device)
        if self.average_dtype is not None and self.part("average").shape[1] != num_classes:
            raise ShapeError(
                f"{_WHERE}, logits: expected C = {self.part('average').shape[1]} as in the state, got {num_classes}; "
                "take a new gate for other classes"
            )

    def rows(self, ids: Tensor) -> Tensor:
        """Return the rows ``(n,)`` of some nodes.

        Raises
        ------
        ConfigError
            A node has no row, or comes twice.
        """
        if self.node_ids is None:
            rows, wrong = ids, (ids < 0) | (ids >= self.num_nodes)
        else:
            rows = torch.searchsorted(self.node_ids, ids).clamp_(max=self.num_rows - 1)
            wrong = self.node_ids[rows] != ids
        if wrong.any():
            raise ConfigError(
                f"{_WHERE}, ids: expected ids of nodes with state, {self.num_rows} of {self.num_nodes}, "
                f"got {int(ids[wrong][0])}; leave other nodes out or name them in node_ids"
            )
        order = torch.arange(len(rows), device=rows.device)
        place = torch.empty(self.num_rows, dtype=torch.int64, device=rows.device).index_copy_(0, rows, order)
        repeated = place[rows] != order
        if repeated.any():
            raise ConfigError(
                f"{_WHERE}, ids: each node may come once in a call, got {int(ids[repeated][0])} twice; "
                "draw batches without replacement"
            )
        return rows

    def _blank(self, num_classes: int, device: torch.device) -> dict[str, Tensor]:
        """Return the buffers of nodes that were never seen."""
        k = self.num_rows
        parts = {
            "last_epoch": torch.full((k,), NEVER, dtype=torch.int32, device=device),
            "stability": torch.ones(k, device=device),
        }
        if self.average_dtype is not None:
            parts["average"] = torch.zeros(k, num_classes, dtype=self.average_dtype, device=device)
        if self.window:
            parts["history"] = torch.full((k, self.window), NEVER, dtype=torch.int8, device=device)
            parts["changes"] = torch.zeros(k, dtype=torch.int8, device=device)
        return parts

    def _set(self, parts: dict[str, Tensor]) -> None:
        for name in _PARTS:
            setattr(self, name, parts.get(name))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make the buffers that are about to be filled; without any in `state_dict` the memory is empty again."""
        marker, average = state_dict.get(f"{prefix}last_epoch"), state_dict.get(f"{prefix}average")
        num_classes = 0 if average is None else average.shape[1]
        self._set({} if marker is None else self._blank(num_classes, marker.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _sorted(self, node_ids: Tensor) -> Tensor:
        check_axes(_WHERE, "node_ids", node_ids, ("k",), dtype=torch.int64, hint="one id a node")
        known: Tensor = torch.unique(node_ids)
        if not len(known) or len(known) < len(node_ids) or known[0] < 0 or known[-1] >= self.num_nodes:
            raise ConfigError(
                f"{_WHERE}, node_ids: expected at least one id, distinct, in [0, {self.num_nodes}), got "
                f"{len(node_ids)} ids, {len(known)} distinct, {known[:1].tolist()} to {known[-1:].tolist()}; "
                "pass the ids of the training nodes"
            )
        return known
