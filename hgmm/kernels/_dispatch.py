"""Choice of the implementation that runs an operator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch

from hgmm import settings
from hgmm.errors import BackendError

__all__ = ["Backend", "compiled_backends", "constant_when_traced", "implementation", "select"]

Inputs = TypeVar("Inputs")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])

_logger = logging.getLogger("hgmm.kernels")

# By backend: what it needs of the machine, and the file of an operator's folder that holds it.
_MACHINES = {"cpu": "hgmm.kernels._native", "triton": "hgmm.kernels._triton"}
_FILES = {"cpu": "cpu", "triton": "triton_kernels"}

_implementations: dict[str, ModuleType] = {}


def _nothing_missing() -> list[str]:
    return []


@dataclass(frozen=True)
class Backend(Generic[Inputs, Result]):
    """One implementation of an operator.

    Parameters
    ----------
    name : str
        A name of `hgmm.settings.BACKENDS` other than ``auto``.
    run : callable
        Maps the operator's checked inputs to its result.
    unsupported_reasons : callable
        Maps the same inputs to a list of reasons why `run` cannot take them; empty if it can. Not called on a machine
        on which the backend is not available.
    unavailable_reasons : callable, optional
        Returns the reasons why the backend can run nothing on this machine. Default: it always can.
    """

    name: str
    run: Callable[[Inputs], Result]
    unsupported_reasons: Callable[[Inputs], list[str]]
    unavailable_reasons: Callable[[], list[str]] = _nothing_missing


def constant_when_traced(function: Function) -> Function:
    """Let torch.compile call `function` once, while it traces, and keep what it returned.

    The same as ``torch.compiler.assume_constant_result``, which imports the whole compiler, a second and a half.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # the mark that torch's function sets, too
    return function


def implementation(op: str, backend: str) -> ModuleType:
    """Return the module with ``forward``, ``backward`` and ``unsupported_reasons``, imported on first use."""
    name = f"hgmm.kernels.{op}.{_FILES[backend]}"
    # torch.compile reads a dictionary, but cannot import by name.
    if name not in _implementations:
        _implementations[name] = import_module(name)
    return _implementations[name]


def compiled_backends(
    op: str, run: Callable[[Inputs, str], Result]
) -> tuple[Backend[Inputs, Result], Backend[Inputs, Result]]:
    """Return the backends ``cpu`` and ``triton`` of an operator.

    Parameters
    ----------
    op : str
        The operator's name, which is its folder's.
    run : callable
        Maps checked inputs and the backend's name to the result.
    """

    def backend(name: str) -> Backend[Inputs, Result]:
        return Backend(
            name,
            lambda inputs: run(inputs, name),
            lambda inputs: list(implementation(op, name).unsupported_reasons(inputs)),
            lambda: _unavailable_reasons(op, name),
        )

    return backend("cpu"), backend("triton")


@constant_when_traced
def _unavailable_reasons(op: str, backend: str) -> list[str]:
    if not _is_installed(op, backend):
        return ["not part of this installation"]
    reason = import_module(_MACHINES[backend]).missing_reason()
    if reason is not None:
        return [reason]
    implementation(op, backend)
    return []


@cache
def _is_installed(op: str, backend: str) -> bool:
    return all(find_spec(name) for name in (_MACHINES[backend], f"hgmm.kernels.{op}.{_FILES[backend]}"))


def select(op: str, backends: Sequence[Backend[Inputs, Result]], inputs: Inputs) -> Backend[Inputs, Result]:
    """Return the backend that shall run `op` on `inputs`.

    With ``HGMM_BACKEND=auto`` it is the first of `backends` without a reason to refuse, and the choice is logged once
    for each operator and backend; any other value names the backend. Compiled by torch.compile, the value that
    ``HGMM_BACKEND`` has at that time stays in force, and nothing is logged.

    Parameters
    ----------
    op : str
        The operator's name.
    backends : sequence of Backend
        What the operator has, in order of preference.
    inputs : Inputs
        The checked inputs; their ``str`` goes into the error message.

    Raises
    ------
    BackendError
        If the named backend does not exist or refuses, or if all refuse; the message lists every reason.
    ConfigError
        If ``HGMM_BACKEND`` holds a name that hgmm does not know.
    """
    requested = _requested()
    candidates = [backend for backend in backends if requested in ("auto", backend.name)]
    if not candidates:
        have = ", ".join(backend.name for backend in backends)
        raise BackendError(
            f"{op}: HGMM_BACKEND={requested}, but this operator has only: {have}. Set one of these or auto."
        )
    refusals = []
    for backend in candidates:
        reasons = backend.unavailable_reasons() or backend.unsupported_reasons(inputs)
        if not reasons:
            if requested == "auto" and not torch.compiler.is_compiling():
                _log_choice(op, backend.name)
            return backend
        refusals += [f"  {backend.name}: {reason}" for reason in reasons]
    raise BackendError(
        "\n".join([f"{op}: no backend of HGMM_BACKEND={requested} takes {inputs}:", *refusals])
        + "\nChange the input, or set HGMM_BACKEND=auto."
    )


@constant_when_traced
def _requested() -> str:
    return settings.backend()


@cache
def _log_choice(op: str, backend: str) -> None:
    _logger.info("%s runs on backend %s", op, backend)
