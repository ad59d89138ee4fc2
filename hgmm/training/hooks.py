"""What a task may leave out: the trainer asks for it here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hgmm.errors import DataError
from hgmm.graph import MultimodalGraph
from hgmm.training.loaders import Batch
from hgmm.training.task import NodeTask, Task

__all__ = ["ask_task", "nodes_to_validate", "restore_task", "task_state", "training_loss"]


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
        cast(NodeTask, task).loss(output, batch.target) if own is None else own(model, output, batch)
    )
    return loss


def task_state(task: Task) -> dict[str, Tensor]:
    """Return the tensors of a task that travel in checkpoints; none if it has no state."""
    return dict(ask_task(task, "state_dict") or {})


def restore_task(task: Task, state: Mapping[str, Tensor], *, folder: Path) -> None:
    """Give a task the state of a checkpoint folder.

    Raises
    ------
    DataError
        If it does not fit, because another task wrote it, or one with other options.
    """
    if not state and not task_state(task):
        return
    name = type(task).__name__
    hint = "resume with the task and the options that wrote it"
    if not state or not hasattr(task, "load_state_dict"):
        rule = f"{name} needs its state, got none" if not state else f"{name} has no state, got that of another task"
        raise DataError(f"{folder}: {rule}; {hint}")
    try:
        ask_task(task, "load_state_dict", dict(state))
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"{folder}: its state does not fit {name} ({reason}); {hint}") from error
