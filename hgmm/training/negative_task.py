"""Negative learning on the branches of any node classifier, as a task of the trainer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError
from hgmm.graph import MultimodalGraph
from hgmm.losses import negative_learning_loss
from hgmm.negative_learning import (
    TRANSFER_FIGURES,
    Arbitration,
    NeighborReference,
    StabilityGate,
    arbitrate,
    shares_of_counts,
    transfer_counts,
)
from hgmm.training.loaders import Batch
from hgmm.training.negative_config import NegativeConfig
from hgmm.training.target_neighbors import TargetNeighbors
from hgmm.training.task import NodeClassificationTask
from hgmm.typing import NodeOutput

__all__ = ["NegativeLearningTask"]

_WHERE = "NegativeLearningTask"


class NegativeLearningTask:
    r"""Predict the class of each target node, and let its reliable branches teach the others what it is not.

    ``loss = supervised + weight * negative``: at each training node `hgmm.negative_learning.arbitrate` chooses who
    teaches whom, `StabilityGate` how much, and `hgmm.losses.negative_learning_loss` is the mean over these pairs. Any
    model does whose `NodeOutput` has ``branch_logits``.

    Parameters
    ----------
    config : NegativeConfig
        All options; a weight of 0 leaves `supervised` alone, bit for bit.
    supervised : NodeClassificationTask, optional
        The cross-entropies, the scores and what to steer by; its loss is that of validation. It takes the mean over
        fused and branch cross-entropies, so that a weight counts as much as one of ``1 + branch_weight * P`` times its
        size beside their sum.

    Notes
    -----
    **Neighbours.** The reference of arbitration runs over edges between target nodes or, where there are none, over
    paths of two steps (`hgmm.training.target_neighbors`). What it knows of a node is its label if that is a training
    label, else its fused posterior of the last validation pass, and before the first one that all classes are as
    likely. So it is the same for all steps of an epoch, however these are batched, and nothing depends on sampled
    neighbours.

    **Cost.** On the full graph the posteriors come with the validation pass. With sampled batches that pass also visits
    `watched_nodes`, those nodes beside the training nodes that have a training node for a neighbour; a graph weight of
    0 saves that. Besides: a table ``(N, C)`` and as much for the reference, one sparse product (two for paths of two
    steps) with C columns a relation and epoch, and the state of the gate, ``4 C`` bytes a training node. The stability
    ``entropy`` costs a forward pass a step.

    **Order.** `Trainer` calls the other methods; a checkpoint between any two steps goes on bit for bit.

    References
    ----------
    Ours: a reconstruction of the training of GraphMNL, arXiv 2606.12863, whose formulas could not be read.

    Examples
    --------
    >>> task = NegativeLearningTask(NegativeConfig(weight=0.3))
    >>> trainer = Trainer(model, task, TrainConfig(epochs=100))  # doctest: +SKIP
    """

    def __init__(self, config: NegativeConfig, supervised: NodeClassificationTask | None = None) -> None:
        self.config = config
        self.supervised = NodeClassificationTask() if supervised is None else supervised
        self.monitor = self.supervised.monitor
        self.patience_monitor = self.supervised.patience_monitor
        self._fit: _Fit | None = None
        self._epoch = 0
        self._transfers = torch.zeros(len(TRANSFER_FIGURES), 2, dtype=torch.float64)
        self._branch_hits: dict[str, list[int]] = {}

    @property
    def watched_nodes(self) -> Tensor:
        """``(k,)`` int64: nodes, none of them for training, whose posteriors the training nodes' reference needs."""
        return self._started.watched

    def loss(self, output: NodeOutput, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the supervised loss, which is that of validation, and its terms."""
        return self.supervised.loss(output, target)

    def metrics(self, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Return the scores of the supervised task."""
        return self.supervised.metrics(logits, target)

    def on_fit_start(self, graph: MultimodalGraph, device: torch.device) -> None:
        """Forget what was, and look at the graph.

        Raises
        ------
        ConfigError
            The variant ``nckd`` is asked of a graph of two classes.
        """
        if self.config.weight and self.config.variant == "nckd" and graph.schema.num_classes == 2:
            raise ConfigError(
                "negative.variant: 'nckd' compares the classes besides the label, of which a graph of 2 classes has "
                f"one, and is 0 ({graph.name!r}); take negative.variant=nl, or negative.weight=0"
            )
        self._fit = _Fit.of(self.config, graph, device)
        self._epoch = 0
        self._transfers = torch.zeros_like(self._transfers, device=device)
        self._branch_hits = {}

    def on_epoch_start(self, epoch: int) -> None:
        """Take note of the epoch."""
        self._epoch = epoch

    def training_loss(self, model: nn.Module, output: NodeOutput, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a training step and its terms, those of `supervised` and ``negative_learning``.

        Raises
        ------
        ConfigError
            The model has no branches, or a label is outside [0, C).
        """
        if not self.config.weight:
            return self.supervised.loss(output, batch.target)
        logits = _branches(output)
        decision, weight = self.decide(output, batch.target, batch.nodes, perturbed=self._clean_logits(model, batch))
        self._transfers += transfer_counts(decision, weight, logits, batch.target, available=output.available)
        total, terms = self.supervised.loss(output, batch.target)
        negative = negative_learning_loss(
            logits,
            decision.of_dominant(logits),
            batch.target,
            variant=self.config.variant,
            pairs=decision.pairs,
            weight=weight,
            temperature=self.config.temperature,
        )
        return total + self.config.weight * negative, {**terms, "negative_learning": float(negative.detach())}

    def decide(
        self, output: NodeOutput, target: Tensor, nodes: Tensor, *, perturbed: Tensor | None = None
    ) -> tuple[Arbitration, Tensor]:
        """Decide who teaches whom in this epoch, and how much; the gate takes note.

        Parameters
        ----------
        output : NodeOutput
            With branches, of n nodes.
        target, nodes : Tensor
            ``(n,)`` int64: their classes, and which training nodes they are.
        perturbed : Tensor, optional
            ``(n, P, C)`` branch logits under other noise, for the stability ``entropy``.

        Returns
        -------
        decision : Arbitration
            With the pairs ``(n, P)``.
        weight : Tensor
            ``(n, P)`` in [0, 1].

        Raises
        ------
        ConfigError
            The model has no branches, a label is outside [0, C), or a node is not for training.
        """
        config, fit, logits = self.config, self._started, _branches(output)
        decision = arbitrate(
            logits,
            output.logits,
            target,
            available=output.available,
            reference=None if fit.reference is None else fit.reference.rows(nodes),
            weights=(config.confidence_weight, config.margin_weight, config.graph_weight),
            margin_temperature=config.margin_temperature,
            delta=config.delta,
        )
        return decision, fit.gate(decision, logits, nodes, epoch=self._epoch - 1, perturbed_logits=perturbed)

    def on_validation(self, output: NodeOutput, nodes: Tensor) -> None:
        """Take note of fused posteriors, and of which branches are right at the validation nodes."""
        fit = self._started
        if fit.posteriors is not None:
            fit.posteriors[nodes] = output.logits.softmax(1).to(fit.posteriors.dtype)
        if output.branch_logits is None:
            return
        right = output.branch_logits.argmax(2) == fit.labels[nodes].unsqueeze(1)
        scored = fit.is_val[nodes].unsqueeze(1).expand_as(right)
        if output.available is not None:
            scored = scored & output.available
        hits, counts = (right & scored).sum(0).tolist(), scored.sum(0).tolist()
        for name, hit, count in zip(output.branch_names, hits, counts, strict=True):
            before = self._branch_hits.get(name, [0, 0])
            self._branch_hits[name] = [before[0] + hit, before[1] + count]

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the epoch's figures by group; a group without any is left out.

        ``transfer`` has `hgmm.negative_learning.transfer_shares` on the training nodes, as the training steps saw them;
        ``branch_accuracy`` that of each branch among the validation nodes that have it.
        """
        transfer = shares_of_counts(self._transfers) if self.config.weight else {}
        accuracy = {name: hit / count for name, (hit, count) in self._branch_hits.items() if count}
        groups = {"transfer": transfer, "branch_accuracy": accuracy}
        return {name: group for name, group in groups.items() if group}

    def on_epoch_end(self, epoch: int) -> None:
        """Look at the neighbours with the new posteriors."""
        self._started.look()
        self._transfers.zero_()
        self._branch_hits = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the gate, the posteriors, and what was counted in this epoch."""
        fit = self._started
        own = {"epoch": torch.tensor(self._epoch), "transfers": self._transfers}
        if fit.posteriors is not None:
            own["posteriors"] = fit.posteriors
        return own | {f"gate.{name}": value for name, value in fit.gate.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned; after `on_fit_start`."""
        fit = self._started
        self._epoch = int(state["epoch"])
        self._transfers.copy_(state["transfers"])
        if fit.posteriors is not None:
            fit.posteriors.copy_(state["posteriors"])
        prefix = "gate."
        fit.gate.load_state_dict({key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)})
        fit.look()

    @property
    def _started(self) -> _Fit:
        if self._fit is None:
            raise ConfigError(
                f"{_WHERE}: it does not know the graph yet, got no call of on_fit_start; let a Trainer run it, or call "
                "on_fit_start(graph, device) first"
            )
        return self._fit

    def _clean_logits(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """Return the branches' logits without dropout, where the gate compares with them."""
        if self.config.stability != "entropy" or self.config.gate == "off":
            return None
        was_training = model.training
        model.eval()
        with torch.no_grad():
            logits = _branches(model(*batch.inputs))
        model.train(was_training)
        return logits


@dataclass
class _Fit:
    """What a task knows of the graph that it is fitted to, N target nodes; all on the device of the outputs."""

    labels: Tensor
    is_val: Tensor
    is_train: Tensor
    watched: Tensor
    posteriors: Tensor | None
    neighbors: TargetNeighbors | None
    compatibility: Tensor | None
    gate: StabilityGate
    reference: NeighborReference | None = None

    @classmethod
    def of(cls, config: NegativeConfig, graph: MultimodalGraph, device: torch.device) -> _Fit:
        labels, num_classes = graph.labels.to(device), graph.schema.num_classes
        is_train, is_val = (_mask(graph.split(name), len(labels), device) for name in ("train", "val"))
        neighbors = TargetNeighbors(graph, device) if config.weight and config.graph_weight else None
        compatibility, posteriors, heard = None, None, torch.zeros_like(is_train)
        if neighbors:
            posteriors = torch.full((len(labels), num_classes), 1 / num_classes, device=device)
            heard = neighbors.heard_by(is_train) & ~is_train
            compatibility = neighbors.compatibility(labels, is_train, num_classes) if config.heterophily else None
        fit = cls(
            labels,
            is_val,
            is_train,
            watched=heard.nonzero().squeeze(1),
            posteriors=posteriors,
            neighbors=neighbors or None,
            compatibility=compatibility,
            gate=_gate(config, graph, device),
        )
        fit.look()
        return fit

    def look(self) -> None:
        """Form the reference anew."""
        if self.neighbors is not None and self.posteriors is not None:
            self.reference = self.neighbors.reference(self.posteriors, self.labels, self.is_train, self.compatibility)


def _gate(config: NegativeConfig, graph: MultimodalGraph, device: torch.device) -> StabilityGate:
    return StabilityGate(
        graph.num_nodes(graph.target),
        node_ids=graph.train_idx.to(device),
        mode=config.gate,
        measure=config.stability,
        momentum=config.momentum,
        gamma=config.gamma,
        exponent=config.exponent,
        delta=config.delta,
        temperature=config.gate_temperature,
        warmup_epochs=config.warmup_epochs,
        ramp_epochs=config.ramp_epochs,
        min_stability=config.min_stability,
        max_changes=config.max_changes,
        window=config.window,
    )


def _mask(nodes: Tensor, size: int, device: torch.device) -> Tensor:
    return torch.zeros(size, dtype=torch.bool, device=device).index_fill_(0, nodes.to(device), True)


def _branches(output: NodeOutput) -> Tensor:
    if output.branch_logits is None:
        raise ConfigError(
            f"{_WHERE}: the model must return branch_logits for negative.weight above 0, got None; "
            "take a model with branches, or negative.weight=0"
        )
    return output.branch_logits
