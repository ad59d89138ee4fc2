from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from benchmarks import epoch
from benchmarks.epoch import EpochConfig, Provider, main, make_problem

SMALL = ["--edges", "400", "--hidden", "8", "--heads", "2", "--layers", "1", "--in-size", "4", "--rounds", "2"]
CONFIG = EpochConfig(edges=4000, hidden=8, heads=2, layers=2, modalities=2, degrees="uniform", in_size=4)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*SMALL, *arguments])


@pytest.mark.parametrize("degrees", ["uniform", "zipf"])
def test_problem_has_the_documented_sizes(degrees: str) -> None:
    config = EpochConfig(edges=4000, hidden=8, heads=2, layers=1, modalities=3, degrees=degrees)
    graph, features, labels = make_problem(config, torch.float64)
    assert graph.ntypes == ["item", "tag", "user"]
    assert [graph.num_edges(etype) for etype in graph.canonical_etypes] == [1000] * 4
    assert {ntype: tuple(x.shape) for ntype, x in features.items()} == dict.fromkeys(graph.ntypes, (133, 3, 64))
    assert all(x.dtype is torch.float64 for x in features.values())
    assert set(labels.tolist()) == {0, 1, 2}
    largest = max(int(graph.in_degrees(etype=etype).max()) for etype in graph.canonical_etypes)
    assert (largest > 100) == (degrees == "zipf")


def test_problem_depends_on_the_seed_alone() -> None:
    first, second = make_problem(CONFIG), make_problem(CONFIG)
    assert torch.equal(first.features["tag"], second.features["tag"])
    for etype in first.graph.canonical_etypes:
        assert all(map(torch.equal, first.graph.edges(etype=etype), second.graph.edges(etype=etype)))


def test_measures_and_writes_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = call("--providers", "official-style", "--modalities", "3", "--degrees", "zipf", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert "official-style" in result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["provider"], row["mode"]) for row in rows] == [
        ("official-style", mode) for mode in ("forward", "backward", "both")
    ]
    both = rows[-1]
    assert [row["peak_mib"] is None for row in rows] == [True, True, False]
    assert both["p20_ms"] <= both["median_ms"] <= both["p80_ms"]
    assert both["sizes"]["variant"] == "modal3_align"
    assert (both["rounds"], both["warmup"]) == (2, 1)
    assert set(both) >= {"versions", "commit", "dirty", "utc", "device", "threads", "dtype", "op"}


def test_gate_stops_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = epoch.PROVIDERS["official-style"]

    def build(problem, weights, config):  # type: ignore[no-untyped-def]
        return right.build(problem, {**weights, "gcs.0.skip": weights["gcs.0.skip"] + 1e-3}, config)

    monkeypatch.setitem(epoch.PROVIDERS, "wrong", Provider("benchmarks.official_style", build))
    result = call("--providers", "wrong", "--json", str(tmp_path / "rows.jsonl"))
    assert result.exit_code == 1
    assert "providers disagree on the loss of a small graph: official-style" in result.output
    assert "wrong" in result.output
    assert not list(tmp_path.iterdir())


def test_gate_refuses_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    right = epoch.PROVIDERS["official-style"]

    def build(problem, weights, config):  # type: ignore[no-untyped-def]
        return right.build(
            problem, {**weights, "gcs.0.skip": torch.full_like(weights["gcs.0.skip"], torch.nan)}, config
        )

    monkeypatch.setitem(epoch.PROVIDERS, "wrong", Provider("benchmarks.official_style", build))
    result = call("--providers", "wrong")
    assert result.exit_code == 1
    assert "wrong nan" in result.output


@pytest.mark.parametrize("modalities", [2, 3])
def test_hgmm_agrees_with_the_baseline(modalities: int) -> None:
    losses = epoch._gate_losses(
        ["hgmm", "official-style"],
        EpochConfig(edges=400, hidden=8, heads=2, layers=2, modalities=modalities, degrees="zipf", in_size=4),
    )
    assert losses["hgmm"] == pytest.approx(losses["official-style"], abs=1e-10)


def test_named_but_missing_provider_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = epoch.PROVIDERS["official-style"]._replace(module="hgmm_not_there.official")
    monkeypatch.setitem(epoch.PROVIDERS, "other", missing)
    result = call("--providers", "official-style,other")
    assert result.exit_code == 2
    assert "provider 'other' needs the module hgmm_not_there.official" in result.output


def test_unknown_provider_exits_with_2() -> None:
    result = call("--providers", "official")
    assert result.exit_code == 2
    assert "unknown provider 'official'; known: hgmm, official-style." in result.output


def test_heads_must_divide_the_hidden_size() -> None:
    result = call("--hidden", "9")
    assert result.exit_code == 2
    assert "must be a multiple of --heads 2, got 9" in result.output


def test_folder_of_the_rows_must_exist(tmp_path: Path) -> None:
    result = call("--json", str(tmp_path / "absent" / "rows.jsonl"))
    assert result.exit_code == 2
    assert "absent' does not exist" in "".join(result.output.replace("│", "").split("\n"))


def test_failing_memory_measurement_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    real = epoch.PROVIDERS["official-style"]
    monkeypatch.setitem(epoch.PROVIDERS, "only-here", real)
    result = call("--providers", "only-here")
    assert result.exit_code == 1
    assert "measuring the memory of only-here failed with exit status 2" in result.output


def test_loss_is_the_mean_of_all_cross_entropies() -> None:
    class Out:
        def __init__(self, branch_logits: Tensor | None) -> None:
            self.logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
            self.branch_logits = branch_logits

    labels = torch.tensor([0, 1])
    alone = epoch._loss(Out(None), labels)
    flat = epoch._loss(Out(torch.zeros(2, 1, 2)), labels)
    assert flat.item() == pytest.approx((alone.item() + torch.log(torch.tensor(2.0)).item()) / 2)
