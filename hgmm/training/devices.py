"""Where a model runs, and the most memory that took."""

from __future__ import annotations

import sys

import psutil
import torch

from hgmm.errors import ConfigError
from hgmm.typing import resolve_device

__all__ = ["peak_memory_mib", "reset_peak_memory", "usable_device"]


def usable_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means.

    Raises
    ------
    ConfigError
        If it is a GPU that torch does not see.
    """
    device = resolve_device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"train.device: {name!r} is asked for and torch sees {torch.cuda.device_count()} GPUs; use cpu or auto"
        )
    return device


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure anew; the operating system allows that for the GPU only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> float:
    """Return the most memory in MiB that tensors took on a GPU, or that the process took where `device` is the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
