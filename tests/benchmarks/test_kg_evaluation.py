from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks import kg_evaluation as bench
from benchmarks.kg_evaluation import Problem, check_gate, main, ranks_one_by_one
from hgmm.kg import TripleSet

ENTITIES, RELATIONS = 12, 2


def triples() -> TripleSet:
    rows = torch.cartesian_prod(torch.arange(ENTITIES), torch.arange(RELATIONS), torch.arange(4))
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    names = tuple(f"e{i}" for i in range(ENTITIES)), tuple(f"r{i}" for i in range(RELATIONS))
    return TripleSet(rows[:30], rows[30:35], rows[35:42], *names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    path.mkdir()
    found = triples()
    for split, rows in found.splits.items():
        named = ("\t".join((f"e{h}", f"r{r}", f"e{t}")) for h, r, t in rows.tolist())
        (path / f"{split}.tsv").write_text("\n".join(named) + "\n")
    return path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["--width", "5", "--dim", "4", "--sample", "3", *arguments])


def problem() -> Problem:
    return Problem(triples(), width=5, dim=4, seed=0, source="local")


def test_both_ways_agree() -> None:
    check_gate()


def test_one_by_one_counts_filtered_ranks() -> None:
    """Count them in loops from the model's own scores."""
    made = problem()
    model, known = made.model.double(), {tuple(row) for row in made.triples.known.tolist()}
    ranks = ranks_one_by_one(model, made.triples.known, made.triples.test)
    for row, found in zip(made.triples.test.tolist(), ranks.tolist(), strict=True):
        for side, place in enumerate((0, 2)):
            rivals = [[*row[:place], e, *row[place + 1 :]] for e in range(ENTITIES)]
            rivals = [rival for rival in rivals if tuple(rival) not in known]
            own, others = model.score(torch.tensor([row])).item(), model.score(torch.tensor(rivals))
            assert found[side] == 1 + int((others > own + 1e-9).sum())


def test_the_gate_finds_a_wrong_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ranks_one_by_one", lambda model, known, rows: ranks_one_by_one(model, known, rows) + 1)
    with pytest.raises(click.ClickException, match=r"disagree: test triple \[\d+, \d, \d+\] has the ranks .*; nothing"):
        check_gate()


def test_features_are_projected_again_for_each_end() -> None:
    made, asked = problem(), []
    project = made.model.project
    made.model.project = lambda ids=None: asked.append(ids) or project(ids)  # type: ignore[method-assign,assignment]
    ranks_one_by_one(made.model, made.triples.known, made.sample(3, 0))
    assert asked == [None] * 6


def test_a_sample_is_of_the_test_triples() -> None:
    made = problem()
    test = made.triples.test.tolist()
    assert all(row in test for row in made.sample(3, 0).tolist())
    assert len(made.sample(100, 0)) == len(test)


def test_rows_and_table(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = call("--dataset", str(folder), "--rounds", "2", "--no-memory", "--json", str(path))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["provider"], row["extrapolated_from"]) for row in rows] == [("hgmm", None), ("re-projected", 3)]
    for row in rows:
        assert (row["E"], row["R"], row["test"], row["pairs"], row["width"]) == (ENTITIES, RELATIONS, 7, 4, 5)
        assert (row["source"], row["stand_in_vectors"], row["threads"]) == ("local", True, 1)
        assert row["cpu_s"] > 0
        assert row["median_ms"] > 0
    assert "3, extrapolated" in result.output
    assert "stand-in vectors of width 5" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_peak_is_that_of_a_fresh_process(folder: Path) -> None:
    case = bench.Case(str(folder), None, 5, 4, 3, 1)
    result = call("--peak-of", "hgmm", json.dumps(bench.asdict(case)))
    assert result.exit_code == 0, result.output
    assert float(result.output) >= 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--threads", "0"], 2, "0 is not in the range"),
        (["--json", "absent/rows.jsonl"], 2, "'absent' does not exist"),
        (["--dataset", "emoji"], 1, "emoji: must be a knowledge graph with test triples"),
        (["--dataset", "no-such-data"], 1, "unknown dataset 'no-such-data'"),
    ],
)
def test_wrong_arguments(arguments: list[str], code: int, message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == code
    assert message in result.output
