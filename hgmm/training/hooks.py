"""What a task may leave out: the trainer asks for it here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hgmm.graph import MultimodalGraph
from hgmm.training.loaders import Batch
from hgmm.training.task import Task

__all__ = ["ask_task", "nodes_to_validate", "training_loss"]


def ask_task(task: Task, name: str, *args: Any) -> Any:
    """Call a method of a task and return its result; None if the task has no such method."""
    method = getattr(task, name, None)
    return None if method is None else method(*args)


def nodes_to_validate(task: Task, graph: MultimodalGraph) -> Tensor:
    """Return the validation nodes, followed by the other nodes that the task watches."""
    val = graph.val_idx
    watched = getattr(task, "watched_nodes", None)
    if watched is None:
        return val
    watched = watched.to(val.device)
    return torch.cat([val, watched[~torch.isin(watched, val)]])


def training_loss(task: Task, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Run the model on a batch and return the task's loss and its terms."""
    output = model(*batch.inputs)
    own = getattr(task, "training_loss", None)
    loss: tuple[Tensor, dict[str, float]] = (
        task.loss(output, batch.target) if own is None else own(model, output, batch)
    )
    return loss
