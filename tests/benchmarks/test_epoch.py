from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from benchmarks import _epoch, epoch
from benchmarks._epoch import PROVIDERS, EpochConfig, Provider, chosen_backend, gate_losses, make_problem
from benchmarks._measure import MODES
from benchmarks._table import make_console
from benchmarks.epoch import main
from hgmm.graph import DataSource, GraphSchema, ModalitySpec, MultimodalGraph

SMALL = ["--edges", "400", "--hidden", "8", "--heads", "2", "--layers", "1", "--in-size", "4", "--rounds", "2"]
TINY = EpochConfig(edges=400, hidden=8, heads=2, layers=2, degrees="zipf", in_size=4)
CONFIG = EpochConfig(edges=4000, hidden=8, heads=2, layers=2, in_size=4)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*SMALL, *arguments])


@pytest.fixture
def amazon(small_graph: MultimodalGraph, monkeypatch: pytest.MonkeyPatch) -> MultimodalGraph:
    """A graph as the data set is: review nodes without image, features of one width, a split."""
    g = small_graph.g
    width = 5
    generator = torch.Generator().manual_seed(0)
    g.nodes["item"].data["image"] = torch.randn(12, width, generator=generator)
    g.nodes["user"].data["text"] = torch.randn(4, width, generator=generator)
    both = {"text": ModalitySpec("text", width), "image": ModalitySpec("image", width)}
    schema = GraphSchema(
        ntypes=("item", "user"),
        canonical_etypes=small_graph.schema.canonical_etypes,
        modalities={"item": both, "user": {"text": both["text"]}},
        target="item",
        classes=("even", "odd"),
    )
    monkeypatch.setattr(_epoch.datasets, "load", lambda name, root: make())

    def make() -> MultimodalGraph:
        return MultimodalGraph(g.local_var(), schema, source=DataSource("synthetic", note="stand-in"), name="amazon")

    return make()


@pytest.mark.parametrize("degrees", ["uniform", "zipf"])
def test_problem_has_the_documented_sizes(degrees: str) -> None:
    config = EpochConfig(edges=4000, hidden=8, heads=2, layers=1, modalities=3, degrees=degrees)
    problem = make_problem(config, torch.float64)
    g = problem.graph.g
    assert g.ntypes == ["item", "tag", "user"]
    assert [g.num_edges(etype) for etype in g.canonical_etypes] == [1000] * 4
    features = _epoch._dense(problem.graph)
    assert {ntype: tuple(x.shape) for ntype, x in features.items()} == dict.fromkeys(g.ntypes, (133, 3, 64))
    assert all(x.dtype is torch.float64 for x in features.values())
    assert set(problem.labels.tolist()) == {0, 1, 2}
    largest = max(int(g.in_degrees(etype=etype).max()) for etype in g.canonical_etypes)
    assert (largest > 100) == (degrees == "zipf")


def test_problem_depends_on_the_seed_alone() -> None:
    first, second = (make_problem(CONFIG).graph for _ in range(2))
    assert torch.equal(first.features("tag")["image"], second.features("tag")["image"])
    for etype in first.schema.canonical_etypes:
        assert all(map(torch.equal, first.g.edges(etype=etype), second.g.edges(etype=etype)))


def test_measures_every_size_and_writes_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    result = call(
        "--edges", "4e2,200", "--providers", "official-style", "--modalities", "3", "--degrees", "zipf",
        "--json", str(path),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "official-style" in result.output
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["num_edges"], row["mode"]) for row in rows] == [(e, mode) for e in (200, 400) for mode in MODES]
    both = rows[-1]
    assert [row["peak_mib"] is None for row in rows[:3]] == [True, True, False]
    assert both["p20_ms"] <= both["median_ms"] <= both["p80_ms"]
    assert {key: both[key] for key in ("dataset", "source", "degrees", "M", "H", "D", "layers", "variant")} == {
        "dataset": "synthetic", "source": "synthetic", "degrees": "zipf", "M": 3, "H": 2, "D": 4, "layers": 1,
        "variant": "modal3_align",
    }  # fmt: skip
    assert (both["rounds"], both["warmup"], both["backend"]) == (2, 1, None)
    assert set(both) >= {"versions", "commit", "dirty", "utc", "device", "threads", "dtype", "op", "edges_per_s"}


def test_gate_stops_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = PROVIDERS["official-style"]

    def build(problem, weights, config):  # type: ignore[no-untyped-def]
        return right.build(problem, {**weights, "gcs.0.skip": weights["gcs.0.skip"] + 1e-3}, config)

    monkeypatch.setitem(PROVIDERS, "wrong", Provider("benchmarks.official_style", build))
    result = call("--providers", "wrong", "--json", str(tmp_path / "rows.jsonl"))
    assert result.exit_code == 1
    assert "providers disagree on the loss in float64: official-style" in result.output
    assert "wrong" in result.output
    assert not list(tmp_path.iterdir())


def test_gate_refuses_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PROVIDERS["official-style"]

    def build(problem, weights, config):  # type: ignore[no-untyped-def]
        return right.build(
            problem, {**weights, "gcs.0.skip": torch.full_like(weights["gcs.0.skip"], torch.nan)}, config
        )

    monkeypatch.setitem(PROVIDERS, "wrong", Provider("benchmarks.official_style", build))
    result = call("--providers", "wrong")
    assert result.exit_code == 1
    assert "wrong nan" in result.output


@pytest.mark.parametrize("modalities", [2, 3])
def test_hgmm_agrees_with_the_baseline(modalities: int) -> None:
    losses = gate_losses(list(PROVIDERS), EpochConfig(**{**vars(TINY), "modalities": modalities}))
    assert losses["hgmm"] == pytest.approx(losses["official-style"], abs=1e-10)
    assert losses["hgmm-reference"] == pytest.approx(losses["official-style"], abs=1e-10)


def test_all_agree_on_a_data_set_with_absent_modalities(amazon: MultimodalGraph) -> None:
    config = EpochConfig(hidden=8, heads=2, layers=2, dataset="amazon")
    losses = gate_losses(list(PROVIDERS), config)
    assert losses["hgmm"] == pytest.approx(losses["official-style"], abs=1e-10)
    problem = make_problem(config)
    assert (problem.labels >= 0).nonzero().flatten().tolist() == amazon.train_idx.tolist()
    dense = _epoch._dense(problem.graph)
    assert not dense["user"][:, 1].any()
    # A node without an image counts as zeros, whatever its frame holds.
    assert not dense["item"][~problem.graph.present("item")[:, 1], 1].any()
    assert dense["item"][:2, 1].all()


def test_rows_of_a_data_set_say_where_it_comes_from(amazon: MultimodalGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "peak_in_fresh_process", lambda *_: 1.0)
    config = EpochConfig(hidden=8, heads=2, layers=1, dataset="amazon", data_root="somewhere")
    rows = [row.flat() for row in epoch._measure(["hgmm"], config, 1)]
    both = rows[-1]
    assert {key: both[key] for key in ("dataset", "source", "num_edges", "num_nodes", "in_size", "variant")} == {
        "dataset": "amazon", "source": "synthetic", "num_edges": 24, "num_nodes": 16, "in_size": 5,
        "variant": "modal2_missing",
    }  # fmt: skip
    # A path of the machine that measured is nobody's business.
    assert "data_root" not in both
    with make_console() as console, console.capture() as captured:
        epoch.show(console, rows)
    assert "epoch on amazon (synthetic): 24 edges" in captured.get()


def test_features_of_several_widths_are_refused(small_graph: MultimodalGraph) -> None:
    problem = _epoch.Problem(small_graph, "modal2_missing", torch.zeros(12, dtype=torch.int64))
    with pytest.raises(click.ClickException, match=r"must be equally wide.*got \[.*3, 5"):
        _ = problem.in_size


def test_backends_of_the_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    problem = make_problem(TINY)
    weights = _epoch.initial_weights(problem, TINY)
    monkeypatch.setenv("HGMM_BACKEND", "triton")
    real = _epoch._loss

    def note(output: Any, labels: Tensor) -> Tensor:
        seen.append(os.environ["HGMM_BACKEND"])
        return real(output, labels)

    monkeypatch.setattr(_epoch, "_loss", note)
    for name in ("hgmm", "hgmm-reference", "official-style"):
        _epoch.make_step(name, problem, weights, TINY)().backward()
    assert seen == ["auto", "reference", "triton"]
    assert chosen_backend("hgmm", "cpu") in ("cpu", "reference")
    assert chosen_backend("hgmm-reference", "cuda") == "reference"
    assert chosen_backend("official-style", "cpu") is None


def test_named_but_missing_provider_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = PROVIDERS["official-style"]._replace(module="hgmm_not_there.official")
    monkeypatch.setitem(PROVIDERS, "other", missing)
    result = call("--providers", "official-style,other")
    assert result.exit_code == 2
    assert "provider 'other' needs the module hgmm_not_there.official" in result.output


def test_the_baseline_has_no_gpu() -> None:
    assert str(PROVIDERS["official-style"].missing("cuda")).startswith("does not run on cuda")
    assert PROVIDERS["hgmm"].missing("cuda") is None


def test_unknown_provider_exits_with_2() -> None:
    result = call("--providers", "official")
    assert result.exit_code == 2
    assert "unknown provider 'official'; known: hgmm, hgmm-reference, official-style." in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hidden", "9"), "must be a multiple of --heads 2, got 9"),
        (("--dataset", "amazon"), "amazon brings its own graph and features; leave out --edges, --in-size"),
        (("--edges", "1e4,many"), "for example 1e4,1e5, got '1e4,many'"),
        (("--edges", "3"), "at least 4 edges, one a relation, got '3'"),
        (("--device", "tpu"), "got 'tpu'"),
        (("--json", "no/such/folder/rows.jsonl"), "'no/such/folder' does not exist"),
    ],
)
def test_what_cannot_be_run_exits_with_2(arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_damaged_files_of_a_data_set_are_named(tmp_path: Path) -> None:
    (tmp_path / "amazon").mkdir()
    (tmp_path / "amazon" / "labels.npy").write_bytes(b"nothing")
    result = CliRunner().invoke(main, ["--dataset", "amazon", "--data-root", str(tmp_path)])
    assert result.exit_code == 1
    assert "rdf.npy" in result.output


def test_failing_memory_measurement_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PROVIDERS["official-style"]
    monkeypatch.setitem(PROVIDERS, "only-here", real)
    result = call("--providers", "only-here")
    assert result.exit_code == 1
    assert "measuring the memory of only-here failed with exit status 1" in result.output


def test_a_size_that_would_not_fit_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, list[str]]] = []

    class Measured:
        def __init__(self, name: str) -> None:
            self.row = {"provider": name, "peak_mib": 300.0 * len(name)}

        def flat(self) -> dict[str, Any]:
            return self.row

    def note(names: list[str], config: EpochConfig, rounds: int) -> list[Measured]:
        measured.append((config.edges, names))
        return [Measured(name) for name in names]

    monkeypatch.setattr(epoch, "_measure", note)
    monkeypatch.setattr(epoch, "show", lambda *_: None)
    monkeypatch.setattr(epoch, "free_mib", lambda _: 30_000.0)
    result = call("--edges", "4e3,400", "--providers", "hgmm,official-style")
    assert result.exit_code == 0, result.output
    assert measured == [(400, ["hgmm", "official-style"]), (4000, ["hgmm"])]
    assert "skipped at 4,000 edges: official-style would need about 51 GiB" in " ".join(result.output.split())


def test_every_figure_of_the_table_is_whole_in_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    sizes = make_problem(TINY).sizes(TINY)
    figures = {"median_ms": 98_765.4, "p20_ms": 87_654.3, "p80_ms": 134_567.8, "peak_mib": 23_456.7, "edges_per_s": 1e8}
    place = {"device": "Processor", "threads": 2, "versions": {"torch": "2"}}
    rows = [{**sizes, **figures, **place, "provider": name, "mode": mode} for name in PROVIDERS for mode in MODES]
    epoch.show(make_console(), rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    line = next(line for line in lines if line.startswith("hgmm "))
    assert line.split() == ["hgmm", "forward", "98,765", "87,654", "134,568", "23,457", "100", "1.00", "1.00"]


def test_loss_is_the_mean_of_all_cross_entropies_where_a_node_is_trained() -> None:
    class Out:
        def __init__(self, branch_logits: Tensor | None) -> None:
            self.logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 9.0]])
            self.branch_logits = branch_logits

    labels = torch.tensor([0, 1, -100])
    alone = _epoch._loss(Out(None), labels)
    expected = torch.nn.functional.cross_entropy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), labels[:2])
    assert alone.item() == pytest.approx(expected.item())
    flat = _epoch._loss(Out(torch.zeros(3, 1, 2)), labels)
    assert flat.item() == pytest.approx((alone.item() + torch.log(torch.tensor(2.0)).item()) / 2)
