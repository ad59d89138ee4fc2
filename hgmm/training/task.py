"""What is learnt: a task turns outputs into a loss and predictions into figures; the loop knows neither."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError, unknown_name
from hgmm.losses import cross_modal_loss
from hgmm.training.config import NODE_MONITORS, TrainConfig
from hgmm.typing import NodeOutput

__all__ = ["NodeClassificationTask", "NodeTask", "Task", "classification_metrics"]


class Task(Protocol):
    """What `Trainer` asks of a task.

    A task may also have any of these:

    - ``on_fit_start(graph, device)``: before the first epoch and before a checkpoint is read, with the graph that is
      trained on and where outputs will be;
    - ``on_epoch_start(epoch)``, ``on_epoch_end(epoch)``: counted from 1; a run that is resumed inside an epoch does not
      start it again;
    - ``training_loss(model, output, batch)``: takes the place of `loss` in training, where that depends on which nodes
      the rows of the output are about;
    - ``plan(model, graph, config, device)``: a `hgmm.training.plan.Plan`, for a task that is not about target nodes;
    - ``watched_nodes``, ``(k,)`` numbers of target nodes: they are run through the model together with the validation
      nodes, in evaluation mode, at each validation;
    - ``on_validation(output, nodes)``: each batch of that pass, without gradients;
    - ``figures() -> dict[str, dict[str, float]]``: at the end of an epoch, before ``on_epoch_end``, what its record
      shall keep beside loss and validation, by group;
    - ``unit``: what is trained on, for the throughput of a run, as ``training nodes``;
    - ``state_dict() -> dict[str, Tensor]`` with ``load_state_dict``: travel in checkpoints, which may be written
      between any two steps.
    """

    @property
    def monitor(self) -> tuple[str, str]:
        """Name of the validation figure that chooses the weights, and ``max`` or ``min``."""
        ...

    @property
    def patience_monitor(self) -> tuple[str, str]:
        """Name of the validation figure that early stopping watches, and ``max`` or ``min``."""
        ...


class NodeTask(Task, Protocol):
    """What a task about target nodes gives beside; one with a ``plan`` and a ``training_loss`` of its own need not."""

    def loss(self, output: NodeOutput, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the scalar to minimise and its terms by name."""
        ...

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Return the figures of a set of predictions."""
        ...


class NodeClassificationTask:
    """Predict the class of each target node.

    ``loss = cross_modal_loss(logits, branch_logits) + missing_attention_weight * L_att``, where a model without
    branches, or whose output has no ``aux["missing_attention"]``, simply has fewer terms.

    Parameters
    ----------
    branch_weight : float, optional
        Weight of each branch's own cross-entropy, at least 0; 0 switches them off (ablation ``L_ind``).
    missing_attention_weight : float, optional
        Weight of L_att, at least 0; 0 switches it off (ablation ``L_att``).
    label_smoothing : float, optional
        In [0, 1).
    monitor : str, optional
        Validation figure that chooses the weights to keep: ``micro_f1``, ``macro_f1``, ``accuracy`` or ``loss``.
    patience_monitor : str, optional
        Validation figure that early stopping watches. Default: `monitor`.

    Raises
    ------
    ConfigError
        If a number is out of range or a monitor is unknown.
    """

    def __init__(
        self,
        *,
        branch_weight: float = 0.2,
        missing_attention_weight: float = 1.0,
        label_smoothing: float = 0.0,
        monitor: str = "micro_f1",
        patience_monitor: str | None = None,
    ) -> None:
        weights = {"branch_weight": branch_weight, "missing_attention_weight": missing_attention_weight}
        for name, value in {**weights, "label_smoothing": label_smoothing}.items():
            if not value >= 0 or (name == "label_smoothing" and value >= 1):
                rule = "in [0, 1)" if name == "label_smoothing" else "at least 0"
                raise ConfigError(f"NodeClassificationTask {name}: must be {rule}, got {value!r}")
        for name, monitored in (("monitor", monitor), ("patience_monitor", patience_monitor or monitor)):
            if monitored not in NODE_MONITORS:
                raise ConfigError(f"NodeClassificationTask {name}: {unknown_name('monitor', monitored, NODE_MONITORS)}")
        self.branch_weight = branch_weight
        self.missing_attention_weight = missing_attention_weight
        self.label_smoothing = label_smoothing
        self.monitor = (monitor, NODE_MONITORS[monitor])
        self.patience_monitor = (patience_monitor or monitor, NODE_MONITORS[patience_monitor or monitor])

    @classmethod
    def from_config(cls, config: TrainConfig) -> NodeClassificationTask:
        """Build the task from the fields of a `TrainConfig` that concern it."""
        return cls(
            branch_weight=config.branch_weight,
            missing_attention_weight=config.missing_attention_weight,
            label_smoothing=config.label_smoothing,
            monitor=config.monitor,
            patience_monitor=config.patience_monitor,
        )

    def loss(self, output: NodeOutput, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the scalar to minimise and its terms.

        Parameters
        ----------
        output : NodeOutput
            Logits ``(n, C)``, maybe with ``(n, P, C)`` branch logits.
        target : Tensor
            ``(n,)`` int64 classes.

        Returns
        -------
        loss : Tensor
            Scalar.
        terms : dict of str to float
            ``cross_entropy`` and, where the model gives it, ``missing_attention`` (not weighted).
        """
        total = cross_modal_loss(
            output.logits,
            output.branch_logits,
            target,
            branch_weight=self.branch_weight,
            available=output.available,
            label_smoothing=self.label_smoothing,
        )
        terms = {"cross_entropy": float(total.detach())}
        missing = output.aux.get("missing_attention")
        if missing is not None:
            terms["missing_attention"] = float(missing.detach())
            if self.missing_attention_weight:
                total = total + self.missing_attention_weight * missing
        return total, terms

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Return ``accuracy``, ``micro_f1`` and ``macro_f1``; see `classification_metrics`."""
        return classification_metrics(logits, target)


def classification_metrics(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Return the figures of a single-label classification.

    Parameters
    ----------
    logits : Tensor
        ``(n, C)`` floating point; the first of equal largest entries is the prediction.
    target : Tensor
        ``(n,)`` int64 in [0, C).

    Returns
    -------
    dict of str to float
        ``accuracy``; ``micro_f1``, which equals it where each node has one label; ``macro_f1``, the mean of
        ``2 TP / (2 TP + FP + FN)`` over the classes that occur among the labels or the predictions, which is what
        scikit-learn's ``f1_score(average="macro")`` computes.

    Raises
    ------
    ShapeError
        If the shapes do not fit or there is no node.
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1] or not len(target):
        raise ShapeError(
            f"classification_metrics: logits must be (n, C) and target (n,) with n > 0, got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    num_classes = logits.shape[1]
    predicted = logits.detach().argmax(1).cpu()
    cells = torch.bincount(target.cpu() * num_classes + predicted, minlength=num_classes**2)
    confusion = cells.view(num_classes, num_classes).double()
    hits = confusion.diagonal()
    labelled_or_predicted = confusion.sum(0) + confusion.sum(1)
    occurring = labelled_or_predicted > 0
    accuracy = float(hits.sum() / len(target))
    macro = float((2 * hits[occurring] / labelled_or_predicted[occurring]).mean())
    return {"accuracy": accuracy, "micro_f1": accuracy, "macro_f1": macro}
