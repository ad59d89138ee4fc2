from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import save_graph
from hgmm.training import LinkConfig, ModelConfig, RunConfig, TrainConfig, load_run, train_run
from hgmm.training.completions import complete, questions_by_name, questions_of
from tests.training.knowledge import ENTITIES, make_knowledge_graph
from tests.training.tiny import make_graph

GRAPH = make_knowledge_graph(holes=True)
assert GRAPH.triples is not None
TRIPLES = GRAPH.triples


class Planted:
    """Scores that depend on the question, without equal ones."""

    def score_tails(self, head: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ENTITIES) * 7 + 3 * head.unsqueeze(1) + relation.unsqueeze(1)
        return (places % ENTITIES).float()

    def score_heads(self, relation: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        return -self.score_tails(tail, relation)


@pytest.mark.parametrize("known", [False, True])
def test_answers_equal_a_loop(known: bool) -> None:
    questions = questions_of(TRIPLES.test)
    found = complete(Planted(), TRIPLES, questions, top=3, source="local", known=known)
    train = {tuple(row) for row in TRIPLES.train.tolist()}
    for (head, relation, tail), answers, scores in zip(questions.tolist(), found.answers, found.scores, strict=True):
        every = []
        for e in range(ENTITIES):
            triple = (e, relation, tail) if head < 0 else (head, relation, e)
            given, sign = (tail, -1) if head < 0 else (head, 1)
            if known or triple not in train:
                every.append((sign * float((e * 7 + 3 * given + relation) % ENTITIES), f"e{e}"))
        best = sorted(every, reverse=True)[:3]
        assert (scores, answers) == ([s for s, _ in best], [name for _, name in best])


def test_each_question_is_asked_once() -> None:
    rows = torch.tensor([[0, 0, 1], [0, 0, 2], [3, 0, 2]])
    assert questions_of(rows).tolist() == [[-1, 0, 1], [-1, 0, 2], [0, 0, -1], [3, 0, -1]]


def test_the_table_puts_answers_into_their_place() -> None:
    questions = questions_by_name([("e4", "next", None), (None, "opposite", "e2")], TRIPLES)
    assert questions.tolist() == [[4, 0, -1], [-1, 1, 2]]
    table = complete(Planted(), TRIPLES, questions, top=2, source="local", known=True).table()
    assert table.columns.tolist() == ["asked", "head", "relation", "tail", "position", "score", "source"]
    assert table["asked"].tolist() == ["tail", "tail", "head", "head"]
    assert set(table["head"][:2]) == {"e4"}
    assert set(table["tail"][2:]) == {"e2"}
    assert table["position"].tolist() == [1, 2, 1, 2]


def test_wrong_questions() -> None:
    with pytest.raises(ConfigError, match="unknown entity 'e44'"):
        questions_by_name([("e44", "next", None)], TRIPLES)
    with pytest.raises(ConfigError, match="unknown relation 'nxt'"):
        questions_by_name([("e4", "nxt", None)], TRIPLES)
    for ends in (("e4", "e5"), (None, None)):
        with pytest.raises(ConfigError, match="give the head or the tail, got"):
            questions_by_name([(ends[0], "next", ends[1])], TRIPLES)
    with pytest.raises(ConfigError, match="top: must be at least 1, got 0"):
        complete(Planted(), TRIPLES, questions_of(TRIPLES.test), top=0, source="local")


def test_a_run_predicts_embeds_and_evaluates_in_a_new_process(tmp_path: Path) -> None:
    config = RunConfig(
        model=ModelConfig("mm-transe", {"dim": 8}),
        train=TrainConfig(epochs=3, monitor="mrr", scheduler="none", patience=0),
        link=LinkConfig(num_negs_per_pos=4, batch_size=8),
    )
    record = train_run(config, run_dir=tmp_path / "run", graph=GRAPH)
    assert (record.task, record.throughput["unit"]) == ("link-prediction", "training triples per second")
    assert (tmp_path / "run" / "predictions.csv").read_text().startswith("asked,head,relation,tail,position,score")
    run = load_run(tmp_path / "run")
    assert run.evaluate(GRAPH) == pytest.approx(record.test)
    assert run.evaluate(GRAPH, split="val") == pytest.approx(record.epochs[record.best_epoch - 1]["val"])
    answers = run.complete(GRAPH, [("e4", "next", None)], top=4)
    assert len(answers.answers[0]) == 4
    ids, vectors = run.embed(GRAPH)
    assert (ids[3], vectors.shape) == ("e3", (ENTITIES, 16))
    assert (vectors[0, 8:] == 0).all()
    assert (abs(vectors[1, 8:]) > 0).any()
    folder = tmp_path / "graph"
    save_graph(GRAPH, folder)
    assert run.evaluate(run.load_graph(str(folder))) == pytest.approx(record.test)


def test_other_entities_are_refused(tmp_path: Path) -> None:
    config = RunConfig(
        model=ModelConfig("mm-transe", {"dim": 4}), train=TrainConfig(epochs=1, monitor="mrr", patience=0)
    )
    train_run(config, run_dir=tmp_path / "run", graph=GRAPH)
    run = load_run(tmp_path / "run")
    with pytest.raises(SchemaError, match="it has no triples"):
        run.predict(make_graph())
    names = tuple(f"f{i}" for i in range(ENTITIES))
    other = make_knowledge_graph()
    renamed = type(other).from_triples(
        dataclasses.replace(TRIPLES, entity_vocab=names), features={"image": other.g.nodes["entity"].data["image"]}
    )
    with pytest.raises(SchemaError, match="other entities or relations than the 20 entities"):
        run.evaluate(renamed)
