"""Write tables and matrices to the file that a user named; its ending decides the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgmm.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["EMBEDDING_FORMATS", "TABLE_FORMATS", "check_format", "write_embeddings", "write_table"]

TABLE_FORMATS = (".csv", ".parquet")
EMBEDDING_FORMATS = (".csv", ".parquet", ".npz", ".safetensors")


def check_format(path: Path, formats: Sequence[str]) -> None:
    """Raise `ConfigError` if the file's ending is none of `formats`; asked before any work is done."""
    if path.suffix not in formats:
        raise ConfigError(f"output {path}: the name must end in one of {', '.join(formats)}, got {path.suffix!r}")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as ``.csv`` or ``.parquet``, whole or not at all.

    Raises
    ------
    ConfigError
        If the file's ending is neither.
    DataError
        If the system refuses to write it.
    """
    from hgmm.files import write_file

    check_format(path, TABLE_FORMATS)
    if path.suffix == ".csv":
        write_file(path, lambda part: table.to_csv(part, index=False))
    else:
        write_file(path, lambda part: table.to_parquet(part, index=False))


def write_embeddings(ids: Sequence[str], values: np.ndarray[Any, Any], path: Path) -> None:
    """Write one vector a node, whole or not at all.

    Parameters
    ----------
    ids : sequence of str
        External ids.
    values : ndarray
        ``(n, width)`` float.
    path : Path
        ``.csv`` and ``.parquet`` get the columns ``id, 0, 1, …``; ``.npz`` the arrays ``ids`` and ``embedding``;
        ``.safetensors`` the tensor ``embedding``, with the ids as a JSON list in its metadata.

    Raises
    ------
    ConfigError
        If the file's ending is none of these.
    DataError
        If the system refuses to write it.
    """
    import json

    import numpy as np
    import pandas as pd
    from safetensors.numpy import save

    from hgmm.files import write_bytes, write_file

    check_format(path, EMBEDDING_FORMATS)
    if path.suffix in TABLE_FORMATS:
        table = pd.DataFrame(values, columns=[str(column) for column in range(values.shape[1])])
        table.insert(0, "id", list(ids))
        write_table(table, path)
    elif path.suffix == ".npz":
        write_file(path, lambda part: _save_npz(part, np.array(ids, dtype=np.str_), values))
    else:
        metadata = {"ids": json.dumps(list(ids))}
        write_bytes(path, save({"embedding": np.ascontiguousarray(values)}, metadata=metadata))


def _save_npz(path: Path, ids: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> None:
    import numpy as np

    # Given an open file, NumPy does not append its own ending to the name.
    with path.open("wb") as file:
        np.savez_compressed(file, ids=ids, embedding=values)
