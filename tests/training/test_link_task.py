from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import MultimodalGraph
from hgmm.kg import RankingEvaluator
from hgmm.losses import ranking_loss, vector_regularizer
from hgmm.models import MMTransE
from hgmm.training import LinkConfig, LinkPredictionTask, TrainConfig, Trainer
from hgmm.training.config import OPTIMIZERS
from hgmm.training.link_task import LinkPlan, make_evaluator, ranking_figures
from tests.training.knowledge import make_knowledge_graph
from tests.training.tiny import make_graph

CPU = torch.device("cpu")
LINK = LinkConfig(num_negs_per_pos=4, batch_size=8, margin=1.0)
TRAIN = TrainConfig(
    epochs=6, learning_rate=0.05, weight_decay=0.0, scheduler="none", monitor="mrr", patience=0, checkpoint_seconds=0
)


def make_model(graph: MultimodalGraph) -> MMTransE:
    torch.manual_seed(0)
    return MMTransE(graph.schema, graph.num_nodes("entity"), dim=8)


def make_plan(graph: MultimodalGraph, link: LinkConfig = LINK) -> LinkPlan:
    return LinkPredictionTask(link).plan(make_model(graph), graph, TRAIN, CPU)


def test_an_epoch_has_every_triple_once_and_another_order_than_the_next() -> None:
    graph = make_knowledge_graph()
    loader = make_plan(graph).train
    assert (len(loader), loader.num_items) == (4, 30)
    epochs = [torch.cat([batch.inputs[0] for batch in loader.batches(epoch)]) for epoch in (1, 2)]
    assert graph.triples is not None
    for epoch in epochs:
        assert sorted(epoch.tolist()) == sorted(graph.triples.train.tolist())
    assert not epochs[0].equal(epochs[1])


def test_a_batch_depends_on_nothing_but_its_number() -> None:
    whole = list(make_plan(make_knowledge_graph()).train.batches(3))
    rest = list(make_plan(make_knowledge_graph()).train.batches(3, start=2))
    assert [b.num_items for b in whole] == [8, 8, 8, 6]
    for one, other in zip(whole[2:], rest, strict=True):
        assert all(x.equal(y) for x, y in zip(one.inputs, other.inputs, strict=True))
    assert not whole[0].negatives.entity.equal(whole[1].negatives.entity)


@pytest.mark.parametrize(("choice", "split"), [("train", "train"), ("all", "known")])
def test_the_filter_keeps_known_triples_out(choice: str, split: str) -> None:
    graph = make_knowledge_graph()
    loader = make_plan(graph, dataclasses.replace(LINK, filter=choice, num_negs_per_pos=16)).train
    drawn = torch.cat([b.negatives.triples(b.inputs[0]).flatten(0, 1) for b in loader.batches(1)])
    known = {tuple(row) for row in getattr(graph.triples, split).tolist()}
    assert known.isdisjoint(map(tuple, drawn.tolist()))


@pytest.mark.parametrize("proposal", ["bernoulli", "uniform"])
@pytest.mark.parametrize("loss", ["margin", "softplus", "sigmoid", "self-adversarial"])
def test_the_loss_is_that_of_the_mean_scores_of_the_four_pairs(loss: str, proposal: str) -> None:
    graph = make_knowledge_graph(holes=True)
    model = make_model(graph)
    model.prepare(graph)
    link = dataclasses.replace(LINK, loss=loss, proposal=proposal, regularizer="n3", regularizer_weight=0.5)
    task = LinkPredictionTask(link)
    batch = next(iter(task.plan(model, graph, TRAIN, CPU).train.batches(1)))
    found, terms = task.training_loss(model, model(*batch.inputs), batch)
    positives = batch.inputs[0]
    negatives = batch.negatives.triples(positives)
    adversarial = loss == "self-adversarial"
    ranking = ranking_loss(
        model.score(positives) / 4,
        torch.stack([model.score(rows) / 4 for rows in negatives.unbind(1)], 1),
        form="sigmoid" if adversarial else loss,
        margin=None if loss == "softplus" else 1.0,
        temperature=1.0 if adversarial else None,
    )
    penalty = vector_regularizer(*model.loss_vectors(positives), power=3)
    torch.testing.assert_close(found, ranking + 0.5 * penalty)
    assert terms == {"ranking": pytest.approx(ranking.item()), "regularizer": pytest.approx(penalty.item())}


def test_it_learns_and_tests_the_best_epoch() -> None:
    graph = make_knowledge_graph()
    model = make_model(graph)
    model.prepare(graph)
    assert graph.triples is not None
    before = ranking_figures(model, make_evaluator(graph.triples), graph.triples.train)
    config = dataclasses.replace(TRAIN, epochs=60, eval_every=10)
    result = Trainer(model, LinkPredictionTask(LINK), config).fit(graph)
    assert result.epochs[-1].loss < result.epochs[0].loss
    assert ranking_figures(model, make_evaluator(graph.triples), graph.triples.train)["mrr"] > before["mrr"] + 0.1
    assert result.test == ranking_figures(model, make_evaluator(graph.triples), graph.triples.test)
    assert [entry.epoch for entry in result.epochs if entry.val] == list(range(10, 61, 10))


def test_figures_are_filtered_by_all_splits() -> None:
    graph = make_knowledge_graph()
    model = make_model(graph)
    model.prepare(graph)
    triples = graph.triples
    assert triples is not None
    model.train()
    found = ranking_figures(model, make_evaluator(graph.triples), triples.val)
    assert model.training
    evaluator = RankingEvaluator(triples.known, num_entities=20, num_relations=2)
    assert found == evaluator.evaluate(model.candidates(), triples.val).metrics()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop_at", [3, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(stop_at: int, optimizer: str, tmp_path: Path) -> None:
    class Stop:
        steps = 0

        def on_fit_start(self, trainer: Any, graph: Any) -> None:
            self.trainer = trainer

        def on_step(self, step: int, num_steps: int) -> None:
            self.steps += 1
            if self.steps == stop_at:
                self.trainer.request_stop()

        def on_epoch_end(self, record: Any) -> None: ...

        def on_fit_end(self, result: Any) -> None: ...

    graph = make_knowledge_graph(holes=True)
    config = dataclasses.replace(TRAIN, optimizer=optimizer, gradient_clip=0.0)
    whole = make_model(graph)
    expected = Trainer(whole, LinkPredictionTask(LINK), config).fit(graph)
    first = Trainer(make_model(graph), LinkPredictionTask(LINK), config, run_dir=tmp_path, callbacks=[Stop()])
    assert first.fit(graph).status == "interrupted"
    model = make_model(graph)
    result = Trainer(model, LinkPredictionTask(LINK), config, run_dir=tmp_path).fit(graph, resume=True)
    assert [(e.loss, e.val) for e in result.epochs] == [(e.loss, e.val) for e in expected.epochs]
    assert all(x.equal(y) for x, y in zip(model.state_dict().values(), whole.state_dict().values(), strict=True))
    assert model.row_gradients == (optimizer == "adamw-rows")


def test_a_graph_needs_training_triples() -> None:
    graph = make_knowledge_graph()
    assert graph.triples is not None
    empty = graph.with_triples(dataclasses.replace(graph.triples, train=graph.triples.train[:0]))
    with pytest.raises(SchemaError, match="'circle' has no training triple"):
        make_plan(empty)
    model = make_model(graph)
    with pytest.raises(SchemaError, match="has no triples; give it a knowledge graph"):
        LinkPredictionTask(LINK).plan(model, make_graph(), TRAIN, CPU)


@pytest.mark.parametrize("name", ["monitor", "patience_monitor"])
def test_a_monitor_must_be_one_of_ranking(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"train.{name}: link prediction gives mrr, .*, got 'accuracy'"):
        LinkPredictionTask(LINK, **{name: "accuracy"})  # type: ignore[arg-type]
