"""The only file that imports DGL; everyone else writes ``from hgmm.dgl_compat import dgl``.

DGL 1.1.3 and 2.4 import as they are on any torch. DGL 2.0 to 2.3 load the compiled GraphBolt library when they are
imported, and there is none for a torch newer than 2.3 (2.2.1 for the Linux wheels). hgmm does not use GraphBolt: where
the real module cannot be loaded, a stand-in takes its place that raises a clear error when somebody does use it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
import warnings
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
from packaging.version import Version

from hgmm.errors import BackendError

__all__ = ["DGL_RANGE", "dgl", "notes", "one_thread", "seed"]

DGL_RANGE = (Version("1.1.3"), Version("2.5"))

notes: list[str] = []
"""What this module had to do, in words; shown by ``hgmm doctor``."""


def _dgl_version() -> Version:
    try:
        return Version(metadata.version("dgl"))
    except metadata.PackageNotFoundError as error:
        raise BackendError("hgmm needs DGL, and none is installed; run: pip install 'dgl>=1.1.3,<2.5'") from error


def _graphbolt_library(package: Path) -> Path | None:
    """Return the compiled GraphBolt library that this torch would load, or None if there is none."""
    version = torch.__version__.split("+")[0]
    names = {"darwin": f"libgraphbolt_pytorch_{version}.dylib", "win32": f"graphbolt_pytorch_{version}.dll"}
    library = package / "graphbolt" / names.get(sys.platform, f"libgraphbolt_pytorch_{version}.so")
    return library if library.exists() else None


def _has_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _unavailable(name: str) -> type:
    def refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise BackendError(
            f"dgl.graphbolt.{name} is not available: DGL {metadata.version('dgl')} has no GraphBolt library for "
            f"torch {torch.__version__}. hgmm does not need it; for your own use install a torch that DGL supports"
        )

    return type(name, (), {"__init__": refuse, "__module__": "dgl.graphbolt"})


class _GraphBoltStandIn(types.ModuleType):
    """Takes the place of ``dgl.graphbolt``; any class asked of it raises `BackendError` when constructed."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _unavailable(name)


def _needs_stand_in(version: Version) -> bool:
    if not Version("2.0") <= version < Version("2.4"):
        return False
    spec = find_spec("dgl")
    if spec is None or spec.origin is None:
        return False
    return _graphbolt_library(Path(spec.origin).parent) is None or not _has_module("torchdata.datapipes")


def _import_dgl() -> Any:
    version = _dgl_version()
    if not DGL_RANGE[0] <= version < DGL_RANGE[1]:
        raise BackendError(
            f"hgmm works with DGL {DGL_RANGE[0]} up to {DGL_RANGE[1]}, and {version} is installed; "
            "run: pip install 'dgl>=1.1.3,<2.5'"
        )
    if "dgl" not in sys.modules and _needs_stand_in(version):
        sys.modules["dgl.graphbolt"] = _GraphBoltStandIn("dgl.graphbolt")
        notes.append(
            f"DGL {version} has no GraphBolt library for torch {torch.__version__}: a stand-in for dgl.graphbolt is in "
            "place (hgmm does not use GraphBolt)"
        )
    # Without it DGL asks which backend it shall use, in words on the terminal and by writing into the home folder.
    os.environ.setdefault("DGLBACKEND", "pytorch")
    with warnings.catch_warnings():
        # DGL's own imports warn about torchdata, pkg_resources and torch.amp; its users cannot do anything about it.
        warnings.simplefilter("ignore")
        return importlib.import_module("dgl")


dgl: Any = _import_dgl()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let DGL work with one thread: with more, they race for the order of neighbours and nodes in a block."""
    before = dgl.utils.get_num_threads()
    dgl.utils.set_num_threads(1)
    try:
        yield
    finally:
        dgl.utils.set_num_threads(before)


def seed(number: int) -> None:
    """Seed DGL's generators so that the calling thread draws the same in every process.

    DGL numbers its threads as they are first seeded and adds the number to the seed. ``dgl.seed`` alone lets all of
    them race for the numbers; here the calling thread takes its own before the others are asked.

    Parameters
    ----------
    number : int
        The seed.
    """
    with one_thread():
        dgl.seed(number)
    dgl.seed(number)
