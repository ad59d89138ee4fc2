"""Times of interleaved steps on any device, peak memory of a fresh process, and the rows that record them."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import click
import numpy as np
import psutil
import torch
from rich.console import Console
from torch import Tensor

from hgmm.errors import unknown_name
from hgmm.settings import large_pages

__all__ = [
    "MODES",
    "Forecast",
    "Row",
    "Times",
    "Timing",
    "check_device",
    "check_folder",
    "choose_providers",
    "collect",
    "environment",
    "free_mib",
    "interleaved",
    "median_seconds",
    "peak_in_fresh_process",
    "peak_of",
    "peak_of_call",
    "summarise",
    "write_rows",
]

MODES = ("forward", "backward", "both")
MIB = 2**20
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"

# Gives a loss, or a result and its gradient; or nothing if there is nothing left to differentiate.
Step = Callable[[], Tensor | tuple[Tensor, Tensor] | None]


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
    """One measured case; a line of the JSON Lines file, in which `sizes` and `extra` are spread out.

    `peak_mib` is the peak memory of the whole step minus the memory before it, in a process of its own: resident
    memory, or on a GPU what torch has allocated there. None for the modes that are only parts of a step.
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
    large_pages: bool
    versions: Mapping[str, str]
    commit: str | None
    dirty: bool | None
    utc: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """Return the line that is written."""
        fields = asdict(self)
        return {**fields.pop("sizes"), **fields.pop("extra"), **fields}


class Forecast:
    """Says beforehand that a case would not fit: what a provider needs grows in proportion to the size."""

    # Below this the constant part would be taken for growth.
    SMALLEST_MIB = 256.0

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._per_unit: dict[str, float] = {}

    def learn(self, provider: str, size: float, peak_mib: float) -> None:
        """Note what a provider needed."""
        if peak_mib >= self.SMALLEST_MIB:
            self._per_unit[provider] = peak_mib / size

    def reason(self, provider: str, size: float, free_mib: float) -> str | None:
        """Return why a provider should not be tried, None if it may fit or nothing is known of it."""
        need = self._margin * size * self._per_unit.get(provider, 0.0)
        if need <= free_mib:
            return None
        return f"would need about {need / 1024:,.0f} GiB, and {free_mib / 1024:,.0f} are free"

    def fitting(
        self, providers: Iterable[str], size: float, free_mib: float, *, console: Console, where: str
    ) -> list[str]:
        """Return the providers that may fit; print `where`, the name and the reason of each other one."""
        return _without_reason({name: self.reason(name, size, free_mib) for name in providers}, console, where)


def _without_reason(reasons: Mapping[str, str | None], console: Console, where: str) -> list[str]:
    for name, reason in reasons.items():
        if reason is not None:
            console.print(f"{where}: {name} {reason}")
    return [name for name, reason in reasons.items() if reason is None]


def choose_providers(
    named: str | None, known: Collection[str], missing: Callable[[str], str | None], console: Console
) -> list[str]:
    """Return the providers to measure: all that run here, or those that were named.

    Parameters
    ----------
    named
        Names separated by commas.
    known
        All names.
    missing
        Why a provider cannot run here, None if it can.
    console
        Where those that are left out are named, and why.

    Raises
    ------
    click.BadParameter
        A named provider is unknown or cannot run; which is exit code 2.
    """
    if named is None:
        return _without_reason({name: missing(name) for name in known}, console, "skipped")
    names = [name.strip() for name in named.split(",")]
    for name in names:
        if name not in known:
            raise click.BadParameter(unknown_name("provider", name, known), param_hint="--providers")
        reason = missing(name)
        if reason is not None:
            raise click.BadParameter(f"provider {name!r} {reason}", param_hint="--providers")
    return names


def summarise(seconds: Sequence[float]) -> Timing:
    """Give the median and the 20 % and 80 % quantiles of `seconds`, in milliseconds."""
    p20, median, p80 = np.quantile(np.asarray(seconds, dtype=np.float64) * 1e3, [0.2, 0.5, 0.8])
    return Timing(float(median), float(p20), float(p80))


def check_device(device: str) -> None:
    """Refuse a device that is not here.

    Raises
    ------
    click.BadParameter
        Which is exit code 2.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        known = "cpu or cuda" if torch.cuda.is_available() else "cpu; torch sees no CUDA device here"
        raise click.BadParameter(f"expected {known}, got {device!r}", param_hint="--device")


def check_folder(path: Path | None) -> None:
    """Refuse a file for the rows whose folder is absent, before anything is measured."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"folder {str(path.parent)!r} does not exist; create it", param_hint="--json")


def free_mib(device: str = "cpu") -> float:
    """Return the memory that is free on a device, in MiB."""
    free: int = psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    return free / MIB


def _synchronize(device: str) -> None:
    # A GPU works on after the call that gave it work has returned.
    if device != "cpu":
        torch.cuda.synchronize(device)


def median_seconds(work: Callable[[], Any], *, rounds: int, warmup: int, device: str = "cpu") -> float:
    """Return the median time of something that is measured beside the providers."""
    seconds = []
    for turn in range(warmup + rounds):
        _synchronize(device)
        start = time.perf_counter()
        work()
        _synchronize(device)
        if turn >= warmup:
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def interleaved(steps: Mapping[str, Step], *, rounds: int, warmup: int, device: str = "cpu") -> dict[str, Times]:
    """Time every provider once a round, in an order that rotates, so that drift of the machine meets all alike.

    Parameters
    ----------
    steps
        By provider, a function that clears the gradients and returns the loss, or a result and its gradient; the
        backward is timed apart. A function that returns None has taken the whole step.
    rounds, warmup
        Measured rounds, and rounds before them that are thrown away.
    device
        Where the steps run; the clock is read when it has nothing left to do.
    """
    names = list(steps)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(warmup + rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            _synchronize(device)
            start = time.perf_counter()
            loss = steps[name]()
            _synchronize(device)
            middle = time.perf_counter()
            _backward(loss)
            _synchronize(device)
            end = time.perf_counter()
            del loss
            if turn >= warmup:
                seconds[name].append((middle - start, end - middle))
    return {name: Times(*map(tuple, zip(*values, strict=True))) for name, values in seconds.items()}


def _backward(result: Tensor | tuple[Tensor, Tensor] | None) -> None:
    if result is None:
        return
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


def peak_of(step: Step, device: str = "cpu") -> float:
    """Run one forward and backward; return the peak memory minus that before the step, in MiB."""
    return peak_of_call(lambda: _backward(step()), device)


def peak_of_call(call: Callable[[], Any], device: str = "cpu") -> float:
    """Call something; return the peak memory minus that before the call, in MiB.

    Meant for a fresh process: memory that the allocator kept from earlier work would hide what this needs. On a GPU,
    where what is allocated is counted, a call before leaves out what only the first one takes to choose its kernels.
    """
    if device != "cpu":
        call()
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        call()
        return float(torch.cuda.max_memory_allocated(device) - allocated) / MIB
    _reset_peak_rss()
    before: int = psutil.Process().memory_info().rss
    call()
    return max(0.0, (_peak_rss_bytes() - before) / MIB)


def peak_in_fresh_process(module: str, arguments: Sequence[str], provider: str) -> float:
    """Run ``python -m module`` with arguments that make it print the result of `peak_of`, and return that.

    Raises
    ------
    click.ClickException
        With what the process said, if it failed.
    """
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise click.ClickException(
            f"measuring the memory of {provider} failed with exit status {result.returncode}:\n{result.stderr.strip()}"
        )
    return float(result.stdout)


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


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environment(device: str = "cpu") -> dict[str, Any]:
    """Say where and with what a measurement was made: the fields of `Row` from `device` to `utc`."""
    status = _git("status", "--porcelain")
    found = {name: _version(name) for name in ("torch", "dgl", "numpy", "torch_geometric", "triton")}
    found["cuda"] = None if device == "cpu" else torch.version.cuda
    versions = {name: version for name, version in found.items() if version is not None}
    return {
        "device": _processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "large_pages": large_pages(),
        "versions": {"python": platform.python_version(), **versions},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def collect(found: Iterable[Sequence[Row | Mapping[str, Any]]], path: Path | None) -> None:
    """Gather the rows of each case, and write them after it: a long run that is stopped keeps what it has."""
    rows: list[Row | Mapping[str, Any]] = []
    for more in found:
        rows += more
        if path is not None:
            write_rows(path, rows)


def write_rows(path: Path, rows: Iterable[Row | Mapping[str, Any]]) -> None:
    """Write `rows` as JSON Lines; the file appears whole or not at all."""
    lines = (row.flat() if isinstance(row, Row) else dict(row) for row in rows)
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
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
