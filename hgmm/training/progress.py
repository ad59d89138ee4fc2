"""What a training run tells: a record an epoch, a result at the end, and those who follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hgmm.graph import MultimodalGraph

if TYPE_CHECKING:
    from hgmm.training.trainer import Trainer

__all__ = ["Callback", "EpochRecord", "FitResult", "LoopState"]


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    loss : float
        Mean training loss a node.
    val : dict of str to float
        Validation figures; empty in epochs without validation.
    seconds : float
        Duration, validation included.
    learning_rate : float
        Rate of the last step.
    terms : dict of str to float
        Mean of each term of the training loss.
    figures : dict of str to dict of str to float
        What else the task tells, by group; see `hgmm.training.Task`.
    """

    epoch: int
    loss: float
    val: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    learning_rate: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class FitResult:
    """What a training run gave.

    Attributes
    ----------
    epochs : list of EpochRecord
        In order, those before a resumption included.
    best_epoch : int
        Epoch whose weights the model holds now; 0 if the run was stopped before any.
    test : dict of str to float
        Test figures with these weights; empty without test nodes or if the run was stopped.
    seconds : float
        Duration of all epochs.
    peak_memory_mib : float
        Highest memory use: of the GPU there, else of the process.
    throughput : float
        Training nodes a second, validation included.
    status : str
        ``done`` or ``interrupted``.
    """

    epochs: list[EpochRecord]
    best_epoch: int
    test: dict[str, float]
    seconds: float
    peak_memory_mib: float
    throughput: float
    status: str


@dataclass
class LoopState:
    """What the loop counts; everything in it is JSON data and travels in checkpoints."""

    epoch: int = 1
    step: int = 0
    updates: int = 0
    loss_sum: float = 0.0
    term_sums: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    best_value: float | None = None
    best_epoch: int = 0
    patience_value: float | None = None
    patience_epoch: int = 0
    validated_epoch: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    peak_memory_mib: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class Callback(Protocol):
    """Follows a run; every method may be left out by a subclass."""

    # Type checkers take a method without any statement for abstract, hence the returns.

    def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
        """Run before the first epoch; ``trainer.history`` holds the epochs of a resumed run."""
        return

    def on_step(self, step: int, num_steps: int) -> None:
        """Run after step `step` of an epoch, counted from 1."""
        return

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Run after an epoch and its validation."""
        return

    def on_fit_end(self, result: FitResult) -> None:
        """Run at the end, also after an interruption."""
        return
