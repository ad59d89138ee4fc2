"""What the shell offers when a name is being typed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

__all__ = ["dataset_names", "model_names", "run_folders"]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def dataset_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the registered data sets."""
    from hgmm.registry import DATASETS

    return _starting(DATASETS, incomplete)


def model_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the registered models."""
    from hgmm.registry import MODELS

    return _starting(MODELS, incomplete)


def run_folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the run folders below ``runs/``."""
    folders = (str(path.parent) for path in sorted(Path("runs").glob("*/record.json")))
    return _starting(folders, incomplete)
