"""The files of a run folder: JSON and tensors, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hgmm.errors import DataError
from hgmm.files import write_bytes

__all__ = ["read_json", "read_tensors", "write_json", "write_tensors"]


def write_json(path: Path, data: Any) -> None:
    """Write plain data; floats keep every bit."""
    write_bytes(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read plain data.

    Raises
    ------
    DataError
        If the file is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; name the folder that a run has written") from error
    except OSError as error:
        raise DataError(f"{path}: it cannot be read ({error.strerror}); check its rights") from error
    except ValueError as error:
        raise DataError(f"{path}: it is not valid JSON ({error}); restore the file or start the run anew") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; tensors that share memory are written one by one."""
    write_bytes(path, save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors onto the CPU.

    Raises
    ------
    DataError
        If the file is missing or is not a safetensors file.
    """
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; the checkpoint is not complete") from error
    except SafetensorError as error:
        raise DataError(f"{path}: it is not a valid safetensors file ({error}); start the run anew") from error
