"""Which negatives a configuration asks for, and the loss over all entities, through the task and whole runs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm import datasets
from hgmm.errors import ConfigError
from hgmm.kg import TripleSet
from hgmm.losses import ranking_loss
from hgmm.models import MMKGE, MMComplEx, MMDistMult, MMTransE
from hgmm.sampling import NegativeBatch
from hgmm.training import Callback, FitResult, LinkConfig, LinkPredictionTask, TrainConfig, Trainer
from hgmm.training.link_config import SAMPLERS
from hgmm.training.link_loader import TripleBatch
from tests.training.knowledge import make_knowledge_graph

CPU = torch.device("cpu")
LINK = LinkConfig(num_negs_per_pos=4, batch_size=8, loss="margin", margin=1.0)
TRAIN = TrainConfig(
    epochs=6, learning_rate=0.05, weight_decay=0.0, scheduler="none", monitor="mrr", patience=0, checkpoint_seconds=0
)
MODAL = [name for name in SAMPLERS if name != "normal"]


def make_model(*, holes: bool = False, cls: type[MMKGE] = MMTransE, **options: Any) -> tuple[MMKGE, Any]:
    graph = make_knowledge_graph(holes=holes)
    torch.manual_seed(0)
    model = cls(graph.schema, graph.num_nodes("entity"), dim=8, **options)
    model.prepare(graph)
    return model, graph


@torch.no_grad()
def modal_scores(model: MMKGE, positives: Tensor, negatives: NegativeBatch, *, changed: bool) -> Tensor:
    """Score each negative from vectors that are put together modality by modality, or by its changed pairs."""
    vectors, r = model.project(), model.relation_vectors(positives[:, 1])
    out = torch.zeros(negatives.entity.shape)
    for b, (head, _, tail) in enumerate(positives.tolist()):
        for k, entity in enumerate(negatives.entity[b].tolist()):
            taken, side = negatives.modality[b, k].tolist(), int(negatives.side[b, k])
            ids = [[head] * len(taken), [tail] * len(taken)]
            ids[side] = [entity if take else ids[side][m] for m, take in enumerate(taken)]
            found = [
                float(model.interaction.score(vectors[ids[0][a], a], r[b], vectors[ids[1][t], t]))
                for a, t in model.pairs.pairs
                if model.present[ids[0][a], a] and model.present[ids[1][t], t]
                if not changed or taken[(a, t)[side]]
            ]
            out[b, k] = sum(found) / len(found)
    return out


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("which", ["changed", "all"])
@pytest.mark.parametrize("sampler", MODAL)
def test_the_loss_of_a_strategy_is_that_of_its_modal_triples(
    sampler: str, which: str, holes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph = make_model(holes=holes)
    task = LinkPredictionTask(dataclasses.replace(LINK, sampler=sampler, modal_pairs=which))
    batch: TripleBatch = next(iter(task.plan(model, graph, TRAIN, CPU).train.batches(1)))
    negatives, chosen = batch.negatives, []
    assert task._sampler is not None
    choose = task._sampler.choose
    monkeypatch.setattr(task._sampler, "choose", lambda *given: chosen.append(choose(*given)) or chosen[0])
    found, _ = task.training_loss(model, model(*batch.inputs), batch)
    assert len(chosen) == (sampler == "mans-a")
    negatives = chosen[0] if chosen else negatives
    expected = ranking_loss(
        model.score(batch.positives) / len(model.pairs),
        modal_scores(model, batch.positives, negatives, changed=which == "changed"),
        form="margin",
        margin=1.0,
    )
    torch.testing.assert_close(found, expected)
    if sampler != "mans-a":
        assert not negatives.modality.all()


@pytest.mark.parametrize("loss", ["margin", "softplus", "sigmoid", "self-adversarial"])
def test_negatives_that_change_no_pair_do_not_count(loss: str) -> None:
    # Entities without an image at the other end leave the pair of images out, and no other pair has one.
    model, graph = make_model(holes=True, pairs=[("structure", "structure"), ("image", "image")])
    task = LinkPredictionTask(dataclasses.replace(LINK, sampler="mans-v", loss=loss))
    batch = next(iter(task.plan(model, graph, TRAIN, CPU).train.batches(1)))
    output = model(*batch.inputs)
    _, _, differs = model.pairs.changed(output, batch.negatives.side, batch.negatives.modality)
    assert 0 < int((~differs).sum()) < differs.numel()
    dirty = output.negative.masked_fill(~differs.unsqueeze(2), torch.nan)
    found, _ = task.training_loss(model, output, batch)
    assert task.training_loss(model, output._replace(negative=dirty), batch)[0].equal(found)
    found.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("sampler", MODAL)
def test_no_strategy_runs_the_model_again(sampler: str) -> None:
    model, graph = make_model()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    result = fit(model, graph, dataclasses.replace(LINK, sampler=sampler), epochs=2)
    assert len(calls) == 2 * 4
    assert math.isfinite(result.epochs[-1].loss)


def fit(model: MMKGE, graph: Any, link: LinkConfig, *, epochs: int, **options: Any) -> FitResult:
    return Trainer(model, LinkPredictionTask(link), dataclasses.replace(TRAIN, epochs=epochs), **options).fit(graph)


def test_stages_and_shares_are_recorded_by_epoch() -> None:
    shares = {}
    for sampler, share in (("mans-v", 0.3), ("mans-t", 0.4), ("mans-h", 0.25), ("mans-a", 0.3)):
        model, graph = make_model()
        link = dataclasses.replace(LINK, sampler=sampler, modal_share=share)
        shares[sampler] = [e.figures["negatives"] for e in fit(model, graph, link, epochs=5).epochs]
    assert [entry["modal"] for entry in shares["mans-v"]] == [1.0] * 5
    assert [entry["modal"] for entry in shares["mans-t"]] == [1.0, 1.0, 0.0, 0.0, 0.0]
    # 30 triples in batches of 8 with 4 negatives each: every batch is exact.
    assert [entry["modal"] for entry in shares["mans-h"]] == [0.25] * 5
    assert all(0 < entry["modal"] < 1 for entry in shares["mans-a"])
    for entries in shares.values():
        assert all(entry["image"] == pytest.approx(entry["modal"] * entry["eligible"]) for entry in entries)
    model, graph = make_model()
    assert fit(model, graph, LINK, epochs=1).epochs[0].figures == {}


def test_who_lacks_the_modality_is_corrupted_as_a_whole() -> None:
    model, graph = make_model(holes=True)
    result = fit(model, graph, dataclasses.replace(LINK, sampler="mans-v"), epochs=2)
    for epoch in result.epochs:
        assert epoch.figures["negatives"]["modal"] == 1.0
        assert 0.5 < epoch.figures["negatives"]["eligible"] < 1.0


class _StopAt(Callback):
    def __init__(self, epoch: int, step: int) -> None:
        self.epoch, self.step = epoch, step
        self.trainer: Trainer | None = None

    def on_fit_start(self, trainer: Trainer, graph: Any) -> None:
        self.trainer = trainer

    def on_step(self, step: int, num_steps: int) -> None:
        assert self.trainer is not None
        if (len(self.trainer.history) + 1, step) == (self.epoch, self.step):
            self.trainer.request_stop()


@pytest.mark.parametrize("sampler", ["mans-t", "mans-a"])
def test_a_run_that_is_stopped_inside_an_epoch_goes_on_as_if_it_had_not_been(sampler: str, tmp_path: Path) -> None:
    link = dataclasses.replace(LINK, sampler=sampler, modal_share=0.5)
    model, graph = make_model(holes=True)
    whole = fit(model, graph, link, epochs=4)
    stopped, graph = make_model(holes=True)
    first = fit(stopped, graph, link, epochs=4, run_dir=tmp_path, callbacks=[_StopAt(2, 3)])
    assert first.status == "interrupted"
    resumed, graph = make_model(holes=True)
    config = dataclasses.replace(TRAIN, epochs=4)
    result = Trainer(resumed, LinkPredictionTask(link), config, run_dir=tmp_path).fit(graph, resume=True)
    assert [(e.loss, e.figures, e.val) for e in result.epochs] == [(e.loss, e.figures, e.val) for e in whole.epochs]
    assert all(x.equal(y) for x, y in zip(model.parameters(), resumed.parameters(), strict=True))


def test_no_negative_of_emoji_equals_its_positive_in_every_modality_that_is_there() -> None:
    graph = datasets.load("emoji-kg")
    model = MMTransE(graph.schema, graph.num_nodes("entity"), dim=8)
    model.prepare(graph)
    assert not bool(model.present.all())
    for sampler in MODAL:
        link = LinkConfig(num_negs_per_pos=4, batch_size=1024, sampler=sampler)
        task = LinkPredictionTask(link)
        batch = next(iter(task.plan(model, graph, TRAIN, CPU).train.batches(1)))
        negatives = batch.negatives
        if negatives.eligible is not None:
            assert task._sampler is not None
            scores = torch.rand(2, *negatives.entity.shape)
            negatives = task._sampler.choose(negatives, *scores)
        end = torch.where(negatives.side.bool(), batch.positives[:, 2:], batch.positives[:, :1])
        differs = negatives.modality & (negatives.entity != end).unsqueeze(2)
        counts = differs & (model.present[end] | model.present[negatives.entity])
        assert bool(counts.any(2).all()), sampler


@pytest.mark.parametrize("choice", ["none", "train", "all"])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("cls", [MMTransE, MMComplEx])
def test_one_vs_all_is_the_cross_entropy_of_both_ends(cls: type[MMKGE], holes: bool, choice: str) -> None:
    model, graph = make_model(holes=holes, cls=cls)
    task = LinkPredictionTask(LinkConfig(loss="one-vs-all", filter=choice, batch_size=8))
    batch = next(iter(task.plan(model, graph, TRAIN, CPU).train.batches(1)))
    assert batch.negatives.entity.shape == (8, 0)
    found, _ = task.training_loss(model, model(*batch.inputs), batch)
    triples: TripleSet = graph.triples
    splits = {"none": [], "train": triples.train.tolist(), "all": triples.known.tolist()}[choice]
    known = {tuple(row) for row in splits}
    terms = []
    for row in batch.positives.tolist():
        for place in (0, 2):
            rivals = [[*row[:place], e, *row[place + 1 :]] for e in range(20)]
            kept = [rival for rival in rivals if rival == row or tuple(rival) not in known]
            scores = model.score(torch.tensor(kept)).double() / len(model.pairs)
            terms.append(scores.logsumexp(0) - scores[kept.index(row)])
    torch.testing.assert_close(found.double(), torch.stack(terms).mean(), rtol=1e-5, atol=1e-5)
    found.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.ne(0).any()), name


def test_one_vs_all_learns() -> None:
    model, graph = make_model(cls=MMComplEx)
    link = LinkConfig(loss="one-vs-all", batch_size=8, regularizer="n3", regularizer_weight=0.01)
    result = fit(model, graph, link, epochs=20)
    assert result.epochs[-1].loss < 0.5 * result.epochs[0].loss


def test_n3_of_complex_vectors_takes_moduli() -> None:
    model, graph = make_model(cls=MMComplEx)
    task = LinkPredictionTask(dataclasses.replace(LINK, regularizer="n3", regularizer_weight=1.0))
    batch = next(iter(task.plan(model, graph, TRAIN, CPU).train.batches(1)))
    _, terms = task.training_loss(model, model(*batch.inputs), batch)
    expected = 0.0
    for x in model.loss_vectors(batch.positives):
        for row in x.tolist():
            half = len(row) // 2
            expected += sum(abs(complex(row[d], row[half + d])) ** 3 for d in range(half)) / len(x)
    assert terms["regularizer"] == pytest.approx(expected, rel=1e-5)


def test_type_constraints_propose_what_stands_at_that_end_in_training() -> None:
    model, graph = make_model()
    link = dataclasses.replace(LINK, type_constrained=True, num_negs_per_pos=16, filter="none")
    loader = LinkPredictionTask(link).plan(model, graph, TRAIN, CPU).train
    train = graph.triples.train
    ends = {(r, side): set(train[train[:, 1] == r][:, 2 * side].tolist()) for r in range(2) for side in range(2)}
    everyone = set(range(20))
    assert any(ends[key] < everyone for key in ends)
    for batch in loader.batches(1):
        for (_, r, _), entities, sides in zip(batch.positives.tolist(), *batch.negatives[:2], strict=True):
            for entity, side in zip(entities.tolist(), sides.tolist(), strict=True):
                assert entity in ends[r, side]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_triples_may_share_their_candidates(sampler: str) -> None:
    link = dataclasses.replace(LINK, sampler=sampler, chunk_size=4, num_negs_per_pos=16)
    losses = []
    for cls in (MMDistMult, MMTransE):
        model, graph = make_model(holes=True, cls=cls)
        task = LinkPredictionTask(link)
        batch = next(iter(task.plan(model, graph, TRAIN, CPU).train.batches(1)))
        shared = batch.negatives.shared
        assert shared is not None
        assert shared.shape == (2, 16)
        assert float((batch.negatives.entity == shared.repeat_interleave(4, 0)).double().mean()) > 0.1
        chunked = task.training_loss(model, model(*batch.inputs), batch)[0]
        plain = task.training_loss(model, model(*batch.inputs[:3]), batch)[0]
        assert float(chunked.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
        losses.append(fit(model, graph, link, epochs=20).epochs)
    for epochs in losses:
        assert epochs[-1].loss < epochs[0].loss


def test_candidates_that_fit_a_relation_are_not_shared() -> None:
    with pytest.raises(
        ConfigError, match=r"link.chunk_size: entities that fit a relation cannot .* got 4 with type_con"
    ):
        dataclasses.replace(LINK, type_constrained=True, chunk_size=4)


def test_named_modalities_alone_are_corrupted() -> None:
    model, graph = make_model()
    link = dataclasses.replace(LINK, sampler="mans-v", corrupted_modalities=("image",))
    assert fit(model, graph, link, epochs=1).epochs[0].figures["negatives"]["image"] == 1.0


@pytest.mark.parametrize(
    ("options", "link", "message"),
    [
        (
            {},
            {"corrupted_modalities": ("sound",)},
            r"link.corrupted_modalities: unknown modality 'sound'; known: image",
        ),
        (
            {"pairs": [("structure", "structure")]},
            {},
            r"link.sampler: 'mans-h' corrupts modalities beside the structure, and the model has none; choose data",
        ),
        (
            {"pairs": [("structure", "structure"), ("structure", "image")]},
            {},
            r"link.corrupted_modalities: a corrupted image has to change the score at either end, got pairs without",
        ),
    ],
)
def test_what_cannot_be_corrupted_is_refused(options: Any, link: Any, message: str) -> None:
    model, graph = make_model(**options)
    task = LinkPredictionTask(dataclasses.replace(LINK, sampler="mans-h", **link))
    with pytest.raises(ConfigError, match=message):
        task.plan(model, graph, TRAIN, CPU)
