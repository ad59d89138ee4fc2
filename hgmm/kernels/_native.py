"""The compiled library: found, checked and loaded at first use.

The library is plain C behind ctypes, built once for every Python and torch. Two are built from the same sources: one
for any processor of the platform and, on x86-64, one for AVX2 and FMA; ``HGMM_CPU_ISA`` chooses, by default the better
one that the processor runs.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hgmm import settings
from hgmm.errors import BackendError
from hgmm.kernels._checks import MAX_MODALITIES
from hgmm.typing import RelationCSC

__all__ = [
    "accumulation_dtype",
    "call",
    "device_reasons",
    "has_openmp",
    "isa",
    "library",
    "missing_reason",
    "pointer",
    "storage",
    "stored",
    "structure",
    "wide_index",
]

# Raised together with kAbiVersion of csrc/api.h.
ABI_VERSION = 6
_STORAGE = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
_FOLDER = Path(__file__).parent
_REINSTALL = "reinstall hgmm where a C++ compiler is found"

_logger = logging.getLogger("hgmm.kernels")


def missing_reason() -> str | None:
    """Return why there is no compiled library to use, None if there is one; logged once."""
    try:
        _load(settings.cpu_isa())
    except BackendError as error:
        _log_missing(str(error))
        return str(error)
    return None


def library() -> ctypes.CDLL:
    """Return the library.

    Raises
    ------
    BackendError
        There is none, or ``HGMM_CPU_ISA`` names one that was not built or that the processor cannot run.
    """
    return _load(settings.cpu_isa())


def isa() -> str:
    """Return the instruction set that the library in use was compiled for: ``avx2`` or ``portable``."""
    name: bytes = library().hgmm_isa()
    return name.decode()


def has_openmp() -> bool:
    """Return whether the library uses more than one thread."""
    return bool(library().hgmm_has_openmp())


def call(function: Callable[..., int], *arguments: object) -> None:
    """Call an entry point and turn its status into an error.

    Raises
    ------
    MemoryError
        The library got no memory.
    BackendError
        The library does not know an option: it and the package are not of one version.
    """
    status = function(*arguments)
    if status == -2:
        raise MemoryError("the compiled kernels got no memory for their scratch; use fewer threads")
    if status != 0:
        raise BackendError(f"the compiled kernels do not know an option of this call, status {status}; {_REINSTALL}")


def device_reasons(x: Tensor) -> list[str]:
    """Say why the library cannot take a tensor of this device."""
    return [] if x.device.type == "cpu" else [f"tensors are on {x.device}"]


def pointer(x: Tensor | None) -> int | None:
    """Return the address of a contiguous tensor, None for None."""
    return None if x is None else x.data_ptr()


def storage(x: Tensor) -> int:
    """Return the library's number for the dtype of `x`: float32, float64 or bfloat16."""
    return _STORAGE[x.dtype]


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return what sums of `x` are formed in: float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def stored(x: Tensor, acc: torch.dtype) -> Tensor:
    """Return rows that are gathered as the library reads them: bfloat16 as it is, float16 widened."""
    return x if x.dtype in (acc, torch.bfloat16) else x.to(acc)


def structure(
    *, sizes: Sequence[str], flags: Sequence[str], pointers: Sequence[str], numbers: Mapping[str, Any] | None = None
) -> type[ctypes.Structure]:
    """Declare the struct of an entry point's arguments.

    Parameters
    ----------
    sizes, flags, pointers : sequence of str
        Names of the int64, int32 and pointer fields.
    numbers : mapping of str to ctypes type, optional
        Fields between flags and pointers.
    """
    fields = [
        *((name, ctypes.c_int64) for name in sizes),
        *((name, ctypes.c_int32) for name in flags),
        *(numbers or {}).items(),
        *((name, ctypes.c_void_p) for name in pointers),
    ]
    return type("Args", (ctypes.Structure,), {"_fields_": fields})


def wide_index(csc: RelationCSC) -> bool:
    """Return whether the index tensors are int64."""
    return csc.indices.dtype == torch.int64


def _load(requested: str) -> ctypes.CDLL:
    portable = _open("portable")
    if requested == "portable":
        return portable
    runs = bool(portable.hgmm_cpu_supports_avx2())
    built = _is_built("avx2", _FOLDER)
    if requested == "avx2" and not (runs and built):
        why = "was not built" if runs else "needs instructions that this processor lacks"
        raise BackendError(f"HGMM_CPU_ISA=avx2: the library {why}; set auto or portable")
    return _open("avx2") if runs and built else portable


@cache
def _is_built(name: str, folder: Path) -> bool:
    # Kept by folder: every call of an operator asks.
    return (folder / f"_hgmm_{name}.so").exists()


def _path(name: str) -> Path:
    return _FOLDER / f"_hgmm_{name}.so"


@cache
def _open(name: str) -> ctypes.CDLL:
    path = _path(name)
    if not path.exists():
        raise BackendError(f"compiled kernels are missing: no {path.name} in the package; {_REINSTALL}")
    try:
        # torch was imported above: the library then finds torch's OpenMP runtime loaded and shares its threads.
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        reason = f"compiled kernels are missing: {path.name} cannot be loaded ({error}); {_REINSTALL}"
        raise BackendError(reason) from error
    loaded.hgmm_isa.restype = ctypes.c_char_p
    version = loaded.hgmm_abi_version()
    if version != ABI_VERSION:
        raise BackendError(
            f"compiled kernels are missing: {path.name} has interface {version}, this package needs {ABI_VERSION}; "
            f"{_REINSTALL}"
        )
    if loaded.hgmm_max_modalities() != MAX_MODALITIES:
        raise BackendError(
            f"compiled kernels are missing: {path.name} takes {loaded.hgmm_max_modalities()} modalities, this package "
            f"needs {MAX_MODALITIES}; {_REINSTALL}"
        )
    return loaded


@cache
def _log_missing(reason: str) -> None:
    _logger.warning("%s; the operators run on the reference, several times slower", reason)
