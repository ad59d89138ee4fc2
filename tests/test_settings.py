from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
import torch

from hgmm import settings
from hgmm.errors import ConfigError
from hgmm.typing import resolve_device


def test_the_backend_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HGMM_BACKEND", raising=False)
    assert settings.backend() == "auto"
    monkeypatch.setenv("HGMM_BACKEND", "")
    assert settings.backend() == "auto"
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    assert settings.backend() == "reference"
    monkeypatch.setenv("HGMM_BACKEND", "refrence")
    with pytest.raises(ConfigError, match=r"HGMM_BACKEND: unknown backend 'refrence'; .* Did you mean 'reference'\?"):
        settings.backend()


@pytest.mark.parametrize("before", [None, "auto"])
def test_backend_is_what_it_was_afterwards(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HGMM_BACKEND", raising=False)
    if before is not None:
        monkeypatch.setenv("HGMM_BACKEND", before)

    def fail() -> None:
        with settings.using_backend("reference"):
            raise LookupError(os.environ["HGMM_BACKEND"])

    with pytest.raises(LookupError, match="reference"):
        fail()
    assert os.environ.get("HGMM_BACKEND") == before


def test_the_instruction_set_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HGMM_CPU_ISA", raising=False)
    assert settings.cpu_isa() == "auto"
    monkeypatch.setenv("HGMM_CPU_ISA", "portable")
    assert settings.cpu_isa() == "portable"
    monkeypatch.setenv("HGMM_CPU_ISA", "avx3")
    with pytest.raises(ConfigError, match=r"HGMM_CPU_ISA: unknown instruction set 'avx3'; .* Did you mean 'avx2'\?"):
        settings.cpu_isa()


def test_tensors_get_large_pages_unless_the_user_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    settings.prefer_large_pages()
    assert not settings.large_pages()
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    assert not settings.large_pages()
    settings.prefer_large_pages()
    assert settings.large_pages()


class CLibrary:
    """Notes what it is told about memory."""

    def __init__(self, *, accepts: bool) -> None:
        self.options: dict[int, int] = {}
        self._accepts = accepts

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return int(self._accepts)


@pytest.fixture
def _free_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name == "GLIBC_TUNABLES" or name.startswith("MALLOC_"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("_free_choice")
@pytest.mark.parametrize("accepts", [False, True])
def test_freed_memory_is_kept(accepts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    library = CLibrary(accepts=accepts)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert settings.keep_freed_memory() == accepts
    if accepts:
        assert library.options == {-3: 2**25, -1: 2**31 - 1}


@pytest.mark.usefixtures("_free_choice")
@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"])
def test_the_user_decides_about_freed_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = CLibrary(accepts=True)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv(name, "")
    assert not settings.keep_freed_memory()
    assert not library.options


@pytest.mark.usefixtures("_free_choice")
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not settings.keep_freed_memory()


def test_the_data_root_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("HGMM_DATA", "~/data")
    assert settings.data_root("~/here") == Path("/home/someone/here")
    assert settings.data_root() == Path("/home/someone/data")
    monkeypatch.delenv("HGMM_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", "/share")
    assert settings.data_root() == Path("/share/hgmm")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert settings.data_root() == Path("/home/someone/.local/share/hgmm")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cpu") == torch.device("cpu")
