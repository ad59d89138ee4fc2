"""The folder of a run: a new one under a default name, and what becomes of it if the run fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from hgmm import datasets
from hgmm.errors import DataError
from hgmm.training.config import RunConfig
from hgmm.training.run_record import RECORD, RunRecord
from hgmm.training.trained_run import CONFIG, DESCRIPTION

__all__ = ["default_run_dir", "epochs_done", "is_free", "new_run_dir"]


def new_run_dir(config: RunConfig, *, parent: str | Path = "runs") -> Path:
    """Make a folder ``runs/<dataset>-<model>-<YYYYmmdd-HHMMSS>`` that no other process gets.

    Raises
    ------
    DataError
        If it cannot be made.
    """
    stem = f"{datasets.info(config.data.dataset).name}-{config.model.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = Path(parent) / stem, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = Path(parent) / f"{stem}-{number}"
        except OSError as error:
            raise DataError(f"run folder {path}: it cannot be made ({error.strerror}); name another one") from error
        else:
            return path


@contextlib.contextmanager
def default_run_dir(config: RunConfig, *, parent: str | Path = "runs") -> Iterator[Path]:
    """Make a folder as `new_run_dir` does, and take it away again if the run in it fails before its first epoch.

    A run that was stopped can be resumed, and one that failed later has a record of its epochs: both keep their folder.
    Only the files that such a run writes are removed, and folders only if nothing else is in them.

    Raises
    ------
    DataError
        As `new_run_dir`.
    """
    parent = Path(parent)
    first = not parent.exists()
    path = new_run_dir(config, parent=parent)
    try:
        yield path
    except BaseException:
        if epochs_done(path) == 0 and _remove(path) and first:
            _remove_empty(parent)
        raise


def epochs_done(run_dir: str | Path) -> int | None:
    """Return how many epochs a run that failed did, or several together; None if a signal stopped it."""
    records = [RunRecord.load(path) for path in _run_folders(Path(run_dir)) if (path / RECORD).exists()]
    if any(record.status == "interrupted" for record in records):
        return None
    return sum(len(record.epochs) for record in records)


def is_free(run_dir: Path) -> bool:
    """Say whether a new run may use an existing folder: an empty one, or that of a run which never began."""
    # A process killed while it writes its first file leaves a hidden temporary one.
    names = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")}
    if names != {CONFIG, RECORD}:
        return not names
    # A run refused for a wrong option or missing data leaves only its words, and the corrected one takes its place.
    record = RunRecord.load(run_dir)
    return record.status == "failed" and not record.epochs


def _run_folders(run_dir: Path) -> list[Path]:
    return [*sorted(run_dir.glob("seed-*")), run_dir]


def _remove(run_dir: Path) -> bool:
    """Remove the folder of a run that never began; not if it holds anything else, such as a checkpoint."""
    folders = _run_folders(run_dir)
    files = {folder / name for folder in folders for name in (CONFIG, RECORD, DESCRIPTION)}
    if any(path not in files for path in run_dir.rglob("*") if not path.is_dir()):
        return False
    for file in files:
        file.unlink(missing_ok=True)
    for folder in folders:
        _remove_empty((folder / DESCRIPTION).parent)
        _remove_empty(folder)
    return True


def _remove_empty(folder: Path) -> None:
    # What somebody has put there in the meantime stays, and so does its folder.
    with contextlib.suppress(OSError):
        folder.rmdir()
