"""What is installed, what works, and what to do about what does not; ``hgmm doctor`` shows it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import Version

from hgmm import __version__, settings
from hgmm.errors import BackendError, ConfigError, HgmmError, unknown_name
from hgmm.registry import DATASETS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["STATUSES", "Finding", "backend_reasons", "diagnose", "is_broken"]

STATUSES = ("ok", "note", "broken")
PYTHON_RANGE = ((3, 10), (3, 13))
_MIB = 1024**2
_DEVICES = {"cpu": "cpu", "triton": "cuda"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Parameters
    ----------
    section : str
        Heading under which it is shown: ``versions``, ``DGL``, ``kernels``, ``data`` or ``machine``.
    name : str
        What was looked at.
    value : str
        What was found, in words.
    status : str, optional
        ``ok``, ``note`` (works, but worth knowing) or ``broken``.
    fix : str, optional
        What to do; only where something is broken.

    Raises
    ------
    ConfigError
        If the status is none of the three.
    """

    section: str
    name: str
    value: str
    status: str = "ok"
    fix: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ConfigError(f"Finding status: {unknown_name('status', self.status, STATUSES)}")


def is_broken(findings: Sequence[Finding]) -> bool:
    """Return whether something in the report keeps hgmm from working."""
    return any(finding.status == "broken" for finding in findings)


def diagnose(root: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Look at versions, DGL, kernels, data and machine.

    Parameters
    ----------
    root : path, optional
        Folder of the official data sets; default as in `hgmm.settings.data_root`.

    Returns
    -------
    list of Finding
        Sorted by section. A part that cannot be imported gives a finding, never an exception.
    """
    findings = [*_versions(), *_dgl()]
    # Without DGL or torch the remaining parts cannot be imported and would only repeat the news.
    if not is_broken(findings):
        findings += [*_kernels(), *_data(root), *_machine()]
    return findings


def backend_reasons(name: str, *, device: str | None = None) -> list[str]:
    """Return why kernels of one implementation cannot run here; empty if they can.

    Parameters
    ----------
    name : str
        A name of `hgmm.settings.BACKENDS`.
    device : str, optional
        Where the tensors will be: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Without it only the machine is asked.
    """
    from hgmm.kernels import OPERATORS
    from hgmm.kernels._triton import interpreted
    from hgmm.typing import resolve_device

    backends = [backend for operator in OPERATORS.values() for backend in operator if backend.name == name]
    reasons = list(dict.fromkeys(reason for backend in backends for reason in backend.unavailable_reasons()))
    # Triton's interpreter takes tensors of any device.
    if reasons or device is None or name not in _DEVICES or (name == "triton" and interpreted()):
        return reasons
    kind = resolve_device(device).type
    return [] if kind == _DEVICES[name] else [f"they run on {_DEVICES[name]}, and the device is {kind}"]


def _versions() -> Iterator[Finding]:
    lowest, end = PYTHON_RANGE
    python = ".".join(map(str, sys.version_info[:3]))
    if lowest <= sys.version_info[:2] < end:
        yield Finding("versions", "Python", python)
    else:
        fix = "make an environment with Python 3.10, 3.11 or 3.12 and install hgmm there"
        yield Finding("versions", "Python", python, "broken", fix)
    yield Finding("versions", "hgmm", f"{__version__} in {Path(__file__).parent}")
    yield from _requirements()


def _requirements() -> Iterator[Finding]:
    try:
        required = metadata.requires("hgmm") or []
    except metadata.PackageNotFoundError:
        text = "runs from a folder in which it is not installed, so its requirements are not known here"
        yield Finding("versions", "installation", text, "note")
        required = ["torch", "dgl", "numpy"]
    for requirement in map(Requirement, required):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _requirement(requirement)


def _requirement(requirement: Requirement) -> Finding:
    fix = f"run: pip install '{requirement.name}{requirement.specifier}'"
    try:
        version = Version(metadata.version(requirement.name))
    except metadata.PackageNotFoundError:
        return Finding("versions", requirement.name, "not installed", "broken", fix)
    if not requirement.specifier.contains(version, prereleases=True):
        text = f"{version}, but hgmm needs {requirement.specifier}"
        return Finding("versions", requirement.name, text, "broken", fix)
    return Finding("versions", requirement.name, str(version))


def _dgl() -> Iterator[Finding]:
    try:
        from hgmm.dgl_compat import dgl, notes
    except (HgmmError, ImportError, OSError) as error:
        fix = "run: pip install --force-reinstall 'dgl>=1.1.3,<2.5'; a DGL that cannot load its library may need "
        fix += "another torch: pip install 'torch>=2.4'"
        yield Finding("DGL", "import", f"{type(error).__name__}: {error}", "broken", fix)
        return
    for note in notes:
        yield Finding("DGL", "compatibility", note, "note")
    if not notes:
        yield Finding("DGL", "compatibility", "imports as it is; nothing had to be done")
    g = dgl.heterograph({("a", "to", "b"): ([0, 1, 1], [0, 0, 1])})
    sampled = dgl.sampling.sample_neighbors(g, {"b": [0]}, fanout=-1).num_edges()
    if sampled == 2:
        yield Finding("DGL", "compiled library", "builds a graph and samples neighbours")
    else:
        text = f"sampled {sampled} of the 2 neighbours of a node"
        yield Finding("DGL", "compiled library", text, "broken", "run: pip install --force-reinstall dgl")


def _kernels() -> Iterator[Finding]:
    try:
        yield Finding("kernels", "HGMM_BACKEND", settings.backend())
    except ConfigError as error:
        yield Finding("kernels", "HGMM_BACKEND", str(error), "broken", "run: unset HGMM_BACKEND")
    library = _library()
    yield library
    if library.status == "broken":
        return
    from hgmm.kernels import OPERATORS

    for op, run in _trials().items():
        findings = {}
        for backend in OPERATORS[op]:
            reasons = backend.unavailable_reasons()
            if reasons:
                text = f"{backend.name}: not available: {'; '.join(reasons)}"
                findings[backend.name] = Finding("kernels", op, text, "note")
            else:
                with settings.using_backend(backend.name):
                    findings[backend.name] = _try_backend(op, backend.name, run)
        working = [name for name, finding in findings.items() if finding.status == "ok"]
        if working:
            yield Finding("kernels", op, f"auto takes {working[0]} on this machine's processor")
        yield from findings.values()


def _library() -> Finding:
    """Describe the compiled kernels."""
    from hgmm.kernels import _native

    try:
        reason = _native.missing_reason()
    except ConfigError as error:
        return Finding("kernels", "HGMM_CPU_ISA", str(error), "broken", "run: unset HGMM_CPU_ISA")
    if reason is not None:
        return Finding("kernels", "compiled library", f"{reason}; the operators run on the reference", "note")
    threads = "with OpenMP" if _native.has_openmp() else "without OpenMP, so on one thread"
    return Finding("kernels", "compiled library", f"{_native.isa()}, {threads}")


def _try_backend(op: str, name: str, run: Callable[[], Tensor]) -> Finding:
    try:
        out = run()
    except BackendError as error:
        return Finding("kernels", op, f"{name}: not available: {error}", "note")
    # All values are 1 and the weights sum to 1, so the result must be 1.
    if not ((out - 1).abs() < 1e-5).all():
        fix = "set HGMM_BACKEND=reference, and reinstall hgmm: pip install --force-reinstall hgmm"
        return Finding("kernels", op, f"{name}: gives {out.flatten()[0].item():.6g} where 1 is right", "broken", fix)
    return Finding("kernels", op, f"{name}: works")


def _trials() -> dict[str, Callable[[], Tensor]]:
    import torch

    from hgmm.kernels import cross_modal_attention, inter_node_attention, neighbor_mean, translational_score
    from hgmm.typing import RelationCSC

    csc = RelationCSC(*map(torch.tensor, ([0, 2], [0, 1], [0, 1, 2], [0, 0], [0, 1])))
    x = torch.ones(2, 2, 1, 4)
    first = torch.zeros(1, 1, 2, dtype=torch.int64)
    return {
        "cross_modal_attention": lambda: cross_modal_attention(csc, x, x[:1], x[:1], x, combine="sharp").out,
        "inter_node_attention": lambda: inter_node_attention(csc, x, x[:1], x).out,
        "neighbor_mean": lambda: neighbor_mean(csc, x.flatten(2)),
        "translational_score": lambda: translational_score(
            x[:1, :1, :, :1], 0 * x[:1, 0, :, :1], first[..., 0], first[..., 0].to(torch.int8), first
        ),
    }


def _data(root: str | os.PathLike[str] | None) -> Iterator[Finding]:
    folder = settings.data_root(root)
    if not folder.is_dir():
        text = f"{folder} does not exist; the data sets that ship with hgmm do not need it"
        yield Finding("data", "data root", text, "note")
        return
    try:
        found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        text = f"{folder} cannot be read ({error.strerror})"
        yield Finding("data", "data root", text, "broken", f"run: chmod u+rx {shlex.quote(str(folder))}")
        return
    yield Finding("data", "data root", f"{folder}: {', '.join(found) if found else 'empty'}")
    for name in DATASETS:
        dataset = DATASETS.get(name)
        files = [dataset.folder(folder) / file.path for file in dataset.info.official_files]
        there = sum(file.is_file() for file in files)
        if there:
            status = "ok" if there == len(files) else "note"
            yield Finding("data", name, f"{there} of {len(files)} published files in {files[0].parent}", status)


def _load(cores: int) -> Iterator[Finding]:
    """Note that other programs want the cores, too: a step waits for the slowest of its threads."""
    # Windows counts no load.
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        text = f"{load:.1f} programs want to compute, and there are {cores} cores: threads wait for each other, and "
        text += "training with two can be slower than with one; set train.num_threads=1 or OMP_NUM_THREADS=1 "
        text += "(docs/troubleshooting.md, Speed and memory)"
        yield Finding("machine", "load", text, "note")


def _machine() -> Iterator[Finding]:
    import psutil
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{cores} cores usable, torch computes with {torch.get_num_threads()} threads"
    yield Finding("machine", "processor", text)
    yield from _load(cores)
    memory = psutil.virtual_memory()
    text = f"{memory.available // _MIB:,} MiB of {memory.total // _MIB:,} MiB available"
    yield Finding("machine", "memory", text)
    free = shutil.disk_usage(Path.cwd()).free // _MIB
    yield Finding("machine", "disk", f"{free:,} MiB free in this folder")
    if torch.cuda.is_available():
        devices = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        yield Finding("machine", "CUDA", devices)
    else:
        yield Finding("machine", "CUDA", "torch sees no CUDA device; everything runs on the processor", "note")
