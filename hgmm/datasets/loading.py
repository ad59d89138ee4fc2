"""The door to the datasets: by name from the registry, by path through the folder readers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hgmm.datasets.base import Dataset, DatasetInfo
from hgmm.datasets.readers import folder_task, read_dataset_folder
from hgmm.datasets.source_options import SourceOptions
from hgmm.errors import ConfigError, unknown_name
from hgmm.graph import MultimodalGraph
from hgmm.registry import DATASETS
from hgmm.settings import data_root

__all__ = ["available", "fetch", "info", "load"]


def available() -> list[str]:
    """Return the names of all datasets, sorted."""
    return list(DATASETS)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    require_official: bool = False,
    transforms: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    options: SourceOptions | None = None,
) -> MultimodalGraph:
    """Load a dataset.

    Parameters
    ----------
    name_or_path : str or path
        A registered name, or a folder: a path object, or a string with a path separator such as ``./mine``. A
        registered name wins.
    root : path, optional
        The folder that holds the files of named datasets. Default: `hgmm.settings.data_root`.
    require_official : bool, optional
        Accept nothing but the complete published files of a named dataset.
    transforms : mapping, optional
        The fitted transforms of a trained run, for a folder whose tables shall become features in the same way. Named
        datasets and imported graphs have features already and do not use them.
    classes : sequence of str, optional
        The class names of a trained run, for a folder likewise.
    options : SourceOptions, optional
        Which files to read, for a dataset that is published in several.

    Returns
    -------
    MultimodalGraph
        Its `source` says where the content comes from and what is absent.

    Raises
    ------
    ConfigError
        If the name is unknown, `require_official` is asked of a folder, or `options` of a dataset without a choice.
    DataError
        If files are missing or damaged, or a folder is none or more than one of the known kinds.

    Examples
    --------
    >>> load("synthetic").source.source
    'synthetic'
    """
    dataset = _registered(name_or_path)
    if dataset is not None:
        dataset = dataset.choosing(options) if options else dataset
        return dataset.load(data_root(root), require_official=require_official)
    if require_official:
        raise ConfigError(
            f"datasets.load require_official: only named datasets have official files, got the folder "
            f"{os.fspath(name_or_path)!r}; leave the option out"
        )
    folder = Path(name_or_path).expanduser()
    return read_dataset_folder(folder, transforms=transforms, classes=classes, options=options)


def info(name_or_path: str | os.PathLike[str]) -> DatasetInfo:
    """Describe a dataset without loading it.

    Parameters
    ----------
    name_or_path : str or path
        As in `load`.

    Raises
    ------
    ConfigError
        If the name is unknown.
    DataError
        If a folder is none or more than one of the known kinds.
    """
    dataset = _registered(name_or_path)
    if dataset is not None:
        return dataset.info
    path = Path(name_or_path).expanduser()
    return DatasetInfo(
        name=path.resolve().name,
        title=f"the folder {path}",
        task=folder_task(path),
        licence="the user's own",
    )


def fetch(name: str, *, root: str | os.PathLike[str] | None = None, options: SourceOptions | None = None) -> list[Path]:
    """Download the files of a named dataset.

    Parameters
    ----------
    name : str
        A registered name.
    root, options : optional
        As in `load`.

    Returns
    -------
    list of Path
        The files; empty for a dataset that needs none.

    Raises
    ------
    ConfigError
        If the name is unknown, or `options` are given for a dataset without a choice.
    DataError
        If the files cannot be had; the message says where from and where to put them by hand.
    """
    dataset: Dataset = DATASETS.get(name)
    dataset = dataset.choosing(options) if options else dataset
    return dataset.fetch(data_root(root))


def _registered(name_or_path: str | os.PathLike[str]) -> Dataset | None:
    """Return the dataset of that name, or None if a folder is meant."""
    if not isinstance(name_or_path, str):
        return None
    if name_or_path in DATASETS:
        dataset: Dataset = DATASETS.get(name_or_path)
        return dataset
    if os.sep in name_or_path or "/" in name_or_path or name_or_path in (os.curdir, os.pardir):
        return None
    unknown = unknown_name("dataset", name_or_path, DATASETS, listed_by="hgmm datasets list")
    message = f"datasets.load name_or_path: {unknown}"
    if Path(name_or_path).is_dir():
        raise ConfigError(f"{message} For the folder of that name write ./{name_or_path}")
    raise ConfigError(f"{message} A folder is written with a path separator, as in ./{name_or_path}")
