from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from scipy import stats

from benchmarks import negative_learning
from benchmarks._table import make_console
from benchmarks.negative_learning import (
    ARMS,
    DATA,
    DEFAULT,
    PLANTED,
    Comparison,
    Job,
    calibration_error,
    claims,
    compare,
    holm,
    main,
)
from hgmm.training import configure

SHORT = ("--set", "train.epochs=2", "--set", "train.eval_every=1", "--workers", "1")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def row(data: str, arm: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {"data": data, "arm": arm, "seed": seed, "test_accuracy": accuracy}


def table(data: str, **accuracies: list[float]) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    return {
        (data, arm): {seed: row(data, arm, seed, value) for seed, value in enumerate(values)}
        for arm, values in accuracies.items()
    }


def test_default_arm_is_what_the_model_is_trained_with() -> None:
    own = {"data.dataset": "emoji", "model.name": "graph-mnl"}
    assert configure(overrides={**own, **ARMS[DEFAULT]}).negative == configure(overrides=own).negative


def test_comparison_is_a_paired_t_test() -> None:
    ours, theirs = [0.8, 0.7, 0.9, 0.75], [0.7, 0.72, 0.8, 0.7]
    rows = table("emoji", ours=ours, theirs=[*theirs, 0.1])
    found = compare(rows, "emoji", "ours", "theirs", "test_accuracy")
    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-9)
    assert found.mean == pytest.approx(0.0575)
    assert found.standard_error == pytest.approx(stats.sem([a - b for a, b in zip(ours, theirs, strict=True)]))


@pytest.mark.parametrize(("differences", "p_value"), [((0.0, 0.0, 0.0), 1.0), ((0.5, 0.5, 0.5), 0.0)])
def test_comparison_without_spread(differences: tuple[float, ...], p_value: float) -> None:
    assert Comparison(differences).p_value == p_value


def test_comparison_of_one_seed_has_no_error() -> None:
    one = Comparison((0.1,))
    assert one.mean == 0.1
    assert math.isnan(one.standard_error)
    assert math.isnan(one.p_value)
    assert math.isnan(Comparison(()).mean)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_calibration_error_is_that_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=generator)
    logits[0] = torch.tensor([1e3, 0, 0, 0])
    target = torch.randint(4, (200,), generator=generator)
    gaps: dict[int, list[float]] = {}
    for z, label in zip(logits, target, strict=True):
        p = z.double().softmax(0)
        gaps.setdefault(min(14, int(p.max() * 15)), []).append(float(p.max()) - float(p.argmax() == label))
    expected = sum(abs(sum(values)) for values in gaps.values()) / 200
    assert calibration_error(logits, target) == pytest.approx(expected, rel=1e-12)


def test_claims_are_corrected_for_their_number() -> None:
    low, high = [0.5, 0.6, 0.55, 0.5], [0.6, 0.69, 0.66, 0.59]
    rows = table("emoji", **{"ce": low, DEFAULT: high}) | table(PLANTED[0], **{"imitation": low, DEFAULT: high})
    found = claims(rows)
    assert [(claim.data, claim.base) for claim in found] == [("emoji", "ce"), (PLANTED[0], "imitation")]
    assert all(claim.p_value == pytest.approx(2 * stats.ttest_rel(high, low).pvalue) for claim in found)


def test_job_is_known_by_its_settings() -> None:
    job = Job("emoji", "nl", 3, {"negative.weight": 0.5})
    assert (job.settings["negative.variant"], job.settings["negative.weight"]) == ("nl", 0.5)
    assert job.key != Job("emoji", "nl", 3).key
    # The base stays what it is: no option of negative learning reaches it.
    assert Job("emoji", "ce", 3, {"negative.weight": 0.5}).settings["negative.weight"] == 0
    assert Job("emoji", "ce", 3, {"negative.delta": 0.5}).key == Job("emoji", "ce", 3).key
    assert Job("emoji", "ce", 3, {"model.dropout": 0.5}).key != Job("emoji", "ce", 3).key


@pytest.mark.parametrize("name", [name for name in DATA if name != "imdb"])
def test_data_differ_by_seed_where_they_are_drawn(name: str) -> None:
    first, again, other = (DATA[name].make(None, seed) for seed in (0, 0, 1))
    target = first.target
    image, same, different = (graph.features(target)["image"] for graph in (first, again, other))
    assert torch.equal(image, same)
    assert torch.equal(image, different) == (name == "emoji")


def test_runs_are_kept_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    choice = ("--data", "planted-1", "--seeds", "0", *SHORT, "--json", str(path))
    first = call(*choice, "--arms", "nckd")
    assert first.exit_code == 0, first.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(row["arm"] for row in rows) == ["ce", "nckd"]
    by_arm = {row["arm"]: row for row in rows}
    assert by_arm["ce"]["train_harmful"] is None
    assert all(0 <= row["test_accuracy"] <= 1 for row in rows)
    assert "planted-1, seeds 0" in first.output
    for row in rows:
        row["test_accuracy"] = 0.123
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second = call(*choice, "--arms", "nckd")
    assert second.exit_code == 0, second.output
    assert second.output.count("12.3") == 2
    selected = call(*choice, "--arms", "nckd", "--select")
    assert "12.3" not in selected.output
    assert "Claims" not in selected.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "emojis"), "emojis"),
        (("--arms", "ce,mln"), "mnl"),
        (("--seeds", "5-3"), "expected FIRST-LAST"),
        (("--seeds", "many"), "'many'"),
        (("--set", "epochs"), "key=value"),
    ],
)
def test_wrong_options_are_named(arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_data_without_files_are_skipped_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_learning, "run_missing", lambda train, jobs, path, workers: [])
    result = call("--data-root", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "skipped: imdb" in result.output
    named = call("--data-root", str(tmp_path), "--data", "imdb")
    assert named.exit_code == 1
    assert "imdb" in named.output


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"op": "epoch"}\n')
    result = call("--data", "planted-1", "--json", str(path))
    assert result.exit_code == 1
    assert "line 1" in result.output


def test_tables_fit_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    full = {
        "val": 0.98765,
        "test_accuracy": 0.98765,
        "test_calibration_error": 0.345678,
        "test_dominant_accuracy": 0.98765,
        "test_harmful": 0.12345,
    }
    rows = {("emoji", arm): {seed: {**full, "test_accuracy": 0.9 + seed / 50} for seed in range(3)} for arm in ARMS}
    negative_learning.show(make_console(), rows, "emoji", list(ARMS), select=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("±" in line for line in lines) == len(ARMS) + 1
