from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hgmm.errors import BackendError, ConfigError
from hgmm.kernels import _native
from hgmm.typing import RelationCSC

needs_library = pytest.mark.skipif(
    _native.missing_reason() is not None, reason=str(_native.missing_reason()).replace("\n", " ")
)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Yield the folder in which the loader looks, with nothing in it."""
    monkeypatch.setattr(_native, "_FOLDER", tmp_path)
    monkeypatch.delenv("HGMM_CPU_ISA", raising=False)
    _native._open.cache_clear()
    _native._log_missing.cache_clear()
    yield tmp_path
    _native._open.cache_clear()
    _native._log_missing.cache_clear()


def test_the_library_is_there_where_it_must_be() -> None:
    if os.environ.get("HGMM_REQUIRE_NATIVE") != "1":
        pytest.skip("HGMM_REQUIRE_NATIVE is not 1, so the compiled kernels may be missing")
    assert _native.missing_reason() is None


@needs_library
@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_either_instruction_set_can_be_forced(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_CPU_ISA", isa)
    if (reason := _native.missing_reason()) is not None:
        pytest.skip(reason)
    assert _native.isa() == isa


@needs_library
def test_auto_takes_the_best_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_CPU_ISA", "avx2")
    best = "portable" if _native.missing_reason() else "avx2"
    monkeypatch.setenv("HGMM_CPU_ISA", "auto")
    assert _native.isa() == best


@needs_library
def test_an_instruction_set_that_the_processor_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def hgmm_cpu_supports_avx2(self) -> int:
            return 0

    monkeypatch.setattr(_native, "_open", lambda name: Old())
    monkeypatch.setenv("HGMM_CPU_ISA", "avx2")
    with pytest.raises(BackendError, match=r"HGMM_CPU_ISA=avx2: .* instructions that this processor lacks"):
        _native.library()


def test_an_unknown_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_CPU_ISA", "avx1024")
    with pytest.raises(ConfigError, match="'avx1024'"):
        _native.missing_reason()


def test_a_missing_library_says_so_once(no_library: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="hgmm.kernels"):
        reasons = {_native.missing_reason() for _ in range(3)}
    (reason,) = reasons
    assert reason is not None
    assert "no _hgmm_portable.so in the package; reinstall hgmm where a C++ compiler is found" in reason
    assert caplog.messages == [f"{reason}; the operators run on the reference, several times slower"]
    with pytest.raises(BackendError, match=r"no _hgmm_portable\.so"):
        _native.library()


def test_a_file_that_is_no_library(no_library: Path) -> None:
    (no_library / "_hgmm_portable.so").write_text("not a library")
    with pytest.raises(BackendError, match=r"_hgmm_portable\.so cannot be loaded \("):
        _native.library()


@needs_library
def test_a_library_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    _native._open.cache_clear()
    own = _native.ABI_VERSION
    monkeypatch.setattr(_native, "ABI_VERSION", 99)
    with pytest.raises(BackendError, match=f"has interface {own}, this package needs 99"):
        _native.library()


@needs_library
def test_a_library_for_another_number_of_modalities(monkeypatch: pytest.MonkeyPatch) -> None:
    _native._open.cache_clear()
    monkeypatch.setattr(_native, "MAX_MODALITIES", 7)
    with pytest.raises(BackendError, match="takes 8 modalities, this package needs 7"):
        _native.library()


@needs_library
def test_the_library_shares_the_threads_of_torch() -> None:
    _native.library()
    maps = Path("/proc/self/maps")
    if not (maps.exists() and _native.has_openmp()):
        pytest.skip("no OpenMP here, or no list of what is loaded")
    runtimes = {line.split()[-1] for line in maps.read_text().splitlines() if "libgomp" in line}
    assert len(runtimes) == 1, runtimes


def test_the_status_of_a_call_becomes_an_error() -> None:
    _native.call(lambda: 0)
    with pytest.raises(MemoryError, match="no memory"):
        _native.call(lambda: -2)
    with pytest.raises(BackendError, match="status -1"):
        _native.call(lambda: -1)


@needs_library
def test_an_option_that_the_library_does_not_know() -> None:
    from hgmm.kernels.cross_modal_attention.cpu import _Args

    args = _Args(M=9)
    with pytest.raises(BackendError, match="status -1"):
        _native.call(_native.library().hgmm_cross_modal_forward, ctypes.byref(args))


def test_numbers_that_the_library_is_given() -> None:
    assert _native.pointer(None) is None
    x = torch.ones(1)
    assert _native.pointer(x) == x.data_ptr()
    assert [_native.storage(x.to(dtype)) for dtype in (torch.float32, torch.float64, torch.bfloat16)] == [0, 1, 2]
    csc = RelationCSC(*[torch.zeros(1, dtype=torch.int32)] * 5)
    assert not _native.wide_index(csc)
    assert _native.wide_index(RelationCSC(*(t.long() for t in csc)))


def test_stored_rows_are_what_the_library_reads() -> None:
    half = torch.ones(1, dtype=torch.float16)
    assert _native.accumulation_dtype(half) == torch.float32
    assert _native.stored(half, torch.float32).dtype == torch.float32
    assert _native.stored(half.bfloat16(), torch.float32).dtype == torch.bfloat16
