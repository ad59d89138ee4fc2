"""Outputs of a trained model for many nodes, in the batches that its configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hgmm.training.loaders import Batch, Loader
from hgmm.training.task import NodeTask
from hgmm.typing import NodeOutput

__all__ = ["collect_outputs", "evaluate"]

PER_NODE_AUX = ("modality_weights", "branch_weights", "embedding")


@torch.no_grad()
def collect_outputs(model: nn.Module, loader: Loader[Batch]) -> NodeOutput:
    """Run a model in evaluation mode over all batches and join what belongs to single nodes.

    Parameters
    ----------
    model : torch.nn.Module
        Returns a `NodeOutput`; its mode is restored afterwards.
    loader : Loader
        Keeps the order of its nodes.

    Returns
    -------
    NodeOutput
        On the CPU: `logits`, and of `aux` the entries ``modality_weights``, ``branch_weights`` and ``embedding`` where
        the model gives them.
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
def evaluate(
    model: nn.Module,
    task: NodeTask,
    loader: Loader[Batch],
    *,
    scored: int | None = None,
    follow: Callable[[NodeOutput, Tensor], None] | None = None,
) -> dict[str, float]:
    """Return a task's figures over all batches, and its mean loss a node as ``loss``.

    Parameters
    ----------
    model : torch.nn.Module
        Returns a `NodeOutput`; run in evaluation mode, its own mode is restored.
    task : NodeTask
        Gives loss and figures.
    loader : Loader
        At least one node, in a fixed order.
    scored : int, optional
        The figures are about the loader's first nodes, so many of them; none, without any. Default: all.
    follow : callable, optional
        Given every batch's output and its nodes.
    """
    was_training = model.training
    model.eval()
    scored = loader.num_items if scored is None else scored
    logits: list[Tensor] = []
    target: list[Tensor] = []
    loss, left = 0.0, scored
    for batch in loader.batches(0):
        output: NodeOutput = model(*batch.inputs)
        if follow is not None:
            follow(output, batch.nodes)
        count = min(left, len(batch.target))
        left -= count
        if count:
            output, labels = _first_rows(output, count), batch.target[:count]
            logits.append(output.logits)
            target.append(labels)
            loss += float(task.loss(output, labels)[0]) * count
    model.train(was_training)
    return {**task.metrics(torch.cat(logits), torch.cat(target)), "loss": loss / scored} if scored else {}


def _first_rows(output: NodeOutput, count: int) -> NodeOutput:
    """Return the output for the first nodes; what `aux` has of single nodes, a loss does not read."""
    branches, available = output.branch_logits, output.available
    return output._replace(
        logits=output.logits[:count],
        branch_logits=None if branches is None else branches[:count],
        available=None if available is None else available[:count],
    )
