from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks.negative_learning_cost import EPOCH, PARTS, Problem, Sizes, main, whole

SMALL = ["--nodes", "200", "--edges", "600", "--classes", "4", "--in-size", "4", "--hidden", "8", "--rounds", "1"]
SIZES = Sizes(num_nodes=200, num_edges=600, branches=5, classes=4, in_size=4, hidden=8)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*SMALL, *arguments])


def test_problem_has_the_documented_sizes() -> None:
    problem = Problem.of(SIZES)
    assert problem.logits.shape == (200, 5, 4)
    assert problem.graph.g.num_edges() == 600
    assert SIZES.logits_mib == 200 * 5 * 4 * 4 / 2**20


def test_parts_have_work_to_do() -> None:
    problem = Problem.of(SIZES)
    whole(problem).backward()
    grad = problem.logits.grad
    assert grad is not None
    taught = (grad != 0).any(2)
    assert 0.2 < taught.float().mean() < 1
    # The label's logit is left alone.
    assert not grad.gather(2, problem.graph.labels.view(-1, 1, 1).expand(-1, 5, 1)).any()
    assert torch.isfinite(grad).all()


def test_rows_and_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = call("--json", str(path))
    assert result.exit_code == 0, result.output
    rows = {row["provider"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert list(rows) == sorted(rows, key=[*PARTS, "parts", EPOCH, "epoch with"].index)
    assert rows["parts"]["median_ms"] == pytest.approx(sum(rows[name]["median_ms"] for name in PARTS))
    assert rows["parts"]["peak_mib"] >= 0
    assert all(row["median_ms"] > 0 and row["num_edges"] == 600 for row in rows.values())
    assert max(map(len, result.output.splitlines())) <= 80
    assert "200 nodes, 600 edges, 5 branches, 4 classes" in result.output


def test_even_number_of_branches() -> None:
    result = call("--branches", "4")
    assert result.exit_code == 2
    assert "odd number" in result.output
