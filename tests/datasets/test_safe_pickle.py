from __future__ import annotations

import io
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hgmm.datasets.safe_pickle import load_pickled_array
from hgmm.errors import DataError

HEADER_OF_OBJECTS = {"descr": "|O", "fortran_order": False, "shape": ()}


def write(path: Path, stream: bytes) -> Path:
    """Write a .npy file whose header promises objects, followed by any pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, HEADER_OF_OBJECTS)
    path.write_bytes(header.getvalue() + stream)
    return path


def scalar(value: object) -> np.ndarray:
    array = np.empty((), dtype=object)
    array[()] = value
    return array


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        same = isinstance(other, np.ndarray) and one.dtype == other.dtype and one.shape == other.shape
        return same and all(equal(a, b) for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(item, other[key]) for key, item in one.items())
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


GOOD = {
    "splits": scalar({"train_idx": np.arange(4), "val_idx": np.array([], dtype=np.int32), "test_idx": [4, 5]}),
    "scalars": scalar([1, 2.5, "x", b"\xffy", np.int64(-4), np.float32(0.5), np.str_("z"), None, True, (1, "a")]),
    "triples": np.array([[1, "2", "also"], [3, "4", "both"]], dtype=object),
    "fortran": np.asfortranarray(np.array([["a", 1], ["b", 2]], dtype=object)),
    "nested": scalar({"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">i4")}),
    "text": scalar({"u": np.array(["ab", "c"]), "s": np.array([b"xy"]), "b": np.array([True])}),
    "shared": scalar([[shared := [1], shared], np.array([shared, None], dtype=object)]),
    "empty": np.empty((0, 3), dtype=object),
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("name", GOOD)
def test_plain_data_comes_back_as_it_was(tmp_path: Path, name: str, protocol: int) -> None:
    path = write(tmp_path / "a.npy", pickle.dumps(GOOD[name], protocol=protocol))
    assert equal(load_pickled_array(path), GOOD[name])


def test_the_comparison_of_these_tests_can_fail() -> None:
    assert not equal(np.array([1]), np.array([1.0]))
    assert not equal({"a": [1, (2,)]}, {"a": [1, [2]]})


def test_files_of_numpy_itself_are_read(tmp_path: Path) -> None:
    for array in (GOOD["triples"], np.arange(6).reshape(2, 3), np.array([["a", "b"]])):
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        assert equal(load_pickled_array(tmp_path / "a.npy"), array)


def test_shared_parts_are_not_copied(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep, deep]
    loaded = load_pickled_array(write(tmp_path / "a.npy", pickle.dumps(scalar(deep)))).item()
    assert loaded[0] is loaded[1]


class Runs:
    """Would make a file if it were unpickled by Python's own unpickler."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.reduced = (call, args)

    def __reduce__(self) -> Any:
        return self.reduced


MALICIOUS = {
    "os.system": Runs(os.system, "touch owned"),
    "builtins.eval": Runs(eval, "open('owned', 'w')"),
    "builtins.getattr": Runs(getattr, "a", "upper"),
    "builtins.open": Runs(open, "owned", "w"),
    "numpy.load": Runs(np.load, "owned", None, True),
    "numpy.fromfile": Runs(np.fromfile, "owned"),
    "collections.OrderedDict": __import__("collections").OrderedDict(a=1),
    "builtins.bytearray": bytearray(b"a"),
    "builtins.complex": 1j,
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_names_that_are_not_admitted_are_not_even_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    module, function = name.rsplit(".", 1)
    path = write(tmp_path / "a.npy", pickle.dumps(scalar([MALICIOUS[name]]), protocol=2))
    asked = re.escape(name).replace("os", "(os|posix|nt)").replace("builtins", "(builtins|__builtin__|io|_io)")
    with pytest.raises(DataError, match=rf"a\.npy: its pickle asks for [\w.]*{function}; only|{asked}; only"):
        load_pickled_array(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]
    assert module


def reconstruct(state: bytes, module: str = "numpy._core.multiarray") -> bytes:
    """Return the pickle of an array with any state."""
    return b"\x80\x02c" + module.encode() + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R" + state + b"b."


def dtype(code: str, state: bytes = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb") -> bytes:
    return b"cnumpy\ndtype\nX" + struct.pack("<I", len(code)) + code.encode() + b"\x89\x88\x87R" + state


def array_state(shape: bytes, type_of: bytes, raw: bytes) -> bytes:
    return b"(K\x01" + shape + type_of + b"\x89" + raw + b"t"


def short_bytes(raw: bytes) -> bytes:
    return b"C" + bytes([len(raw)]) + raw


POINTER = short_bytes(struct.pack("<Q", 0xDEADBEEF))

FORGED = {
    "object pointers given as bytes": (
        reconstruct(array_state(b"K\x01\x85", dtype("O8"), POINTER)),
        r"a pickled array of shape \(1,\) must list 1 objects",
    ),
    "too few bytes": (
        reconstruct(array_state(b"J\xff\xff\xff\x7f\x85", dtype("i8"), POINTER)),
        r"shape \(2147483647,\), dtype int64 has another number of bytes",
    ),
    "negative shape": (
        reconstruct(array_state(b"J\xff\xff\xff\xff\x85", dtype("i8"), POINTER)),
        r"the state of a pickled array is damaged: shape \(-1,\)",
    ),
    "no dtype": (
        reconstruct(array_state(b"K\x01\x85", b"N", POINTER)),
        r"the state of a pickled array is damaged: shape \(1,\)",
    ),
    "structured dtype": (
        reconstruct(array_state(b"K\x01\x85", dtype("i4,O"), POINTER)),
        "dtype 'i4,O' is not admitted",
    ),
    "void dtype": (reconstruct(array_state(b"K\x01\x85", dtype("V8"), POINTER)), "dtype 'V8' is not admitted"),
    "nested dtype": (reconstruct(array_state(b"K\x01\x85", dtype("(2,)i4"), POINTER)), "is not admitted"),
    "unknown dtype": (reconstruct(array_state(b"K\x01\x85", dtype("zz"), POINTER)), "data type 'zz' not understood"),
    "byte order": (
        reconstruct(array_state(b"K\x01\x85", dtype("i8", b"(K\x03U\x01?NNNNNNtb"), POINTER)),
        r"the byte order of a dtype must be one of .*, got '\?'",
    ),
    "dtype that is no text": (b"\x80\x02cnumpy\ndtype\nK\x07\x89\x88\x87R.", "a pickled dtype must have a name, got 7"),
    "array made directly": (
        b"\x80\x02cnumpy\nndarray\nK\x05\x85\x85R.",
        r"makes a numpy\.ndarray directly",
    ),
    "function with a state": (
        b"\x80\x02cnumpy\ndtype\n}X\x08\x00\x00\x00__code__Nsb.",
        "the pickle tries to change a function",
    ),
    "object scalar": (
        b"\x80\x02cnumpy._core.multiarray\nscalar\n" + dtype("O8") + POINTER + b"\x86R.",
        "a pickled numpy scalar must be a plain number or string",
    ),
    "short scalar": (
        b"\x80\x02cnumpy.core.multiarray\nscalar\n" + dtype("i4") + POINTER + b"\x86R.",
        "a pickled scalar of dtype int32 has 8 bytes",
    ),
    "other encoding": (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        "only the encoding latin1 is admitted, got 'rot13'",
    ),
    "many bytes": (b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", r"calls bytes with \(2147483647,\)"),
    "set": (pickle.dumps(scalar([{1, 2}]), protocol=4), "its pickle holds a set, which is not admitted"),
    "bare dtype": (dtype("i8").join([b"\x80\x02", b"."]), "its pickle holds a Dtype, which is not admitted"),
    "no array": (pickle.dumps({"a": 1}), "must hold a pickled array, got dict"),
    "persistent id": (b"\x80\x02K\x01Q.", "its pickle is damaged or not admitted"),
    "cut short": (pickle.dumps(GOOD["triples"])[:-9], r"cannot be read as a \.npy file|damaged"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_pickles_are_refused(tmp_path: Path, name: str) -> None:
    stream, message = FORGED[name]
    with pytest.raises(DataError, match=message):
        load_pickled_array(write(tmp_path / "a.npy", stream))


def test_a_pickle_that_contains_itself_is_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(DataError, match="its pickle contains itself"):
        load_pickled_array(write(tmp_path / "a.npy", pickle.dumps(scalar(endless))))


def test_a_file_that_is_no_npy_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"not numpy at all")
    with pytest.raises(DataError, match=r"a\.npy: cannot be read as a \.npy file"):
        load_pickled_array(path)
    with pytest.raises(DataError, match=r"none\.npy: cannot be read as a \.npy file"):
        load_pickled_array(tmp_path / "none.npy")
