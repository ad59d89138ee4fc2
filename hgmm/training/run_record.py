"""``record.json``: what was run, on what, with which result."""

from __future__ import annotations

import dataclasses
import math
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from hgmm import __version__
from hgmm.errors import DataError, near_names, unknown_name
from hgmm.training._files import read_json, write_json

__all__ = ["RECORD", "RunRecord", "aggregate", "list_runs", "near_runs", "source_commit", "versions"]

SCHEMA_VERSION = 1
RECORD = "record.json"
_CONTAINERS = {"dict": dict, "list": list}


@dataclass(frozen=True)
class RunRecord:
    """One run, or the means of several.

    Attributes
    ----------
    status : str
        ``running``, ``interrupted``, ``failed`` or ``done``.
    task, model, dataset : str
        What was learnt, by what, on what.
    variant : str or None
        The model's variant, if it has any.
    seed : int
        Seed of the run, or the first of several.
    data : dict
        ``source`` (official, local, embedded or synthetic), ``files``, ``sha256``, ``absent``, ``note``,
        ``corrupted``.
    config : dict
        The resolved configuration.
    best_epoch : int or None
        Epoch of the tested weights.
    epochs : list of dict
        ``epoch``, ``loss`` and ``val`` of each, and ``figures`` where its task gave any.
    test : dict of str to float
        Test figures.
    seconds : float
        Time in epochs, validation included.
    peak_memory_mib : float
        Highest memory use: of the GPU there, else of the process.
    throughput : dict
        ``value`` and its ``unit``.
    versions : dict of str to str
        hgmm, torch, dgl, numpy, python.
    commit : str or None
        Git commit, if the package runs from a checkout.
    test_std : dict of str to float or None
        Of several runs: the sample standard deviation of each figure.
    runs : list of dict or None
        Of several runs: ``seed``, ``path``, ``best_epoch`` and ``test`` of each.
    """

    status: str
    task: str
    model: str
    variant: str | None
    dataset: str
    seed: int
    data: dict[str, Any]
    config: dict[str, Any]
    best_epoch: int | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    throughput: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    test_std: dict[str, float] | None = None
    runs: list[dict[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a single run has neither ``test_std`` nor ``runs``."""
        data = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        for name in ("test_std", "runs"):
            if data[name] is None:
                del data[name]
        return data

    def save(self, run_dir: str | Path) -> None:
        """Write ``record.json`` into a run folder."""
        write_json(Path(run_dir) / RECORD, self.to_dict())

    @classmethod
    def load(cls, run_dir: str | Path) -> RunRecord:
        """Read ``record.json`` of a run folder.

        Raises
        ------
        DataError
            If it is missing, broken, or of another version.
        """
        path = Path(run_dir) / RECORD
        data = read_json(path)
        version = data.pop("schema_version", None) if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path}: schema_version must be {SCHEMA_VERSION}, got {version!r}; use the hgmm that wrote it"
            )
        known = {entry.name: entry for entry in dataclasses.fields(cls)}
        for name in data:
            if name not in known:
                raise DataError(f"{path}: {unknown_name('key', name, known)}")
        for name in ("status", "task", "model", "variant", "dataset", "seed", "data", "config"):
            if name not in data:
                raise DataError(f"{path}: key {name!r} is missing; the file was changed or is not a record")
        for name, value in data.items():
            kind = str(known[name].type).partition("[")[0]
            if kind in _CONTAINERS and not isinstance(value, _CONTAINERS[kind]):
                raise DataError(f"{path}: key {name!r} must hold a {kind}, got {value!r}; restore the file")
        for name, value in {**data.get("test", {}), **data.get("test_std", {})}.items():
            if not isinstance(value, (int, float)):
                raise DataError(f"{path}: figure {name!r} must be a number, got {value!r}; restore the file")
        return cls(**data)


def near_runs(path: str | Path) -> str:
    """Say which run, beside a folder that is none or in ``runs``, is called so or nearly so; empty if none is."""
    path = Path(path)
    records = [*Path("runs").glob(f"*/{RECORD}"), *path.parent.glob(f"*/{RECORD}")]
    runs = {record.parent.name: str(record.parent) for record in records}
    near = [path.name] if path.name in runs else near_names(path.name, runs)
    return f" Did you mean {' or '.join(runs[name] for name in near)}? All of them: hgmm runs" if near else ""


def versions() -> dict[str, str]:
    """Return the versions of hgmm, torch, dgl, numpy and Python."""
    found = {name: metadata.version(name) for name in ("torch", "dgl", "numpy")}
    return {"hgmm": __version__, **found, "python": platform.python_version()}


def source_commit() -> str | None:
    """Return the git commit of the checkout that this package runs from, or None if it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def aggregate(records: Sequence[RunRecord], paths: Sequence[str]) -> RunRecord:
    """Join the records of runs that differ in the seed alone.

    Parameters
    ----------
    records : sequence of RunRecord
        At least one, all done.
    paths : sequence of str
        The folder of each, relative to the common one.

    Returns
    -------
    RunRecord
        ``test`` holds means, ``test_std`` sample standard deviations (0 for one run), ``seconds`` the sum,
        ``peak_memory_mib`` the maximum, ``throughput`` the mean.
    """
    first = records[0]
    names = [name for name in first.test if all(name in record.test for record in records)]
    columns = {name: [record.test[name] for record in records] for name in names}
    speed = [float(record.throughput["value"]) for record in records]
    return dataclasses.replace(
        first,
        best_epoch=None,
        epochs=[],
        test={name: math.fsum(column) / len(column) for name, column in columns.items()},
        test_std={name: statistics.stdev(column) if len(column) > 1 else 0.0 for name, column in columns.items()},
        seconds=math.fsum(record.seconds for record in records),
        peak_memory_mib=max(record.peak_memory_mib for record in records),
        throughput={**first.throughput, "value": math.fsum(speed) / len(speed)},
        runs=[
            {"seed": record.seed, "path": path, "best_epoch": record.best_epoch, "test": record.test}
            for record, path in zip(records, paths, strict=True)
        ],
    )


def list_runs(
    folder: str | Path = "runs", *, on_broken: Callable[[DataError], None] | None = None
) -> list[tuple[Path, RunRecord]]:
    """Return the runs whose folders lie directly in `folder`, by name.

    Parameters
    ----------
    folder : path, optional
        The folder of run folders.
    on_broken : callable, optional
        Is told of a record that is broken, whose run is then left out. Without it the error is raised.

    Raises
    ------
    DataError
        If there is no such folder, or a record is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"folder of runs {folder}: there is no such folder; name the one that holds run folders")
    found = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            found.append((path.parent, RunRecord.load(path.parent)))
        except DataError as error:
            if on_broken is None:
                raise
            on_broken(error)
    return found
