from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from benchmarks import _samplers
from benchmarks._samplers import PROVIDERS, Drawn, Graph, Parts, Sampler
from benchmarks.negative_sampling import AUDITED, Case, audit, main, measure
from hgmm.datasets.planted_triples import planted_triples

SMALL = ["--dataset", "synthetic", "--entities", "400", "--triples", "3000", "--batch", "8", "--rounds", "1"]
HERE = [name for name, provider in PROVIDERS.items() if provider.missing() is None]
FILTERED = [name for name in HERE if PROVIDERS[name].filtered]
CASE = Case(B=32, K=5, threads=(1,), rounds=1)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*SMALL, *arguments])


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Few entities and relations, so that many corruptions are known triples."""
    rng = np.random.default_rng(0)
    rows = planted_triples(rng.integers(0, 2, 30), 3, 500, rng)
    return Graph("planted", "synthetic", torch.from_numpy(rows), 30, 3)


def ordered(graph: Graph) -> Tensor:
    return graph.keys(graph.train).sort().values


def build(name: str, graph: Graph) -> Sampler:
    return PROVIDERS[name].build(Parts(graph))


@pytest.mark.parametrize("name", FILTERED)
def test_filtered_providers_pass_the_audit(name: str, graph: Graph) -> None:
    found = audit(name, build(name, graph), graph, ordered(graph), CASE)
    assert (found.checked, found.known_true_left) == (AUDITED * 32 * 5, 0)
    assert found.delivered <= 5


@pytest.mark.parametrize("name", [name for name in FILTERED if not name.startswith("pykeen")])
def test_our_providers_deliver_all_negatives(name: str, graph: Graph) -> None:
    found = audit(name, build(name, graph), graph, ordered(graph), CASE)
    assert (found.delivered, found.fewest_delivered, found.wrongly_struck_out) == (5, 5, 0)


def test_openke_s_draw_reaches_exactly_the_gaps(graph: Graph) -> None:
    positive = graph.train[:1].expand(4000, 3)
    sampler = build("openke-like", graph)
    drawn = sampler.drawn(sampler.draw(positive, 1, 0), positive).triples[:, 0]
    head, relation, tail = graph.train[0].tolist()
    known = set(map(tuple, graph.train.tolist()))
    heads = {(e, relation, tail) for e in range(30)} - known
    tails = {(head, relation, e) for e in range(30)} - known
    assert set(map(tuple, drawn.tolist())) == heads | tails


def _draws(triples: Tensor, delivered: Tensor | None = None) -> Sampler:
    kept = torch.ones(triples.shape[:2], dtype=torch.bool) if delivered is None else delivered
    return Sampler(lambda positives, K, step: len(positives), lambda B, positives: Drawn(triples[:B], kept[:B]))


def test_the_audit_counts_what_is_left_and_what_is_struck_out() -> None:
    """One positive (0, 0, 1); of the negatives (0, 0, 2) is known, and the last, unknown one is struck out."""
    graph = Graph("two", "synthetic", torch.tensor([[0, 0, 1], [0, 0, 1]]), 4, 1)
    negatives = torch.tensor([[[0, 0, 2], [0, 0, 3], [0, 0, 0], [2, 0, 1]]])
    sampler = _draws(negatives, torch.tensor([[True, True, True, False]]))
    known = torch.cat([graph.keys(graph.train), graph.keys(torch.tensor([[0, 0, 2]]))]).sort().values
    found = audit(_unfiltered(), sampler, graph, known, Case(B=1, K=4, threads=(1,), rounds=1))
    assert found.known_true_left == AUDITED
    assert (found.delivered, found.fewest_delivered, found.wrongly_struck_out) == (3, 3, AUDITED)
    assert found.known_true_share(4) == pytest.approx(1 / 3)
    with pytest.raises(click.ClickException, match="hgmm-torch: 8 known triples are left; nothing was timed"):
        audit("hgmm-torch", sampler, graph, known, Case(B=1, K=4, threads=(1,), rounds=1))


def _unfiltered() -> str:
    return next(name for name, provider in PROVIDERS.items() if not provider.filtered)


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ([[0, 0, 2], [0, 0, 3]], r"expected negatives of \(1, 1, 3\), got \(1, 2, 3\)"),
        ([[0, 0, 1]], "another way than in one end"),
        ([[3, 0, 2]], "another way than in one end"),
        ([[0, 0, 4]], "out of range"),
    ],
)
def test_the_audit_finds_a_wrong_form(negatives: list[list[int]], message: str) -> None:
    graph = Graph("one", "synthetic", torch.tensor([[0, 0, 1]]), 4, 1)
    sampler = _draws(torch.tensor([negatives]))
    with pytest.raises(click.ClickException, match=message):
        audit("hgmm-torch", sampler, graph, ordered(graph), Case(B=1, K=1, threads=(1,), rounds=1))


def test_one_threaded_providers_are_not_timed_with_two(graph: Graph) -> None:
    samplers = {name: build(name, graph) for name in ("hgmm-torch", "openke-like")}
    before = torch.get_num_threads()
    rows = measure(graph, samplers, ordered(graph), Case(B=4, K=2, threads=(1, 2), rounds=1))
    assert [(row["provider"], row["threads"]) for row in rows] == [
        ("hgmm-torch", 1),
        ("openke-like", 1),
        ("hgmm-torch", 2),
    ]
    assert torch.get_num_threads() == before


def test_rows_and_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = call("--negatives", "1,3", "--json", str(path))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["num_negs_per_pos"], row["provider"]) for row in rows] == [(K, name) for K in (1, 3) for name in HERE]
    for row in rows:
        assert (row["dataset"], row["num_entities"], row["num_triples"]) == ("synthetic", 400, 3000)
        assert row["ns_per_negative"] == pytest.approx(row["median_ms"] * 1e6 / (8 * row["num_negs_per_pos"]))
        assert row["million_per_s_per_core"] == pytest.approx(1e3 / row["ns_per_negative"])
        assert min(row["cpu_ns_per_negative"], row["cold_ns_per_negative"]) > 0
        assert not (PROVIDERS[row["provider"]].filtered and row["known_true_left"])
        assert {"known_true_share", "delivered", "device", "commit", "versions", "utc"} <= set(row)
        assert ("pykeen" in row["versions"]) == bool(find_spec("pykeen"))
    assert max(map(len, result.output.splitlines())) <= 80


def test_without_pykeen_its_providers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_samplers, "find_spec", lambda name: None)
    result = call("--negatives", "2")
    assert result.exit_code == 0, result.output
    assert "skipped: pykeen-bernoulli-bloom pykeen is not installed: pip install pykeen" in result.output
    assert "hgmm-torch" in result.output
    named = call("--providers", "pykeen-basic")
    assert named.exit_code == 2
    assert "pip install pykeen" in named.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--negatives", "4,x"], "'4,x'"),
        (["--threads", "0"], "'0'"),
        (["--dataset", "amazon"], "'amazon' is for node-classification"),
        (["--dataset", "db15"], "unknown dataset 'db15'"),
        (["--dataset", "./absent"], "no such folder"),
        (["--triples", "10"], "at least as many as entities (400) and relations (279), got 10"),
        (["--providers", "nobody"], "nobody"),
        (["--json", "absent/rows.jsonl"], "'absent' does not exist"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    # Errors are folded between words.
    assert message in " ".join(result.output.replace("│", " ").split())
