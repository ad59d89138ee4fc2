"""What is wrong in the released code of MANS, defect by defect, is right here.

The defects are those of zjukg/MANS at 26b1034 that its use or a reading shows, by number:

1. the share of two-stage training never reaches the trainer
2. learning rate, loss and temperature are ignored, and a switch that is given as False is on
3. several negatives a triple crash or are counted wrongly
4. the "frozen" table of image vectors is trained
5. vectors are pickled modules, which torch no longer loads
6. the script for one data set trains another
7. the switch of the filter is accepted and dropped
8. all negatives of a triple have the same parity
9. the Python loader corrupts the wrong side, and fails on relations without a training triple
10. batches are drawn with replacement; CUDA is required, scikit-learn is imported for nothing
11. evaluation projects all features again for every test triple
12. ties count as won, and sums are kept in float32
13. the filter reads beside its arrays for pairs that training has not seen

Defects that the tests of one part cover alone are in `ELSEWHERE`; the others are tested here.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hgmm import datasets
from hgmm.cli import main
from hgmm.errors import DataError
from hgmm.kg import RankingEvaluator, Ranks
from hgmm.losses import ranking_loss
from hgmm.models import MMKGE, MMTransE
from hgmm.training import LinkConfig, LinkPredictionTask, RunRecord, TrainConfig, Trainer, configure, load_run
from hgmm.training.link_loader import TripleBatch
from hgmm.training.link_task import make_evaluator, ranking_figures
from hgmm.training.session import build_model, load_data, make_task
from tests.training.knowledge import ENTITIES, RELATIONS, make_knowledge_graph

TESTS = Path(__file__).resolve().parents[1]
DEFECTS = range(1, 14)
ELSEWHERE = [
    (1, "sampling/test_modality_aware.py", "test_two_stage_switches_when_the_share_of_the_run_is_done"),
    (1, "training/test_link_strategies.py", "test_stages_and_shares_are_recorded_by_epoch"),
    (3, "sampling/test_modality_aware.py", "test_hybrid_shares_are_exact_for_any_number_of_negatives"),
    (3, "sampling/test_modality_aware.py", "test_adaptive_chooses_as_many_as_pass_or_those_that_pass"),
    (3, "training/test_link_strategies.py", "test_the_loss_of_a_strategy_is_that_of_its_modal_triples"),
    (7, "sampling/test_entities.py", "test_with_a_filter_no_true_triple_is_left_and_without_it_some_are"),
    (
        8,
        "sampling/test_entities.py",
        "test_negatives_of_a_positive_have_both_parities_and_are_independent",
    ),
    (9, "sampling/test_entities.py", "test_bernoulli_corrupts_the_side_that_seldom_makes_a_true_triple"),
    (9, "sampling/test_entities.py", "test_pairs_and_relations_that_training_has_not_seen"),
    (10, "training/test_link_task.py", "test_an_epoch_has_every_triple_once_and_another_order_than_the_next"),
    (11, "models/test_mm_kge.py", "test_each_entity_is_projected_once"),
    (13, "sampling/test_entities.py", "test_pairs_and_relations_that_training_has_not_seen"),
]
# One batch an epoch, so that the first epoch is one step.
OPTIONS = (
    *("--model", "mm-transe", "--epochs", "1", "--set", "model.dim=8", "--set", "link.batch_size=64"),
    *("--set", "link.num_negs_per_pos=4", "--set", "train.eval_every=1", "--set", "train.num_threads=1"),
)


def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("defect", "path", "name"), ELSEWHERE)
def test_what_is_tested_elsewhere_is_there(defect: int, path: str, name: str) -> None:
    assert name in functions_of(TESTS / path), f"defect {defect}"


def test_every_defect_has_a_test() -> None:
    here = {int(found[1]) for name in functions_of(Path(__file__)) if (found := re.match(r"test_defect_(\d+)_", name))}
    assert here | {defect for defect, *_ in ELSEWHERE} == set(DEFECTS)


def write_folder(folder: Path, *, seed: int = 0) -> Path:
    """Write the triples of the tests' knowledge graph by name, and an image vector an entity."""
    triples = make_knowledge_graph().triples
    assert triples is not None
    folder.mkdir()
    for split, rows in triples.splits.items():
        named = [
            [triples.entity_vocab[h], triples.relation_vocab[r], triples.entity_vocab[t]] for h, r, t in rows.tolist()
        ]
        with (folder / f"{split}.tsv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows(named)
    np.save(folder / "image.npy", np.random.default_rng(seed).standard_normal((ENTITIES, 5)).astype(np.float32))
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hgmm.report.plots_installed", lambda: False)
    return write_folder(tmp_path / "circle")


def train(run: str, *options: str, dataset: str = "./circle") -> Path:
    """Train by command; return the run folder."""
    command = ["train", "--dataset", dataset, "--run-dir", run, *OPTIONS, *options]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Path(run)


def start_of(run: Path) -> tuple[MMKGE, LinkPredictionTask, TripleBatch]:
    """Return the model of a run before its first step, its task and its first batch."""
    config = configure(file=run / "config.yaml")
    graph = load_data(config)
    model, task = build_model(config, graph), make_task(config, graph)
    assert isinstance(model, MMKGE)
    assert isinstance(task, LinkPredictionTask)
    model.prepare(graph)
    return model, task, next(iter(task.plan(model, graph, config.train, torch.device("cpu")).train.batches(1)))


@pytest.mark.parametrize("rate", [1e-3, 0.02])
def test_defect_02_the_learning_rate_reaches_the_optimiser(folder: Path, rate: float) -> None:
    run = train("one", "--set", f"train.learning_rate={rate}")
    before, _, _ = start_of(run)
    after = load_run(run).model
    # The first step of Adam changes a number by the learning rate, whatever its gradient.
    for (name, x), y in zip(before.named_parameters(), after.parameters(), strict=True):
        assert float((x - y).detach().abs().max()) == pytest.approx(rate, rel=0.01), name


@pytest.mark.parametrize(
    ("loss", "margin", "temperature"),
    [("margin", 0.5, 1.0), ("margin", 2.0, 1.0), ("softplus", 6.0, 1.0), ("sigmoid", 2.0, 1.0)]
    + [("self-adversarial", 2.0, 0.5), ("self-adversarial", 2.0, 3.0)],
)
def test_defect_02_the_loss_is_the_one_that_was_asked_for(
    folder: Path, loss: str, margin: float, temperature: float
) -> None:
    settings = {"loss": loss, "margin": margin, "adversarial_temperature": temperature}
    run = train("one", *(word for key, value in settings.items() for word in ("--set", f"link.{key}={value}")))
    model, _, batch = start_of(run)
    negatives = batch.negatives.triples(batch.positives)
    weighted = loss == "self-adversarial"
    of_pairs = len(model.pairs)
    expected = ranking_loss(
        model.score(batch.positives) / of_pairs,
        torch.stack([model.score(rows) / of_pairs for rows in negatives.unbind(1)], 1),
        form="sigmoid" if weighted else loss,
        margin=None if loss == "softplus" else margin,
        temperature=temperature if weighted else None,
    )
    assert RunRecord.load(run).epochs[0]["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize(("word", "value"), [("False", False), ("false", False), ("true", True)])
def test_defect_02_a_switch_that_is_given_as_false_is_off(folder: Path, word: str, value: bool) -> None:
    model = load_run(train("one", "--set", f"model.normalize={word}")).model
    assert model.normalize is value


def test_defect_04_image_vectors_are_not_trained() -> None:
    graph = make_knowledge_graph()
    image = graph.features("entity")["image"]
    stored, width, dim = image.clone(), image.shape[1], 8
    model = MMTransE(graph.schema, ENTITIES, dim=dim)
    start = {name: x.detach().clone() for name, x in model.named_parameters()}
    config = TrainConfig(epochs=3, learning_rate=0.05, monitor="mrr", scheduler="none", patience=0)
    Trainer(model, LinkPredictionTask(LinkConfig(num_negs_per_pos=4, batch_size=8)), config).fit(graph)
    # Structure, relations, one Linear: nothing of the size of the table.
    trained = sum(x.numel() for x in model.parameters())
    assert trained == ENTITIES * dim + RELATIONS * dim + (width + 1) * dim
    assert all(not x.equal(start[name]) for name, x in model.named_parameters())
    tables = [x for x in model.buffers() if x.is_floating_point()]
    assert [x.requires_grad for x in tables] == [False]
    assert tables[0].equal(stored)
    assert image.equal(stored)


def test_defect_05_pickled_modules_are_refused_and_the_way_out_works(folder: Path) -> None:
    (folder / "image.npy").unlink()
    module, path = torch.nn.Embedding(ENTITIES, 5), folder / "circle-visual.pth"
    torch.save(module, path)
    with pytest.raises(DataError, match=r"circle-visual\.pth: .*torch\.save\(module\.weight\.detach\(\), path\)"):
        datasets.load(folder)
    torch.save(module.weight.detach(), path)
    assert torch.load(path, weights_only=True).equal(module.weight)
    assert datasets.load(folder).features("entity")["image"].equal(module.weight)


def test_defect_05_a_run_holds_no_pickle(folder: Path) -> None:
    run = train("one")
    kinds = {path.suffix for path in run.rglob("*") if path.is_file()}
    assert kinds <= {".csv", ".json", ".safetensors", ".yaml"}


def test_defect_06_the_record_names_the_data_that_was_trained_on(folder: Path) -> None:
    other = write_folder(folder.with_name("other"), seed=1)
    for dataset in (folder, other):
        record = RunRecord.load(train(f"run-{dataset.name}", dataset=f"./{dataset.name}"))
        assert record.dataset == dataset.name
        assert record.data["sha256"] == {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dataset.iterdir()
        }


def test_defect_10_neither_cuda_nor_scikit_learn_is_needed(folder: Path) -> None:
    arguments = ["train", "--dataset", "./circle", "--run-dir", "one", *OPTIONS]
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import hgmm, hgmm.models, hgmm.sampling, hgmm.training\n"
        f"from hgmm.cli import main; main({arguments!r})"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert RunRecord.load("one").status == "done"


@pytest.mark.parametrize("max_scores", [1 << 22, ENTITIES])
def test_defect_11_each_entity_is_projected_once_an_evaluation(max_scores: int) -> None:
    graph = make_knowledge_graph()
    width, dim = graph.features("entity")["image"].shape[1], 8
    model = MMTransE(graph.schema, ENTITIES, dim=dim)
    model.prepare(graph)
    triples = graph.triples
    assert triples is not None
    sizes = {"num_entities": ENTITIES, "num_relations": RELATIONS}
    # All questions together, and each in a block of its own.
    evaluator = RankingEvaluator(triples.known, **sizes, max_scores=max_scores)
    for rows in (triples.test, triples.known):
        # TransE has no other matrix product than that of features and weights.
        with FlopCounterMode(display=False) as counted:
            ranking_figures(model, evaluator, rows)
        assert counted.get_total_flops() == 2 * ENTITIES * width * dim


class Undecided:
    """Gives every entity the same score."""

    def score_heads(self, relation: Tensor, tail: Tensor) -> Tensor:
        return torch.zeros(len(tail), ENTITIES)

    def score_tails(self, head: Tensor, relation: Tensor) -> Tensor:
        return torch.zeros(len(head), ENTITIES)


def test_defect_12_a_model_that_cannot_decide_does_not_win() -> None:
    triples = make_knowledge_graph().triples
    assert triples is not None
    result = make_evaluator(triples).evaluate(Undecided(), triples.test)
    # Every other entity makes a false triple here, so the right one stands in the middle of all.
    assert result.metrics()["mean_rank"] == (1 + ENTITIES) / 2
    assert result.metrics()["hits_at_1"] == 0
    assert result.metrics() == result.metrics("realistic")
    assert result.metrics("openke")["mrr"] == 1


def test_defect_12_sums_are_exact_beyond_float32() -> None:
    # float32 does not hold 2^24 + 1.
    ahead = torch.tensor([[2**24, 2**24], [2**24, 2**24 + 2]])
    ranks = Ranks(ahead, torch.zeros_like(ahead), torch.full_like(ahead, 2**25))
    assert ranks.metrics()["mean_rank"] == 2**24 + 1.5
    assert ranks.rank().dtype == torch.float64
