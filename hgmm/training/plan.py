"""What the loop goes through for one graph: batches to train on, and what validation and test are."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import nn

from hgmm.errors import SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.training.config import TrainConfig
from hgmm.training.evaluation import evaluate
from hgmm.training.hooks import nodes_to_validate
from hgmm.training.loaders import Loader, make_loader
from hgmm.training.task import NodeTask, Task

__all__ = ["NodePlan", "Plan", "make_plan"]


class Plan(Protocol):
    """A task on one graph.

    Attributes
    ----------
    train : Loader
        The batches of an epoch.
    has_val, has_test : bool
        Whether there is anything to validate and to test on.
    """

    train: Loader[Any]
    has_val: bool
    has_test: bool

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the validation data, maybe with the mean loss as ``loss``."""
        ...

    def test(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the test data, maybe with ``loss``."""
        ...


class NodePlan:
    """Train, validate and test on the target nodes of a graph's split.

    Parameters
    ----------
    task : NodeTask
        Gives loss and figures of a model's output.
    graph : MultimodalGraph
        The graph, where it is batched.
    config : TrainConfig
        How it is batched.
    device : torch.device
        Where the model is.

    Raises
    ------
    SchemaError
        If the graph has no training node.
    """

    def __init__(self, task: NodeTask, graph: MultimodalGraph, config: TrainConfig, device: torch.device) -> None:
        if not len(graph.train_idx):
            raise SchemaError(
                f"Trainer.fit graph: {graph.name!r} has no training node; give it a split in graph.yaml or a train_mask"
            )
        self._task, self._graph, self._config, self._device = task, graph, config, device
        self.train = make_loader(graph, graph.train_idx, config, device=device, training=True)
        self.has_val = len(graph.val_idx) > 0
        self.has_test = len(graph.test_idx) > 0

    @cached_property
    def _val(self) -> Loader[Any]:
        # The nodes that a task watches are known when it has seen the graph.
        nodes = nodes_to_validate(self._task, self._graph)
        return make_loader(self._graph, nodes, self._config, device=self._device, training=False)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the validation nodes; the task is shown these and the nodes that it watches."""
        if not self._val.num_items:
            return {}
        follow = getattr(self._task, "on_validation", None)
        return evaluate(model, self._task, self._val, scored=len(self._graph.val_idx), follow=follow)

    def test(self, model: nn.Module) -> dict[str, float]:
        """Return the figures of the test nodes."""
        loader = make_loader(self._graph, self._graph.test_idx, self._config, device=self._device, training=False)
        return evaluate(model, self._task, loader)


def make_plan(task: Task, model: nn.Module, graph: MultimodalGraph, config: TrainConfig, device: torch.device) -> Plan:
    """Return what the task's method ``plan(model, graph, config, device)`` gives, or else a plan for target nodes."""
    own = getattr(task, "plan", None)
    plan: Plan = (
        NodePlan(cast(NodeTask, task), graph, config, device) if own is None else own(model, graph, config, device)
    )
    return plan
