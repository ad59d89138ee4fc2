"""How much a dominant branch may teach: weights of pairs that fall where its prediction is unsteady."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels._checks import check_axes, check_choice, check_number
from hgmm.negative_learning._branches import check_branches, row_blocks
from hgmm.negative_learning._memory import NEVER, NodeMemory
from hgmm.negative_learning.arbitration import Arbitration

__all__ = ["MEASURES", "MODES", "StabilityGate", "entropy_stability", "posterior_stability"]

MODES = ("off", "soft", "hard")
MEASURES = ("posterior", "entropy")
MAX_BRANCHES = torch.iinfo(torch.int8).max + 1

_WHERE = "StabilityGate"
_INF = math.inf
# Lowest and highest value, whether the lowest is excluded, and what to do.
_RANGES: dict[str, tuple[float, float, bool, str]] = {
    "momentum": (0, 1, False, "0 keeps the last posterior only"),
    "gamma": (0, _INF, False, "0 leaves the stability out"),
    "exponent": (0, _INF, True, "1 is linear"),
    "delta": (0, _INF, False, "take that of arbitrate"),
    "temperature": (0, _INF, True, "0.1 is the default"),
    "warmup_epochs": (0, _INF, False, "0 starts at once"),
    "ramp_epochs": (0, _INF, False, "0 switches the transfer on at once"),
    "min_stability": (0, 1, False, "0 asks for none"),
    "max_changes": (0, _INF, False, "0 allows none"),
    "window": (1, torch.iinfo(torch.int8).max, False, "5 is the default"),
}
_COUNTS = ("warmup_epochs", "ramp_epochs", "max_changes", "window")


def posterior_stability(posterior: Tensor, average: Tensor) -> Tensor:
    """Compare two distributions: ``s = 1 - JS(posterior, average) / ln 2``.

    Parameters
    ----------
    posterior, average : Tensor
        ``(n, C)``, rows sum to 1.

    Returns
    -------
    Tensor
        ``(n,)`` in [0, 1]; 1 where they are equal, 0 where no class has mass in both.

    Raises
    ------
    ShapeError
        The two do not have the same shape ``(n, C)``.

    Examples
    --------
    >>> import torch
    >>> posterior_stability(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    tensor([1., 0.])
    """
    where = "posterior_stability"
    check_axes(where, "posterior", posterior, ("n", "C"), hint="one distribution a node")
    check_axes(where, "average", average, tuple(posterior.shape), hint="n and C are those of posterior")
    divergence = _entropy((posterior + average) / 2) - (_entropy(posterior) + _entropy(average)) / 2
    return (1 - divergence / math.log(2)).clamp_(0, 1)


def entropy_stability(logits: Tensor, perturbed_logits: Tensor, *, exponent: float = 1.0) -> Tensor:
    """Compare the entropies of two predictions: ``s = 1 - (|H(p') - H(p)| / ln C)^a``.

    Parameters
    ----------
    logits, perturbed_logits : Tensor
        ``(n, C)``, C at least 2: of the input, and of a perturbed input such as one with noise added, the caller's own.
    exponent : float, optional
        a, above 0.

    Returns
    -------
    Tensor
        ``(n,)`` in [0, 1].

    Raises
    ------
    ConfigError
        `exponent` is out of range.
    ShapeError
        The two do not have the same shape ``(n, C)`` with C of at least 2.

    References
    ----------
    Knowledge-inspired Reliable Distillation, ICML 2023, arXiv 2306.05628, and its code (LirongWu/RKD). There the
    divisor is the largest change among all nodes and a is fitted; ``ln C`` and a fixed a make the value of a node
    independent of the other nodes of its batch.

    Examples
    --------
    >>> import torch
    >>> entropy_stability(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 0.0]]))
    tensor([1.])
    """
    where = "entropy_stability"
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ShapeError(
            f"{where}, logits: expected shape (n, C) with at least two classes, got {tuple(logits.shape)}; "
            "pass the logits of one branch"
        )
    check_axes(where, "perturbed_logits", perturbed_logits, tuple(logits.shape), hint="n and C are those of logits")
    check_number(where, "exponent", exponent, low=0, open_low=True, hint="1 is linear")
    changes = _entropy(perturbed_logits.softmax(1)) - _entropy(logits.softmax(1))
    return (1 - changes.abs_().div_(math.log(logits.shape[1])).pow_(exponent)).clamp_(0, 1)


def _entropy(p: Tensor) -> Tensor:
    # Several times as fast as torch.special.entr, which looks at each entry: 0 log 0 is 0 as long as the log is finite.
    return p.clamp(min=torch.finfo(p.dtype).tiny).log_().mul_(p).sum(1).neg_()


class StabilityGate(nn.Module):
    r"""Weigh the pairs of an arbitration by lead, stability and epoch.

    For node i with dominant branch D and inferior branch b::

        g_ib = [xi_D > 0] s_i^gamma sigmoid((R_D - R_b - delta) / T) ramp(epoch)        0 where b is not inferior
        ramp = min(max((epoch - warmup_epochs) / ramp_epochs, 0), 1)

    ``xi_D > 0`` keeps a dominant branch from teaching that does not itself rank the target above its rival. s_i is
    measured by `posterior_stability` between the dominant branch's posterior and its moving average over epochs, 1 when
    a node is seen first; or by `entropy_stability`. ``hard`` moreover sets g to 0 where ``s_i < min_stability``, or
    where the dominant branch changed in more than `max_changes` of the last `window` epochs. ``off`` leaves the ramp
    only, ``g = I ramp``, and keeps no state.

    Parameters
    ----------
    num_nodes : int
        Nodes of the graph; `forward` names them by their global ids.
    node_ids : Tensor, optional
        ``(k,)`` distinct int64 ids, for example of the training nodes: state is kept for these only. Default: all.
    mode : str, optional
        ``soft``, ``hard`` or ``off``.
    measure : str, optional
        ``posterior`` or ``entropy``.
    momentum : float, optional
        Of the moving average ``m average + (1 - m) posterior``, in [0, 1].
    gamma : float, optional
        Exponent of s, at least 0.
    exponent : float, optional
        a of `entropy_stability`, above 0.
    delta : float, optional
        As in `arbitrate`.
    temperature : float, optional
        T, above 0.
    warmup_epochs, ramp_epochs : int, optional
        Epochs without transfer, and epochs in which it grows; 0 ramp epochs switch it on at `warmup_epochs`.
    min_stability : float, optional
        For ``hard``, in [0, 1].
    max_changes, window : int, optional
        For ``hard``: changes of the dominant branch that are allowed among so many epochs, at least 0 and 1.
    average_dtype : torch.dtype, optional
        Of the moving average: float32, or bfloat16 for half the memory.

    Raises
    ------
    ConfigError
        An option is unknown or out of range, a number of epochs is not whole, or `node_ids` repeats a node or names one
        outside [0, num_nodes).

    Notes
    -----
    State comes into being in the first `forward`, for k nodes: ``4 C`` bytes a node for the average (2 C in bfloat16;
    none for ``entropy``), `window` bytes for the last dominant branches, 9 for epoch, stability and changes, 8 more for
    its id with `node_ids`. 100,000 nodes of 50 classes: 21 MB.

    In training mode `forward` updates each node at most once an epoch, with what it sees of it first, and repeats that
    stability if the node comes again; in evaluation mode it only reads. Nodes do not see each other. So the weights do
    not depend on how an epoch is cut into batches. Call it in the warm-up too. An epoch in which a node is not seen
    does not count for it.

    State travels in ``state_dict``; a gate without state can load that of another of the same `num_nodes` and
    `node_ids`.

    References
    ----------
    Ours: a reconstruction of the gate of GraphMNL, arXiv 2606.12863, and ``hard`` of its GraphMNL+; the formulas could
    not be read. The ramp is that of Decoupled Knowledge Distillation, arXiv 2203.08679, after the warm-up of Multimodal
    Negative Learning, arXiv 2510.20877.

    Examples
    --------
    >>> import torch
    >>> from hgmm.negative_learning import arbitrate
    >>> logits = torch.tensor([[[3.0, 0.0, 0.0], [1.0, 0.0, 0.5]]])
    >>> decision = arbitrate(logits, logits.mean(1), torch.tensor([0]))
    >>> gate = StabilityGate(10, warmup_epochs=0, ramp_epochs=4)
    >>> [gate(decision, logits, torch.tensor([7]), epoch=epoch) for epoch in (0, 2)]
    [tensor([[0., 0.]]), tensor([[0.0000, 0.4875]])]
    """

    def __init__(
        self,
        num_nodes: int,
        *,
        node_ids: Tensor | None = None,
        mode: str = "soft",
        measure: str = "posterior",
        momentum: float = 0.9,
        gamma: float = 1.0,
        exponent: float = 1.0,
        delta: float = 0.0,
        temperature: float = 0.1,
        warmup_epochs: int = 20,
        ramp_epochs: int = 20,
        min_stability: float = 0.8,
        max_changes: int = 1,
        window: int = 5,
        average_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.mode, self.measure = mode, measure
        self.momentum, self.gamma, self.exponent = momentum, gamma, exponent
        self.delta, self.temperature = delta, temperature
        self.warmup_epochs, self.ramp_epochs = warmup_epochs, ramp_epochs
        self.min_stability, self.max_changes, self.window = min_stability, max_changes, window
        self._check_options()
        self.memory = NodeMemory(
            num_nodes,
            node_ids=node_ids,
            average_dtype=average_dtype if measure == "posterior" else None,
            window=window if mode == "hard" else 0,
        )

    def ramp(self, epoch: int) -> float:
        """Return the share of the transfer that is on in an epoch, counted from 0."""
        if self.ramp_epochs == 0:
            return float(epoch >= self.warmup_epochs)
        return min(max((epoch - self.warmup_epochs) / self.ramp_epochs, 0.0), 1.0)

    @torch.no_grad()
    def forward(
        self,
        decision: Arbitration,
        logits: Tensor,
        ids: Tensor,
        *,
        epoch: int,
        perturbed_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the weights of the pairs, and in training mode take note of the nodes.

        Parameters
        ----------
        decision : Arbitration
            Of n nodes, from `arbitrate`.
        logits : Tensor
            ``(n, P, C)`` of the branches, at most 128.
        ids : Tensor
            ``(n,)`` distinct int64 global ids of the nodes.
        epoch : int
            Counted from 0, at least 0.
        perturbed_logits : Tensor, optional
            ``(n, P, C)`` of a perturbed input; for the measure ``entropy``, which needs them.

        Returns
        -------
        Tensor
            ``(n, P)`` in [0, 1] and the dtype of the reliability, 0 where the branch is not inferior.

        Raises
        ------
        ConfigError
            `epoch` is negative, `perturbed_logits` are missing, or `ids` repeats a node or names one without state.
        ShapeError
            The tensors do not fit each other or the state.
        """
        num_classes = self._check_inputs(decision, logits, ids, perturbed_logits)
        # A negative one would be taken for NEVER, and every node for one that was noted in this epoch.
        check_number(_WHERE, "epoch", epoch, low=0, hint="count epochs from 0")
        weight = decision.pairs * self.ramp(epoch)
        weight = weight.to(decision.reliability.dtype)
        if self.mode == "off":
            return weight
        self.memory.prepare(num_classes, logits.device)
        rows = self.memory.rows(ids)
        stability, changes = self._observe(decision, logits, perturbed_logits, rows, epoch)
        steady = decision.of_dominant(decision.margin) > 0
        if self.mode == "hard":
            # There are no more changes than the window is long; a larger bound would not fit their byte.
            most = min(self.max_changes, self.window)
            steady &= (stability >= self.min_stability) & (changes <= most)
        lead = decision.of_dominant(decision.reliability).unsqueeze(1) - decision.reliability
        weight *= torch.sigmoid((lead - self.delta) / self.temperature)
        return weight * (stability.to(weight.dtype) ** self.gamma * steady).unsqueeze(1)

    def extra_repr(self) -> str:
        """Return the options that choose what is done, for ``print``."""
        return f"mode={self.mode!r}, measure={self.measure!r}"

    def _observe(
        self,
        decision: Arbitration,
        logits: Tensor,
        perturbed_logits: Tensor | None,
        rows: Tensor,
        epoch: int,
    ) -> tuple[Tensor, Tensor]:
        """Return stability and number of changes ``(n,)`` of some nodes, and note them."""
        last = self.memory.part("last_epoch")[rows]
        # A node without branches has no posterior; what it is weighed by does not matter, as it has no pairs.
        new = (last != epoch) & decision.decided
        blocks = row_blocks(logits, perturbed_logits, decision.dominant, rows, last != NEVER, new)
        # In the dtype of the state, so that a node that comes again gets the same.
        stability = torch.cat([self._stability_of(*block) for block in blocks]).float()
        stability = stability.where(new, self.memory.part("stability")[rows])
        changes = self._changes_of(decision.dominant, rows, new)
        if self.training:
            noted = rows[new]
            self.memory.part("last_epoch")[noted] = epoch
            self.memory.part("stability")[noted] = stability[new]
        return stability, changes

    def _stability_of(
        self,
        logits: Tensor,
        perturbed_logits: Tensor | None,
        dominant: Tensor,
        rows: Tensor,
        seen: Tensor,
        new: Tensor,
    ) -> Tensor:
        """Measure a block of nodes and move their averages."""
        z = _dominant_logits(logits, dominant)
        if perturbed_logits is not None and self.measure == "entropy":
            return entropy_stability(z, _dominant_logits(perturbed_logits, dominant), exponent=self.exponent)
        average = self.memory.part("average")
        # What an unavailable branch holds, maybe NaN, must not reach the average even with a step of 0.
        posterior = z.masked_fill_(~new.unsqueeze(1), 0).softmax(1)
        before = average.index_select(0, rows).to(z.dtype)
        stability = posterior_stability(posterior, before).where(seen, 1)
        if self.training:
            step = torch.where(seen, 1 - self.momentum, 1.0) * new
            moved = before.lerp_(posterior, step.to(z.dtype).unsqueeze(1))
            average.index_copy_(0, rows, moved.to(average.dtype))
        return stability

    def _changes_of(self, dominant: Tensor, rows: Tensor, new: Tensor) -> Tensor:
        """Count how often the dominant branch changed in the window that ends with this epoch."""
        if self.mode != "hard":
            return torch.zeros_like(dominant)
        history, changes = self.memory.part("history"), self.memory.part("changes")
        path = torch.cat([history[rows], dominant.to(history.dtype).unsqueeze(1)], 1)
        before, after = path[:, :-1], path[:, 1:]
        counted = ((before != after) & (before != NEVER)).sum(1).to(changes.dtype).where(new, changes[rows])
        if self.training:
            history[rows[new]] = after[new]
            changes[rows[new]] = counted[new]
        return counted

    def _check_options(self) -> None:
        check_choice(_WHERE, "mode", self.mode, MODES)
        check_choice(_WHERE, "measure", self.measure, MEASURES)
        for name, (low, high, open_low, hint) in _RANGES.items():
            check_number(_WHERE, name, getattr(self, name), low=low, high=high, open_low=open_low, hint=hint)
        for name in _COUNTS:
            value = getattr(self, name)
            if value != int(value):
                raise ConfigError(f"{_WHERE}, {name}: must be a whole number, got {value}; it counts epochs")

    def _check_inputs(self, decision: Arbitration, logits: Tensor, ids: Tensor, perturbed_logits: Tensor | None) -> int:
        """Check the tensors and return C."""
        n, num_branches, num_classes = check_branches(_WHERE, logits)
        check_axes(_WHERE, "decision", decision.pairs, (n, num_branches), hint="arbitrate the same logits")
        check_axes(_WHERE, "ids", ids, (n,), dtype=torch.int64, hint="one id a node")
        if num_branches > MAX_BRANCHES:
            raise ShapeError(
                f"{_WHERE}, logits: expected at most {MAX_BRANCHES} branches, whose number is kept in a byte, "
                f"got {num_branches}; drop some"
            )
        if perturbed_logits is not None:
            shape = (n, num_branches, num_classes)
            check_axes(_WHERE, "perturbed_logits", perturbed_logits, shape, hint="the same nodes as in logits")
        elif self.measure == "entropy" and self.mode != "off":
            raise ConfigError(
                f"{_WHERE}, perturbed_logits: the measure 'entropy' needs them, got None; run the model on a perturbed "
                "input, or take the measure 'posterior'"
            )
        return num_classes


def _dominant_logits(logits: Tensor, dominant: Tensor) -> Tensor:
    """Return the dominant branch's logits ``(r, C)``, in float32 at least."""
    z = logits[torch.arange(len(logits), device=logits.device), dominant]
    return z.to(torch.promote_types(z.dtype, torch.float32))
