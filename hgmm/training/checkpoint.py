"""The state of a training run on disk: safetensors and JSON, never half written.

A checkpoint folder holds ``state.json``, which names the tensor files that belong to it. New tensor files are written
first, then ``state.json`` is replaced in one step, then files that it no longer names are removed; so a process killed
at any moment leaves a checkpoint that is whole.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hgmm.errors import DataError
from hgmm.training._files import read_json, read_tensors, write_json, write_tensors

__all__ = [
    "Checkpoint",
    "has_checkpoint",
    "load_checkpoint",
    "load_weights",
    "optimizer_tensors",
    "random_state",
    "restore_optimizer",
    "restore_random_state",
    "save_checkpoint",
]

FORMAT_VERSION = 1
STATE = "state.json"


@dataclass
class Checkpoint:
    """Everything that a run needs to go on.

    Parameters
    ----------
    progress : mapping
        JSON data: epoch, step, history and whatever else the loop counts.
    tensors : mapping of str to Tensor
        Current weights, optimiser state, random states.
    best_epoch : int
        Epoch of the best weights; 0 = none yet.
    best : mapping of str to Tensor
        The best weights.
    """

    progress: dict[str, Any]
    tensors: dict[str, Tensor]
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


def has_checkpoint(folder: Path) -> bool:
    """Say whether a folder has a whole checkpoint."""
    return (folder / STATE).exists()


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, number: int) -> None:
    """Write a checkpoint and remove the one before.

    Parameters
    ----------
    folder : Path
        Made if needed.
    checkpoint : Checkpoint
        What to write. The file of the best weights is written only when the checkpoint before names another one.
    number : int
        Differs from that of the checkpoint before.
    """
    current = f"state-{number:08d}.safetensors"
    write_tensors(folder / current, checkpoint.tensors)
    best = f"best-{checkpoint.best_epoch:06d}.safetensors" if checkpoint.best_epoch else None
    # A file that no checkpoint names may be left from a process that was killed before it wrote one.
    if best and not (has_checkpoint(folder) and read_json(folder / STATE)["best"] == best):
        write_tensors(folder / best, checkpoint.best)
    state = {
        "format_version": FORMAT_VERSION,
        "number": number,
        "tensors": current,
        "best_epoch": checkpoint.best_epoch,
        "best": best,
        "progress": checkpoint.progress,
    }
    write_json(folder / STATE, state)
    for path in (*folder.glob("*.safetensors"), *folder.glob(".*.tmp")):
        if path.name not in (current, best):
            path.unlink()


def load_checkpoint(folder: Path) -> tuple[Checkpoint, int] | None:
    """Read the checkpoint of a folder and its number.

    Returns
    -------
    tuple or None
        None if the folder has no checkpoint yet.

    Raises
    ------
    DataError
        If it was written by another version or a file of it is missing or broken.
    """
    if not has_checkpoint(folder):
        return None
    state = read_json(folder / STATE)
    if state.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{folder / STATE}: format_version must be {FORMAT_VERSION}, got {state.get('format_version')!r}; "
            "use the hgmm that wrote it"
        )
    best = read_tensors(folder / state["best"]) if state["best"] else {}
    tensors = read_tensors(folder / state["tensors"])
    return Checkpoint(state["progress"], tensors, state["best_epoch"], best), int(state["number"])


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, folder: Path) -> None:
    """Give a model the weights of a checkpoint folder.

    Raises
    ------
    DataError
        If they do not fit, because they were trained with another model, or another version of it.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(
            f"{folder}: its weights do not fit {type(model).__name__} ({reason}); use the hgmm that wrote them"
        ) from error


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's tensors as ``<parameter number>.<name>``; its numbers are set by the schedule."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, entry in state.items() for name, value in entry.items()
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors that `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the states of Python's, NumPy's and torch's global generators as JSON data and tensors."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - others may draw from it
    data = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
    }
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return data, tensors


def restore_random_state(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Set the global generators to what `random_state` returned."""
    version, words, gauss = data["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = data["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda.{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)
