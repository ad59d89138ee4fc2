"""Times of interleaved steps, peak memory of a fresh process, and the rows that record them."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

__all__ = ["MODES", "Row", "Times", "Timing", "environment", "interleaved", "peak_of", "summarise", "write_rows"]

MODES = ("forward", "backward", "both")
MIB = 2**20
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"

# Gives a loss, or a result and its gradient.
Step = Callable[[], Tensor | tuple[Tensor, Tensor]]


class Timing(NamedTuple):
    """Median and quantiles of repeated measurements, in milliseconds."""

    median_ms: float
    p20_ms: float
    p80_ms: float


@dataclass(frozen=True)
class Times:
    """Seconds of every round, forward and backward apart."""

    forward_s: tuple[float, ...]
    backward_s: tuple[float, ...]

    def of(self, mode: str) -> tuple[float, ...]:
        """Return the rounds' seconds for one of `MODES`."""
        both = tuple(f + b for f, b in zip(self.forward_s, self.backward_s, strict=True))
        return {"forward": self.forward_s, "backward": self.backward_s, "both": both}[mode]


@dataclass(frozen=True)
class Row:
    """One measured case; a line of the JSON Lines file.

    `peak_mib` is the peak resident memory of the whole step minus the resident memory before it, in a process of its
    own; None for the modes that are only parts of a step.
    """

    op: str
    provider: str
    mode: str
    dtype: str
    sizes: Mapping[str, Any]
    median_ms: float
    p20_ms: float
    p80_ms: float
    peak_mib: float | None
    warmup: int
    rounds: int
    device: str
    threads: int
    versions: Mapping[str, str]
    commit: str | None
    dirty: bool | None
    utc: str


def summarise(seconds: Sequence[float]) -> Timing:
    """Give the median and the 20 % and 80 % quantiles of `seconds`, in milliseconds."""
    p20, median, p80 = np.quantile(np.asarray(seconds, dtype=np.float64) * 1e3, [0.2, 0.5, 0.8])
    return Timing(float(median), float(p20), float(p80))


def interleaved(steps: Mapping[str, Step], *, rounds: int, warmup: int) -> dict[str, Times]:
    """Time every provider once a round, in an order that rotates, so that drift of the machine meets all alike.

    Parameters
    ----------
    steps
        By provider, a function that clears the gradients and returns the loss, or a result and its gradient; the
        backward is timed apart.
    rounds, warmup
        Measured rounds, and rounds before them that are thrown away.
    """
    names = list(steps)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(warmup + rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            start = time.perf_counter()
            loss = steps[name]()
            middle = time.perf_counter()
            _backward(loss)
            end = time.perf_counter()
            del loss
            if turn >= warmup:
                seconds[name].append((middle - start, end - middle))
    return {name: Times(*map(tuple, zip(*values, strict=True))) for name, values in seconds.items()}


def _backward(result: Tensor | tuple[Tensor, Tensor]) -> None:
    torch.autograd.backward(*(result if isinstance(result, tuple) else (result,)))


def _peak_rss_bytes() -> int:
    if _STATUS.exists():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_peak_rss() -> None:
    """Let the kernel count the peak anew; where it cannot, an earlier peak makes the result an upper bound."""
    if os.access(_CLEAR_REFS, os.W_OK):
        _CLEAR_REFS.write_text(_RESET_PEAK)


def peak_of(step: Step) -> float:
    """Run one forward and backward; return the peak resident memory minus that before the step, in MiB.

    Meant for a fresh process: memory that the allocator kept from earlier steps would hide what this one needs.
    """
    gc.collect()
    _reset_peak_rss()
    before: int = psutil.Process().memory_info().rss
    _backward(step())
    return max(0.0, (_peak_rss_bytes() - before) / MIB)


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """Say where and with what a measurement was made: the fields of `Row` from `device` on."""
    status = _git("status", "--porcelain")
    versions = {name: metadata.version(name) for name in ("torch", "dgl", "numpy")}
    return {
        "device": _processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **versions},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write_rows(path: Path, rows: Iterable[Row | Mapping[str, Any]]) -> None:
    """Write `rows` as JSON Lines; the file appears whole or not at all."""
    text = "".join(
        json.dumps(asdict(row) if isinstance(row, Row) else dict(row), sort_keys=True) + "\n" for row in rows
    )
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8") as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            temporary.unlink()
            raise
    temporary.replace(path)
