"""Read the pickles that some published .npy files are, admitting plain data and nothing that can run code.

A pickle is a program. Python's own advice, to restrict the names that it may look up, is not enough for numpy: a forged
dtype that declares object pointers to be plain bytes makes numpy follow addresses of the file's choice. So no state of
the file ever reaches numpy: arrays and dtypes are rebuilt here from their parts.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from hgmm.errors import DataError

__all__ = ["load_pickled_array", "unpickle_plain"]

PLAIN_KINDS = "biufSU"

_DAMAGE = (OSError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, MemoryError)


def load_pickled_array(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Read a .npy file that may hold pickled objects, under the restrictions of this module.

    Parameters
    ----------
    path : Path
        A .npy file, as ``numpy.save(..., allow_pickle=True)`` writes it.

    Returns
    -------
    ndarray
        Its objects, at any depth, are numpy arrays, numpy scalars, dicts, lists, tuples, strings, bytes, numbers, bools
        and None.

    Raises
    ------
    DataError
        If the file is no .npy file, is damaged, or holds anything else; the message names it. Nothing of it is run.
    """
    try:
        with path.open("rb") as file:
            if not _holds_objects(file):
                file.seek(0)
                return np.asarray(np.load(file, allow_pickle=False))
            resolved = unpickle_plain(file)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise DataError(f"{path}: cannot be read as a .npy file ({error}); fetch the file again") from error
    if not isinstance(resolved, np.ndarray):
        raise DataError(f"{path}: must hold a pickled array, got {type(resolved).__name__}; fetch the file again")
    return resolved


def unpickle_plain(file: BinaryIO) -> Any:
    """Read one pickle of plain data from an open file, under the restrictions of this module.

    Raises
    ------
    DataError
        If it is damaged or holds anything but what `load_pickled_array` names. Nothing of it is run.
    """
    try:
        return _Resolver()(_Unpickler(file).load())
    except DataError:
        raise
    except (pickle.UnpicklingError, RecursionError, OverflowError, *_DAMAGE) as error:
        raise DataError(f"its pickle is damaged or not admitted ({error}); fetch the file again") from error


def _holds_objects(file: BinaryIO) -> bool:
    """Read the header of a .npy file and leave the position behind it."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        _, _, dtype = np.lib.format.read_array_header_2_0(file)
    return bool(dtype.hasobject)


class _Dtype:
    """A dtype of plain data, or of objects; of the pickled state only the byte order counts."""

    __slots__ = ("value",)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str):
            raise DataError(f"a pickled dtype must have a name, got {code!r}")
        value = np.dtype(code)
        if value.kind not in PLAIN_KINDS + "O" or value.subdtype is not None or value.names is not None:
            raise DataError(f"dtype {code!r} is not admitted; only numbers, strings, bytes and objects are")
        self.value = value

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise DataError(f"the byte order of a dtype must be one of < > = |, got {order!r}")
        if order in "<>" and self.value.kind != "O":
            self.value = self.value.newbyteorder(order)


class _Array:
    """A pickled array, rebuilt from its parts when its state arrives."""

    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray[Any, np.dtype[Any]] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise DataError(f"the state of a pickled array is damaged: shape {shape!r}")
        count = math.prod(shape)
        if dtype.value.kind == "O":
            if not isinstance(raw, list) or len(raw) != count:
                raise DataError(f"a pickled array of shape {shape!r} must list {count} objects")
            # Objects are listed in C order even where the array is in Fortran's.
            self.value = np.fromiter(raw, dtype=object, count=count).reshape(shape)
        else:
            if not isinstance(raw, bytes) or len(raw) != count * dtype.value.itemsize:
                raise DataError(f"a pickled array of shape {shape!r}, dtype {dtype.value} has another number of bytes")
            self.value = np.frombuffer(raw, dtype=dtype.value).copy().reshape(shape, order="F" if fortran else "C")


class _Admitted:
    """Stands for a function that the pickle may call; it has no attributes that a pickle could set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> NoReturn:
        raise DataError("the pickle tries to change a function; this is not admitted")


def _scalar(dtype: Any, raw: Any) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.value.kind == "O" or not isinstance(raw, bytes):
        raise DataError("a pickled numpy scalar must be a plain number or string")
    if len(raw) != dtype.value.itemsize:
        raise DataError(f"a pickled scalar of dtype {dtype.value} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype.value)[0]


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Turn text back into bytes, as pickles of protocol 2 and below write them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise DataError(f"only the encoding latin1 is admitted, got {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*args: object) -> bytes:
    """Return empty bytes, as pickles of protocol 2 and below write them."""
    if args:
        raise DataError(f"its pickle calls bytes with {args!r}; this is not admitted")
    return b""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            return _Admitted(_Array if name == "_reconstruct" else _scalar)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Admitted(_Dtype if name == "dtype" else _refuse_array)
        if (module, name) == ("_codecs", "encode"):
            return _Admitted(_latin1)
        if module in ("builtins", "__builtin__") and name == "bytes":
            return _Admitted(_no_bytes)
        raise DataError(
            f"its pickle asks for {module}.{name}; only numpy arrays, dicts, lists, strings and numbers are admitted, "
            "and nothing was run"
        )


def _refuse_array(*_: object) -> NoReturn:
    raise DataError("its pickle makes a numpy.ndarray directly; this is not admitted")


class _Resolver:
    """Puts arrays in place of what stood for them, and refuses all that is not plain data.

    What the pickle refers to several times stays one object: copying it for each reference would let a small file fill
    the memory.
    """

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.open: set[int] = set()

    def __call__(self, value: Any) -> Any:
        if value is None or isinstance(value, str | bytes | bool | int | float | np.generic):
            return value
        key = id(value)
        if key in self.open:
            raise DataError("its pickle contains itself, which is not admitted")
        if key not in self.done:
            self.open.add(key)
            self.done[key] = self._rebuilt(value)
            self.open.remove(key)
        return self.done[key]

    def _rebuilt(self, value: Any) -> Any:
        if isinstance(value, _Array):
            if value.value.dtype.kind != "O":
                return value.value
            flat = np.fromiter(map(self, value.value.ravel().tolist()), dtype=object, count=value.value.size)
            return flat.reshape(value.value.shape)
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self(item) for item in value)
        raise DataError(f"its pickle holds a {type(value).__name__.strip('_')}, which is not admitted")
