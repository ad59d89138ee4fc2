"""What hgmm reads from the environment, each variable in one place and validated.

``HGMM_BACKEND`` chooses the kernel implementation, ``HGMM_CPU_ISA`` the instruction set of the compiled one,
``HGMM_DATA`` the folder that holds datasets. torch's ``THP_MEM_ALLOC_ENABLE`` says whether tensors get large pages, and
``GLIBC_TUNABLES`` or ``MALLOC_…`` how the C library hands out memory.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hgmm.errors import ConfigError, unknown_name

__all__ = [
    "BACKENDS",
    "CPU_ISAS",
    "backend",
    "cpu_isa",
    "data_root",
    "keep_freed_memory",
    "large_pages",
    "prefer_large_pages",
    "using_backend",
]

BACKENDS = ("auto", "reference", "cpu", "triton")
# M_MMAP_THRESHOLD, at its largest, and M_TRIM_THRESHOLD of glibc's malloc.h.
_KEEP = {-3: 32 << 20, -1: 2**31 - 1}
CPU_ISAS = ("auto", "portable", "avx2")


def backend() -> str:
    """Return the requested kernel implementation.

    Returns
    -------
    str
        ``auto`` (default) or a name in `BACKENDS`.

    Raises
    ------
    ConfigError
        If ``HGMM_BACKEND`` holds another name.
    """
    name = os.environ.get("HGMM_BACKEND", "auto") or "auto"
    if name not in BACKENDS:
        raise ConfigError(f"environment variable HGMM_BACKEND: {unknown_name('backend', name, BACKENDS)}")
    return name


@contextmanager
def using_backend(name: str) -> Iterator[None]:
    """Request a kernel implementation for a while; a backward pass stays with the backend of its forward pass."""
    before = os.environ.get("HGMM_BACKEND")
    os.environ["HGMM_BACKEND"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["HGMM_BACKEND"]
        else:
            os.environ["HGMM_BACKEND"] = before


def cpu_isa() -> str:
    """Return the requested instruction set of the compiled kernels.

    Returns
    -------
    str
        ``auto`` (default, the best that the processor runs) or another name in `CPU_ISAS`.

    Raises
    ------
    ConfigError
        If ``HGMM_CPU_ISA`` holds another name.
    """
    name = os.environ.get("HGMM_CPU_ISA", "auto") or "auto"
    if name not in CPU_ISAS:
        raise ConfigError(f"environment variable HGMM_CPU_ISA: {unknown_name('instruction set', name, CPU_ISAS)}")
    return name


def prefer_large_pages() -> None:
    """Have torch ask the system for large pages for its tensors in main memory, unless the user has decided already.

    Rows of large tables are then found faster, and new results are handed out faster: a fifth to a third of the time of
    a training step on a graph of a million edges. A program must say so before its first tensor. Where the system has
    no large pages nothing changes. Linux, torch 2.2 or later.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def large_pages() -> bool:
    """Return whether torch asks for large pages."""
    return os.environ.get("THP_MEM_ALLOC_ENABLE", "0") == "1"


def keep_freed_memory() -> bool:
    """Have the C library keep the memory of tensors of up to 32 MiB when they are freed, unless the user has decided.

    It gives such memory back to the system otherwise, and the system fills each new tensor of that size with zeros page
    by page: a fifth to a third of the time of a training step whose tensors are small and many, as on a knowledge graph
    of ten thousand entities. Larger tensors are given back as before. Linux with glibc.

    Returns
    -------
    bool
        Whether the library took it; False elsewhere.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in _KEEP.items())


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds the files of the official datasets.

    Parameters
    ----------
    root : path, optional
        Wins over the environment variable ``HGMM_DATA``, which wins over the default
        ``$XDG_DATA_HOME/hgmm`` (``~/.local/share/hgmm``). The folder need not exist.
    """
    if root is not None:
        return Path(root).expanduser()
    named = os.environ.get("HGMM_DATA")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base).expanduser() / "hgmm"
