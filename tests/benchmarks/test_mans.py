from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks import mans
from benchmarks._table import make_console
from benchmarks.mans import ARMS, DATA, Data, Job, main, plant_modality
from hgmm.graph import MultimodalGraph
from hgmm.kg import TripleSet
from tests.training.knowledge import make_knowledge_graph

SHORT = ("train.epochs=2", "train.eval_every=1", "model.dim=8", "link.batch_size=16")
OURS = ",".join(arm for arm in ARMS if arm != "pykeen")


def small(root: str | None, seed: int) -> MultimodalGraph:
    return make_knowledge_graph(holes=True)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(name="path")
def _rows_of_a_small_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(DATA, "emoji-kg", Data(small))
    path = tmp_path / "rows.jsonl"
    options = {key: json.loads(value) for key, _, value in (entry.partition("=") for entry in SHORT)}
    rows = [mans.train(Job("emoji-kg", arm, seed, options)) for arm in OURS.split(",") for seed in (5, 6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_shown_and_not_run_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_text()
    monkeypatch.setattr(mans, "train", None)
    sets = [word for entry in SHORT for word in ("--set", entry)]
    result = call("--data", "emoji-kg", "--seeds", "5-6", "--arms", OURS, "--json", str(path), *sets)
    assert result.exit_code == 0, result.output
    assert "seeds 5, 6" in result.output
    for arm in OURS.split(","):
        assert arm in result.output
    assert path.read_text() == before


def test_arms_differ_in_the_sampler_only(path: Path) -> None:
    rows = {(row["arm"], row["seed"]): row for row in map(json.loads, path.read_text().splitlines())}
    base = rows["normal", 5]["settings"]
    for arm in OURS.split(","):
        changed = {key for key, x in rows[arm, 5]["settings"].items() if base.get(key) != x}
        assert changed == {"normal": set(), "structure": {"model.pairs"}}.get(arm, {"link.sampler"})
        assert 0 < rows[arm, 5]["test_mrr"] <= 1
    assert [rows[arm, 5]["modal"] for arm in ("normal", "mans-v", "mans-t", "structure")] == [None, 1.0, 0.5, None]


def test_differences_are_paired() -> None:
    def row(mrr: float) -> dict[str, Any]:
        return {"test_mrr": mrr, "seed": 0, "modal": None, **{f"test_{name}": mrr for name in mans.FIGURES}}

    rows = {
        ("emoji-kg", "normal"): {0: row(0.20), 1: row(0.30)},
        ("emoji-kg", "mans-v"): {0: row(0.22), 1: row(0.33)},
    }
    console = make_console()
    with console.capture() as shown:
        mans.show(console, rows, "emoji-kg", ["normal", "mans-v"], select=False)
    assert "+2.50 ± 0.50" in shown.get()


def test_the_planted_modality_knows_training_triples_only() -> None:
    triples = make_knowledge_graph().triples
    assert triples is not None
    other = TripleSet(triples.train, triples.test, triples.val, triples.entity_vocab, triples.relation_vocab)
    one, two = (plant_modality(each, seed=3) for each in (triples, other))
    for key in ("image", "image_present"):
        assert one.g.ndata[key].equal(two.g.ndata[key])
    assert 0 < one.g.ndata["image_present"].float().mean() < 1
    # Entities with the same relations at the same ends are told apart by the noise alone.
    with_noise = one.g.ndata["image"]
    assert torch.cdist(with_noise, with_noise).fill_diagonal_(1).min() > 0


def test_wrong_names_are_refused() -> None:
    result = call("--arms", "mans-x")
    assert result.exit_code == 2
    assert "mans-x" in result.output
    assert "mans-v" in result.output
