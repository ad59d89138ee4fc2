from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from hgmm import diagnostics, kernels
from hgmm.diagnostics import Finding, backend_reasons, diagnose, is_broken
from hgmm.errors import BackendError, ConfigError
from hgmm.kernels import _native


def statuses(findings: list[Finding], section: str) -> dict[str, str]:
    return {finding.name: finding.status for finding in findings if finding.section == section}


def only_broken(findings: list[Finding]) -> Finding:
    (finding,) = [finding for finding in findings if finding.status == "broken"]
    return finding


def test_diagnose_finds_nothing_broken_here(tmp_path: Path) -> None:
    findings = diagnose(tmp_path)
    assert [finding for finding in findings if finding.status == "broken"] == []
    assert not is_broken(findings)
    assert {finding.section for finding in findings} == {"versions", "DGL", "kernels", "data", "machine"}
    assert statuses(findings, "kernels")["cross_modal_attention"] == "ok"
    assert all(finding.fix == "" for finding in findings)


def test_diagnose_names_the_folders_of_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    (finding,) = [finding for finding in diagnose(tmp_path) if finding.name == "data root"]
    assert (finding.value, finding.status) == (f"{tmp_path}: imdb", "ok")


def test_diagnose_counts_the_files_of_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    (tmp_path / "imdb" / "labels.npy").touch()
    (finding,) = [finding for finding in diagnose(tmp_path) if finding.name == "imdb"]
    assert (finding.value, finding.status) == (f"1 of 7 published files in {tmp_path / 'imdb'}", "note")


def test_diagnose_notes_a_data_root_that_does_not_exist(tmp_path: Path) -> None:
    (finding,) = [finding for finding in diagnose(tmp_path / "none") if finding.name == "data root"]
    assert finding.status == "note"


def test_diagnose_reports_an_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "quantum")
    finding = only_broken(diagnose())
    assert "'quantum'" in finding.value
    assert finding.fix == "run: unset HGMM_BACKEND"


def test_diagnose_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    diagnose()
    assert diagnostics.settings.backend() == "reference"


def test_diagnose_reports_a_kernel_with_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.inter_node_attention

    def wrong(*args: torch.Tensor, **kwargs: torch.Tensor) -> object:
        return right(*args, **kwargs)._replace(out=torch.full((1,), float("nan")))

    monkeypatch.setattr(kernels, "inter_node_attention", wrong)
    broken = [finding for finding in diagnose() if finding.status == "broken"]
    assert "reference: gives nan where 1 is right" in [finding.value for finding in broken]
    assert {finding.name for finding in broken} == {"inter_node_attention"}


def test_diagnose_says_which_backend_auto_takes_and_why_not_the_others() -> None:
    values = [finding.value for finding in diagnose() if finding.name == "cross_modal_attention"]
    assert values[0].startswith("auto takes ")
    chosen = values[0].split()[2]
    assert f"{chosen}: works" in values
    (triton,) = [value for value in values if value.startswith("triton: ")]
    assert triton == "triton: works" or triton.startswith("triton: not available: ")


def test_diagnose_describes_the_compiled_library() -> None:
    (finding,) = [f for f in diagnose() if (f.section, f.name) == ("kernels", "compiled library")]
    reason = _native.missing_reason()
    if reason is None:
        assert finding.value.startswith(f"{_native.isa()}, with")
    else:
        assert (finding.status, finding.value) == ("note", f"{reason}; the operators run on the reference")


def test_diagnose_reports_missing_kernels_as_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_native, "_FOLDER", tmp_path)
    _native._open.cache_clear()
    try:
        findings = diagnose()
    finally:
        _native._open.cache_clear()
    assert not is_broken(findings)
    (finding,) = [f for f in findings if (f.section, f.name) == ("kernels", "compiled library")]
    assert "no _hgmm_portable.so in the package" in finding.value


def test_diagnose_reports_an_unknown_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_CPU_ISA", "sse9")
    finding = only_broken(diagnose())
    assert "'sse9'" in finding.value
    assert finding.fix == "run: unset HGMM_CPU_ISA"


def test_diagnose_says_why_a_backend_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: torch.Tensor, **kwargs: torch.Tensor) -> object:
        raise BackendError("needs AVX-1024")

    monkeypatch.setattr(kernels, "cross_modal_attention", refuse)
    findings = diagnose()
    assert statuses(findings, "kernels")["cross_modal_attention"] == "note"
    assert any("needs AVX-1024" in finding.value for finding in findings)


def test_diagnose_reports_a_version_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy<1", "pytest>99; extra == 'test'"])
    finding = only_broken(diagnose())
    assert (finding.name, finding.fix) == ("numpy", "run: pip install 'numpy<1'")
    assert "needs <1" in finding.value


def test_diagnose_reports_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-package-of-hgmm>=2"])
    assert only_broken(diagnose()).value == "not installed"


def test_diagnose_stops_at_a_dgl_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hgmm.dgl_compat", None)
    findings = diagnose()
    assert only_broken(findings).section == "DGL"
    assert statuses(findings, "kernels") == {}


@pytest.mark.parametrize(("load", "told"), [(99.5, True), (0.0, False)])
def test_diagnose_tells_of_a_busy_machine(monkeypatch: pytest.MonkeyPatch, load: float, told: bool) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    found = [finding for finding in diagnostics._machine() if finding.name == "load"]
    assert [(finding.status, "set train.num_threads=1" in finding.value) for finding in found] == [
        ("note", True)
    ] * told
    assert all(finding.value.startswith("99.5 programs want to compute") for finding in found)


def test_diagnose_knows_systems_that_count_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert "load" not in [finding.name for finding in diagnostics._machine()]


def test_reasons_why_a_backend_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("hgmm.kernels._dispatch._unavailable_reasons", lambda op, backend: [])
    assert backend_reasons("auto", device="cpu") == backend_reasons("reference", device="cpu") == []
    assert backend_reasons("cpu", device="cpu") == backend_reasons("triton", device="cuda:1") == []
    assert backend_reasons("cpu", device="cuda") == ["they run on cpu, and the device is cuda"]
    assert backend_reasons("triton", device="cpu") == ["they run on cuda, and the device is cpu"]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend_reasons("triton", device="cpu") == []
    monkeypatch.setattr("hgmm.kernels._dispatch._unavailable_reasons", lambda op, backend: ["no compiler"])
    assert backend_reasons("cpu") == ["no compiler"]


def test_diagnose_reports_a_data_root_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    finding = only_broken(diagnose(tmp_path))
    assert finding.value == f"{tmp_path} cannot be read (Permission denied)"
    assert finding.fix == f"run: chmod u+rx {tmp_path}"


def test_diagnose_reports_an_unsupported_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "PYTHON_RANGE", ((3, 98), (3, 99)))
    assert only_broken(diagnose()).name == "Python"


def test_finding_refuses_an_unknown_status() -> None:
    with pytest.raises(ConfigError, match="unknown status 'fine'"):
        Finding("versions", "torch", "2", "fine")
