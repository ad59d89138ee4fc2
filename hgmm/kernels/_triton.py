"""Whether Triton kernels can run here, found out without importing Triton."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib import metadata

import torch
from packaging.version import Version
from torch import Tensor

from hgmm import settings

__all__ = ["device_reasons", "interpreted", "missing_reason"]

OLDEST = Version("3.2")

_logger = logging.getLogger("hgmm.kernels")


def missing_reason() -> str | None:
    """Return why no Triton kernel can run here, None if one can.

    Where torch sees a CUDA device, the reason is logged once as a warning, since the reference then runs on it.
    """
    reason = _triton_reason()
    if reason is not None:
        if torch.cuda.is_available():
            _log_missing(reason)
        return reason
    return None if interpreted() or torch.cuda.is_available() else "torch sees no CUDA device"


def interpreted() -> bool:
    """Return whether ``TRITON_INTERPRET`` makes Triton run kernels in Python, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def device_reasons(x: Tensor) -> list[str]:
    """Say why a kernel cannot take a tensor of this device; the slow interpreter must be asked for by name."""
    if x.device.type == "cuda" or (interpreted() and settings.backend() == "triton"):
        return []
    return [f"tensors are on {x.device}"]


def _triton_reason() -> str | None:
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "Triton is not installed; on Linux, pip install 'hgmm[gpu]' brings it"
    if Version(version) < OLDEST:
        return f"Triton {version} is too old: {OLDEST} is needed, which torch 2.6 brings"
    return None


@cache
def _log_missing(reason: str) -> None:
    _logger.warning("%s; on CUDA the operators run on the reference", reason)
