"""The choice of kernels, refused before any work is done if they cannot run here."""

from __future__ import annotations

import os

__all__ = ["check_backend"]


def check_backend(option: str | None = None, *, device: str | None = None) -> None:
    """Request the kernels that were asked for by ``--backend`` or ``HGMM_BACKEND``.

    Parameters
    ----------
    option : str, optional
        What ``--backend`` said; wins over the environment.
    device : str, optional
        Where the model will run: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Without it only the machine is asked.

    Raises
    ------
    BackendError
        If they cannot run on this machine, or not on this device.
    ConfigError
        If the environment variable holds an unknown name.
    """
    from hgmm.diagnostics import backend_reasons
    from hgmm.errors import BackendError
    from hgmm.settings import backend

    if option is not None:
        os.environ["HGMM_BACKEND"] = option
    name = backend()
    reasons = backend_reasons(name, device=device)
    if reasons:
        given = f"--backend {name}" if option is not None else f"environment variable HGMM_BACKEND={name}"
        auto = "--backend auto" if option is not None else "unset it, or say --backend auto"
        raise BackendError(f"{given}: these kernels cannot run here: {'; '.join(reasons)}. Take what can: {auto}")
