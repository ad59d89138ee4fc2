"""Choice of the implementation that runs an operator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from hgmm import settings
from hgmm.errors import BackendError

__all__ = ["Backend", "select"]

Inputs = TypeVar("Inputs")
Result = TypeVar("Result")

_logger = logging.getLogger("hgmm.kernels")


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
        Maps the same inputs to a list of reasons why `run` cannot take them; empty if it can.
    """

    name: str
    run: Callable[[Inputs], Result]
    unsupported_reasons: Callable[[Inputs], list[str]]


def select(op: str, backends: Sequence[Backend[Inputs, Result]], inputs: Inputs) -> Backend[Inputs, Result]:
    """Return the backend that shall run `op` on `inputs`.

    With ``HGMM_BACKEND=auto`` it is the first of `backends` without a reason to refuse, and the choice is logged once
    for each operator and backend; any other value names the backend.

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
    requested = settings.backend()
    candidates = [backend for backend in backends if requested in ("auto", backend.name)]
    if not candidates:
        have = ", ".join(backend.name for backend in backends)
        raise BackendError(
            f"{op}: HGMM_BACKEND={requested}, but this operator has only: {have}. Set one of these or auto."
        )
    refusals = []
    for backend in candidates:
        reasons = backend.unsupported_reasons(inputs)
        if not reasons:
            if requested == "auto":
                _log_choice(op, backend.name)
            return backend
        refusals += [f"  {backend.name}: {reason}" for reason in reasons]
    raise BackendError(
        "\n".join([f"{op}: no backend of HGMM_BACKEND={requested} takes {inputs}:", *refusals])
        + "\nChange the input, or set HGMM_BACKEND=auto."
    )


@cache
def _log_choice(op: str, backend: str) -> None:
    _logger.info("%s runs on backend %s", op, backend)
