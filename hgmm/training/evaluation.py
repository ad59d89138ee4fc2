"""Outputs of a trained model for many nodes, in the batches that its configuration asks for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hgmm.training.loaders import NodeLoader
from hgmm.training.task import Task
from hgmm.typing import NodeOutput

__all__ = ["collect_outputs", "evaluate"]

PER_NODE_AUX = ("modality_weights", "embedding")


@torch.no_grad()
def collect_outputs(model: nn.Module, loader: NodeLoader) -> NodeOutput:
    """Run a model in evaluation mode over all batches and join what belongs to single nodes.

    Parameters
    ----------
    model : torch.nn.Module
        Returns a `NodeOutput`; its mode is restored afterwards.
    loader : NodeLoader
        Keeps the order of its nodes.

    Returns
    -------
    NodeOutput
        On the CPU: `logits`, and of `aux` the entries ``modality_weights`` and ``embedding`` where the model gives
        them.
    """
    was_training = model.training
    model.eval()
    logits: list[Tensor] = []
    aux: dict[str, list[Tensor]] = {}
    names: tuple[str, ...] = ()
    for batch in loader.batches(0):
        output: NodeOutput = model(*batch.inputs)
        logits.append(output.logits.cpu())
        names = output.branch_names
        for name in PER_NODE_AUX:
            if name in output.aux:
                aux.setdefault(name, []).append(output.aux[name].cpu())
    model.train(was_training)
    joined = {name: torch.cat(parts) for name, parts in aux.items()}
    return NodeOutput(torch.cat(logits), branch_names=names, aux=joined)


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, loader: NodeLoader) -> dict[str, float]:
    """Return a task's figures over all batches, and its mean loss a node as ``loss``.

    Parameters
    ----------
    model : torch.nn.Module
        Returns a `NodeOutput`; run in evaluation mode, its own mode is restored.
    task : Task
        Gives loss and figures.
    loader : NodeLoader
        At least one node.
    """
    was_training = model.training
    model.eval()
    logits: list[Tensor] = []
    target: list[Tensor] = []
    loss = 0.0
    for batch in loader.batches(0):
        output: NodeOutput = model(*batch.inputs)
        logits.append(output.logits)
        target.append(batch.target)
        loss += float(task.loss(output, batch.target)[0]) * len(batch.target)
    model.train(was_training)
    return {**task.metrics(torch.cat(logits), torch.cat(target)), "loss": loss / loader.num_nodes}
