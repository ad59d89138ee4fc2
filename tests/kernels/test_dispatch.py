from __future__ import annotations

import logging

import pytest

from hgmm.errors import BackendError, ConfigError
from hgmm.kernels import _dispatch, _native
from hgmm.kernels._dispatch import Backend, compiled_backends, implementation, select


def backend(name: str, *reasons: str) -> Backend[str, str]:
    return Backend(name, lambda inputs: f"{name} ran {inputs}", lambda inputs: list(reasons))


@pytest.fixture(autouse=True)
def _auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HGMM_BACKEND", raising=False)
    _dispatch._log_choice.cache_clear()


def test_auto_takes_the_first_without_a_reason() -> None:
    chosen = select("op", (backend("cpu", "needs AVX2"), backend("reference"), backend("other")), "x")
    assert chosen.run("x") == "reference ran x"


def test_auto_logs_each_choice_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hgmm.kernels"):
        for _ in range(3):
            select("op", (backend("reference"),), "x")
            select("other", (backend("reference"),), "x")
    assert caplog.messages == ["op runs on backend reference", "other runs on backend reference"]


def test_an_explicit_choice_is_not_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    with caplog.at_level(logging.INFO, logger="hgmm.kernels"):
        chosen = select("op", (backend("cpu"), backend("reference")), "x")
    assert chosen.name == "reference"
    assert caplog.messages == []


def test_refusals_of_all_backends_are_listed() -> None:
    with pytest.raises(BackendError, match="auto takes x=3") as error:
        select("op", (backend("cpu", "needs AVX2", "needs float32"), backend("reference", "too large")), "x=3")
    for line in ("op: ", "cpu: needs AVX2", "cpu: needs float32", "reference: too large"):
        assert line in str(error.value)


def test_a_named_backend_that_refuses_gives_its_reasons_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    with pytest.raises(BackendError, match="reference: too large") as error:
        select("op", (backend("cpu"), backend("reference", "too large")), "x")
    assert "cpu" not in str(error.value)


def test_a_named_backend_that_the_operator_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    with pytest.raises(BackendError, match="HGMM_BACKEND=reference, but this operator has only: cpu, triton"):
        select("op", (backend("cpu"), backend("triton")), "x")


def test_an_unknown_name_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "fpga")
    with pytest.raises(ConfigError, match="'fpga'"):
        select("op", (backend("reference"),), "x")


def test_a_backend_that_is_not_available_is_not_asked_about_the_input() -> None:
    def unsupported(inputs: str) -> list[str]:
        raise AssertionError(inputs)

    lacking: Backend[str, str] = Backend("cpu", lambda x: x, unsupported, lambda: ["no compiler", "no library"])
    assert select("op", (lacking, backend("reference")), "x").name == "reference"
    with pytest.raises(BackendError, match="cpu: no compiler\n  cpu: no library"):
        select("op", (lacking,), "x")


def test_a_compiled_backend_says_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, _ = compiled_backends("inter_node_attention", lambda inputs, name: f"{name} ran {inputs}")
    monkeypatch.setattr(_native, "missing_reason", lambda: "no compiler")
    assert cpu.unavailable_reasons() == ["no compiler"]
    monkeypatch.setattr(_native, "missing_reason", lambda: None)
    assert cpu.unavailable_reasons() == []
    assert cpu.run("x") == "cpu ran x"


def test_an_implementation_is_imported_by_name_and_once() -> None:
    module = implementation("neighbor_mean", "cpu")
    assert module.__name__ == "hgmm.kernels.neighbor_mean.cpu"
    assert implementation("neighbor_mean", "cpu") is module
