from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console

from benchmarks import kg_step as bench
from benchmarks.kg_step import (
    INTERACTIONS,
    OPTIMIZERS,
    OUTSIDE_MODELS,
    PROVIDERS,
    Case,
    Ours,
    check_gate,
    main,
    make,
    measure,
)
from hgmm.settings import using_backend

TINY = Case(B=16, K=4, D=6, dataset="", entities=30)
SMALL = [
    "--entities",
    "30",
    "--batch",
    "16",
    "--draws",
    "4",
    "--width",
    "6",
    "--rounds",
    "1",
    "--steps",
    "2",
    "--no-memory",
]


@pytest.fixture(autouse=True)
def _few_triples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RANDOM_TRIPLES", 40)
    monkeypatch.setattr(bench, "RANDOM_RELATIONS", 3)
    bench.load_triples.cache_clear()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*SMALL, *arguments])


@pytest.mark.parametrize("provider", OPTIMIZERS)
@pytest.mark.parametrize("widths", [(), (5,)])
def test_steps_train(provider: str, widths: tuple[int, ...]) -> None:
    ours = make(Case(16, 4, 6, "", entities=30, widths=widths), provider)
    assert isinstance(ours, Ours)
    assert len(ours.model.pairs) == (1 + len(widths)) ** 2
    assert ours.model.row_gradients == (provider == "hgmm-rows")
    before = [parameter.detach().clone() for parameter in ours.model.parameters()]
    ours.step()
    assert all(not x.equal(y) for x, y in zip(before, ours.model.parameters(), strict=True))


def test_batches_are_whole_and_go_on_after_an_epoch() -> None:
    ours = Ours(TINY, "hgmm")
    drawn = [next(ours.batches) for _ in range(5)]
    assert [len(batch.positives) for batch in drawn] == [16] * 5
    # 40 triples are two whole batches an epoch.
    assert not drawn[0].positives.equal(drawn[2].positives)


def test_the_gate_finds_a_wrong_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    check_gate(list(OPTIMIZERS), TINY)
    make_ours = bench.Ours

    def wrong(case: Case, provider: str) -> Ours:
        ours = make_ours(case, provider)
        if provider == "hgmm-rows":
            with torch.no_grad():
                ours.model.structure.neg_()
        return ours

    monkeypatch.setattr(bench, "Ours", wrong)
    with pytest.raises(click.ClickException, match=r"hgmm-rows disagrees: its loss is \d.* and that of hgmm \d"):
        check_gate(list(OPTIMIZERS), TINY)


def test_peak_is_that_of_a_fresh_process() -> None:
    (row,) = measure(Case(16, 4, 6, "emoji-kg"), ["hgmm"], 1, 1, peaks=True)
    assert row["peak_mib"] >= 0


def test_rows_and_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = call("--draws", "4,8", "--providers", "hgmm,hgmm-rows", "--json", str(path))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["K"], row["provider"]) for row in rows] == [(K, p) for K in (4, 8) for p in ("hgmm", "hgmm-rows")]
    for row in rows:
        assert row["positives_per_s"] == pytest.approx(16 / (row["median_ms"] / 1e3))
        assert row["cpu_ms"] > 0
        assert row["steps"] == 2
        assert (row["E"], row["R"], row["train"], row["P"], row["source"]) == (30, 3, 40, 1, "random")
    assert max(map(len, result.output.splitlines())) <= 80


def test_a_round_has_several_steps_and_tells_the_processor_time_of_one() -> None:
    seconds: list[float] = []
    calls = []
    several = bench._several(lambda: calls.append(sum(range(100_000))), 5, seconds)
    several()
    several()
    assert (len(calls), len(seconds)) == (10, 2)
    assert min(seconds) > 0


def test_the_table_compares_with_pykeen() -> None:
    shared = {
        "interaction": "transe",
        "B": 16,
        "K": 4,
        "D": 6,
        "P": 1,
        "E": 30,
        "device": "x",
        "threads": 1,
        "dataset": "random",
        "source": "r",
    }
    figures = ("median_ms", "p20_ms", "p80_ms", "cpu_ms", "peak_mib", "positives_per_s")
    ours, theirs = (2.0, 1.0, 3.0, 4.0, 5.0, 8_000.0), (16.0, 9.0, 17.0, 16.0, 50.0, 1_000.0)
    rows = [
        shared | {"provider": name} | dict(zip(figures, values, strict=True))
        for name, values in (("hgmm", ours), ("pykeen", theirs))
    ]
    console = Console(width=80, record=True)
    bench.show(console, rows)
    line = next(line for line in console.export_text().splitlines() if line.startswith("hgmm "))
    assert line.split() == ["hgmm", "2.00", "1.00", "3.00", "4.00", "5.00", "8,000", "8.00", "0.25", "0.10"]


def test_pykeen_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(PROVIDERS) == {"hgmm", "hgmm-fused", "hgmm-rows", "hgmm-shared", "pykeen"}
    assert "skipped: pykeen scores no pairs of modalities" in call("--features", "3").output
    assert "skipped: pykeen keeps the vectors of rotate in another form" in call("--interaction", "rotate").output
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    result = call()
    assert result.exit_code == 0, result.output
    assert "skipped: pykeen is not installed" in result.output


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_sharing_gives_the_same_loss_for_what_is_shared(interaction: str) -> None:
    case = replace(TINY, interaction=interaction, chunk_size=8)
    shared = next(Ours(case, "hgmm-shared").batches).negatives.shared
    assert shared is not None
    assert shared.shape == (2, 4)
    check_gate(list(OPTIMIZERS), case)


@pytest.mark.parametrize("interaction", OUTSIDE_MODELS)
def test_pykeen_gives_the_same_loss(interaction: str) -> None:
    pytest.importorskip("pykeen")
    case = replace(TINY, interaction=interaction)
    with using_backend("reference"):
        check_gate(["pykeen", "hgmm-shared"], case)
        (row,) = measure(case, ["pykeen"], 1, 1, peaks=False)
    assert row["versions"]["pykeen"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draws", "4,x"], "'4,x'"),
        (["--features", "0"], "'0'"),
        (["--batch", "41"], "at most the 40 triples of training, got 41"),
        (["--providers", "nobody"], "nobody"),
        (["--json", "absent/rows.jsonl"], "'absent' does not exist"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
