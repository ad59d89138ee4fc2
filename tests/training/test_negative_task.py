from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, DataError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.losses import negative_learning_loss
from hgmm.models import HGNNIMA, GraphMNL
from hgmm.training import (
    FitResult,
    NegativeConfig,
    NegativeLearningTask,
    NodeClassificationTask,
    TrainConfig,
    Trainer,
)
from hgmm.training.hooks import nodes_to_validate
from hgmm.training.loaders import Batch, make_loader
from hgmm.training.trainer import seed_everything
from hgmm.typing import NodeOutput
from tests.oracles_negative_learning import decide, negative_loss, neighbor_average
from tests.tolerances import close
from tests.training.test_trainer import StopAt, equal_weights, without_times

CPU = torch.device("cpu")
ON = NegativeConfig(weight=0.7, warmup_epochs=1, ramp_epochs=2, temperature=2.0)
TRAIN = TrainConfig(epochs=5, learning_rate=0.02, device="cpu", checkpoint_seconds=0.0)
SAMPLED = dataclasses.replace(TRAIN, epochs=3, batch_size=8, fanouts=(-1, -1))
LIKE = ("item", "like", "item")


def make_items(*, classes: int = 3, direct: bool = True, items: int = 60) -> MultimodalGraph:
    """Items with text and, for a part, image; edges between them, or from them to shops and back; some have none."""
    generator = torch.Generator().manual_seed(1)
    label = torch.arange(items) % classes
    ends = torch.randint(items - 4, (2, 3 * items), generator=generator)
    shops = ends[1] % 7
    relations = (
        {LIKE: (ends[0], ends[1])}
        if direct
        else {("item", "at", "shop"): (ends[0], shops), ("shop", "sells", "item"): (shops, ends[0])}
    )
    ntypes = ("item",) if direct else ("item", "shop")
    g = dgl.heterograph(relations, num_nodes_dict={"item": items, "shop": 7} if not direct else {"item": items})
    data = g.nodes["item"].data
    hint = nn.functional.one_hot(label, 4).float()
    data["text"] = torch.randn(items, 4, generator=generator) + hint
    data["image"] = torch.randn(items, 4, generator=generator) + 2 * hint
    data["image_present"] = torch.arange(items) % 3 > 0
    data["image"][~data["image_present"]] = 0
    data["label"] = label
    order = torch.randperm(items, generator=generator)
    for name, rows in zip(("train", "val", "test"), order.chunk(3), strict=True):
        data[f"{name}_mask"] = torch.zeros(items, dtype=torch.bool).index_fill(0, rows, True)
    modalities = {"item": {name: ModalitySpec(name, 4) for name in ("text", "image")}}
    names = tuple(f"class {n}" for n in range(classes))
    return MultimodalGraph(g, GraphSchema(ntypes, tuple(relations), modalities, target="item", classes=names))


def mnl(graph: MultimodalGraph, **options: Any) -> GraphMNL:
    seed_everything(0)
    return GraphMNL(graph.schema, hidden_size=8, **options)


def fit(
    graph: MultimodalGraph, model: nn.Module, config: NegativeConfig, train: TrainConfig = TRAIN, **options: Any
) -> tuple[NegativeLearningTask, FitResult]:
    resume = options.pop("resume", False)
    task = NegativeLearningTask(config, NodeClassificationTask(branch_weight=1.0))
    return task, Trainer(model, task, train, **options).fit(graph, resume=resume)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "two-step"])
@pytest.mark.parametrize("train", [TRAIN, SAMPLED], ids=["full", "sampled"])
def test_a_weight_of_zero_is_cross_entropy_alone_bit_for_bit(train: TrainConfig, direct: bool) -> None:
    graph = make_items(direct=direct)
    ours, theirs = mnl(graph), mnl(graph)
    _, result = fit(graph, ours, NegativeConfig(), train)
    plain = Trainer(theirs, NodeClassificationTask(branch_weight=1.0), train).fit(graph)
    found, expected = without_times(result), without_times(plain)
    for epoch in found["epochs"]:
        assert list(epoch.pop("figures")) == ["branch_accuracy"]
    for epoch in expected["epochs"]:
        assert epoch.pop("figures") == {}
    assert found == expected
    assert equal_weights(ours, theirs)


def test_a_positive_weight_changes_the_training() -> None:
    graph = make_items()
    ours, theirs = mnl(graph), mnl(graph)
    _, result = fit(graph, ours, ON)
    fit(graph, theirs, NegativeConfig())
    assert not equal_weights(ours, theirs)
    assert [entry.terms["negative_learning"] > 0 for entry in result.epochs] == [False, False, True, True, True]


def outputs(model: nn.Module, graph: MultimodalGraph, nodes: Tensor, config: TrainConfig) -> list[tuple[Batch, Any]]:
    loader = make_loader(graph, nodes, config, device=CPU, training=False)
    with torch.no_grad():
        return [(batch, model(*batch.inputs)) for batch in loader.batches(0)]


def started(
    model: nn.Module, graph: MultimodalGraph, config: NegativeConfig, train: TrainConfig
) -> NegativeLearningTask:
    """Return a task in its fourth epoch, which has seen a validation."""
    task = NegativeLearningTask(config)
    task.on_fit_start(graph, CPU)
    for batch, output in outputs(model, graph, nodes_to_validate(task, graph), train):
        task.on_validation(output, batch.nodes)
    task.on_epoch_end(3)
    task.on_epoch_start(4)
    return task


@pytest.mark.parametrize("size", [1, 7, 8])
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "two-step"])
def test_batches_with_all_neighbours_decide_what_the_full_graph_decides(direct: bool, size: int) -> None:
    graph = make_items(direct=direct)
    model = mnl(graph).eval()
    graph = model.prepare(graph)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(size))
    by_node: list[dict[str, Tensor]] = []
    for train, nodes in (
        (TRAIN, graph.train_idx),
        (dataclasses.replace(SAMPLED, batch_size=size), graph.train_idx[order]),
    ):
        task = started(model, graph, ON, train)
        rows = {name: torch.zeros(60, 5) for name in ("pairs", "weight", "loss", "reliability")}
        for batch, output in outputs(model, graph, nodes, train):
            decision, weight = task.decide(output, batch.target, batch.nodes)
            dominant = decision.of_dominant(output.branch_logits)
            loss = negative_learning_loss(
                output.branch_logits, dominant, batch.target, pairs=decision.pairs, weight=weight, reduction="none"
            )
            for name, x in zip(rows, (decision.pairs.float(), weight, loss, decision.reliability), strict=True):
                rows[name][batch.nodes] = x
        by_node.append(rows)
    for name, whole in by_node[0].items():
        torch.testing.assert_close(by_node[1][name], whole, rtol=0, atol=1e-6)
    assert 0 < by_node[0]["weight"].count_nonzero() < 20 * 5
    assert float(by_node[0]["loss"].sum()) == pytest.approx(float(by_node[1]["loss"].sum()), rel=1e-6)


@pytest.mark.parametrize("gate", ["soft", "off"])
def test_the_loss_equals_its_definition_in_loops(gate: str) -> None:
    graph = make_items()
    model = mnl(graph).eval().double()
    graph.g.nodes["item"].data.update({k: graph.g.nodes["item"].data[k].double() for k in ("text", "image")})
    graph = model.prepare(graph)
    for name in ("_structure_64", "_out_degrees"):
        graph.g.nodes["item"].data[name] = graph.g.nodes["item"].data[name].double()
    task = started(model, graph, dataclasses.replace(ON, gate=gate), TRAIN)
    ((batch, output),) = outputs(model, graph, graph.train_idx, TRAIN)
    ((_, everything),) = outputs(model, graph, torch.arange(60), TRAIN)
    loss, terms = task.training_loss(model, output, batch)
    # The table of posteriors is in single precision.
    posteriors = everything.logits.softmax(1).float().double()
    known = graph.g.nodes["item"].data["train_mask"].tolist()
    edges = list(zip(*(x.tolist() for x in graph.g.edges(order="eid", etype=LIKE)), strict=True))
    expected, has = neighbor_average(edges, 60, posteriors, graph.labels.tolist(), known)
    dominant, pairs, weights = [], [], []
    for row, node in enumerate(batch.nodes.tolist()):
        reference = expected[node].tolist() if has[node] else None
        target = int(batch.target[row])
        available = output.available[row].tolist()
        chosen, inferior, reliability, margin, _ = decide(
            output.branch_logits[row], output.logits[row], target, available, reference
        )
        dominant.append(output.branch_logits[row, chosen])
        pairs.append(inferior)
        lead = torch.tensor([reliability[chosen] - r for r in reliability], dtype=torch.float64)
        # Nothing was seen before, so that the stability is 1; the fourth epoch is the end of the ramp.
        soft = torch.sigmoid(lead / 0.1) * float(margin[chosen] > 0)
        weights.append(soft if gate == "soft" else torch.ones(5))
    spared = [{int(t)} for t in batch.target]
    negative = negative_loss(
        output.branch_logits,
        torch.stack(dominant),
        spared,
        variant="nckd",
        pairs=torch.tensor(pairs),
        weight=torch.stack(weights),
        temperature=2.0,
    )
    assert torch.tensor(pairs).any()
    assert terms["negative_learning"] == pytest.approx(float(negative), rel=1e-5)
    supervised, _ = NodeClassificationTask().loss(output, batch.target)
    close(loss, supervised + 0.7 * negative, torch.float32)


@pytest.mark.parametrize(
    "config",
    [ON, dataclasses.replace(ON, gate="hard", heterophily=True), dataclasses.replace(ON, stability="entropy")],
    ids=["soft", "hard", "entropy"],
)
@pytest.mark.parametrize(("train", "steps"), [(TRAIN, 3), (SAMPLED, 4), (SAMPLED, 6)], ids=["full", "mid", "epoch"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, config: NegativeConfig, train: TrainConfig, steps: int
) -> None:
    graph = make_items(direct=steps != 4)
    whole = mnl(graph)
    task, expected = fit(graph, whole, config, train)
    _, stopped = fit(graph, mnl(graph), config, train, run_dir=tmp_path, callbacks=[StopAt(steps)])
    assert stopped.status == "interrupted"
    again = mnl(graph)
    seed_everything(99)
    resumed, result = fit(graph, again, config, train, run_dir=tmp_path, resume=True)
    assert without_times(result) == without_times(expected)
    assert equal_weights(again, whole)
    there = resumed.state_dict()
    assert all(x.equal(there[name]) for name, x in task.state_dict().items())
    assert {"gate.memory.last_epoch", "posteriors", "transfers"} <= set(there)


@pytest.mark.parametrize(
    ("wrote", "reads", "match"),
    [
        (None, ON, r"checkpoint: NegativeLearningTask needs its state, got none; resume with the task"),
        (ON, None, r"checkpoint: NodeClassificationTask has no state, got that of another task; resume with the task"),
        (ON, dataclasses.replace(ON, gate="hard"), r"does not fit NegativeLearningTask \(Missing key.*memory.history"),
        (dataclasses.replace(ON, graph_weight=0.0), ON, r"does not fit NegativeLearningTask \('posteriors'\); resume"),
    ],
    ids=["none", "another", "hard", "graph"],
)
def test_a_checkpoint_of_another_task_is_refused(
    tmp_path: Path, wrote: NegativeConfig | None, reads: NegativeConfig | None, match: str
) -> None:
    graph = make_items()
    first, second = (
        NodeClassificationTask() if config is None else NegativeLearningTask(config) for config in (wrote, reads)
    )
    Trainer(mnl(graph), first, TRAIN, run_dir=tmp_path, callbacks=[StopAt(2)]).fit(graph)
    with pytest.raises(DataError, match=match):
        Trainer(mnl(graph), second, TRAIN, run_dir=tmp_path).fit(graph, resume=True)


@pytest.mark.parametrize("train", [TRAIN, SAMPLED], ids=["full", "sampled"])
def test_figures_of_an_epoch(train: TrainConfig) -> None:
    graph = make_items()
    _, result = fit(graph, mnl(graph), ON, train)
    figures = [record.figures for record in result.epochs]
    shares = [entry["transfer"] for entry in figures]
    assert all(set(s) == {"inferior", "gate", "agreement", "dominant_accuracy", "harmful"} for s in shares)
    assert all(0 <= value <= 1 for s in shares for value in s.values())
    assert [s["gate"] > 0 for s in shares[:3]] == [False, False, True]
    names = ["raw:text", "raw:image", "structure", "propagated:text", "propagated:image"]
    assert all(list(entry["branch_accuracy"]) == names for entry in figures)


def test_branch_accuracy_counts_the_validation_nodes_that_have_the_branch() -> None:
    graph = make_items()
    task = NegativeLearningTask(ON)
    task.on_fit_start(graph, CPU)
    right = nn.functional.one_hot(graph.labels, 3).float()
    wrong = nn.functional.one_hot((graph.labels + 1) % 3, 3).float()
    branches = torch.stack([right, wrong, right], 1)
    nodes = torch.arange(60)
    available = torch.stack([nodes >= 0, nodes >= 0, nodes < 0], 1)
    # The first validation node's own branch is wrong; others than validation nodes do not count.
    branches[graph.val_idx[0], 0] = wrong[graph.val_idx[0]]
    branches[graph.train_idx, 0] = wrong[graph.train_idx]
    for rows in nodes.split(25):
        output = NodeOutput(right[rows], branches[rows], ("a", "b", "nobody"), available[rows])
        task.on_validation(output, rows)
    assert task.figures()["branch_accuracy"] == {"a": pytest.approx(19 / 20), "b": 0.0}
    task.on_epoch_end(1)
    assert "branch_accuracy" not in task.figures()


def test_watched_are_the_neighbours_of_training_nodes_that_are_not_for_training() -> None:
    graph = make_items()
    task = NegativeLearningTask(ON)
    task.on_fit_start(graph, CPU)
    train = set(graph.train_idx.tolist())
    src, dst = (x.tolist() for x in graph.g.edges(etype=LIKE))
    assert set(task.watched_nodes.tolist()) == {j for j, i in zip(src, dst, strict=True) if i in train} - train
    visited = nodes_to_validate(task, graph).tolist()
    assert visited[:20] == graph.val_idx.tolist()
    assert sorted(visited[20:]) == sorted(set(task.watched_nodes.tolist()) - set(graph.val_idx.tolist()))
    off = NegativeLearningTask(dataclasses.replace(ON, graph_weight=0))
    off.on_fit_start(graph, CPU)
    assert nodes_to_validate(off, graph).equal(graph.val_idx)


def test_without_validation_nodes_posteriors_are_kept_up_to_date() -> None:
    graph = make_items()
    graph.g.nodes["item"].data["val_mask"] = torch.zeros(60, dtype=torch.bool)
    task, result = fit(graph, mnl(graph), ON)
    assert (result.status, result.best_epoch, result.epochs[-1].val) == ("done", 5, {})
    posteriors = task.state_dict()["posteriors"][task.watched_nodes]
    assert (posteriors - 1 / 3).abs().amax(1).min() > 0


def test_posteriors_follow_validation() -> None:
    graph = make_items()
    seen: list[Tensor] = []

    class Look(NegativeLearningTask):
        def on_epoch_start(self, epoch: int) -> None:
            super().on_epoch_start(epoch)
            seen.append(self.state_dict()["posteriors"].clone())

    Trainer(mnl(graph), Look(ON), dataclasses.replace(TRAIN, eval_every=2)).fit(graph)
    assert (seen[0] == 1 / 3).all()
    assert seen[1].equal(seen[0])
    assert seen[3].equal(seen[2])
    assert not seen[2].equal(seen[1])
    assert not seen[4].equal(seen[2])


class Own(nn.Module):
    """A user's model: two linear branches on the text, or none at all."""

    def __init__(self, *, branches: bool = True, classes: int = 3) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, classes) for _ in range(2))
        self.branches = branches

    def forward(self, graph: Any, nodes: Tensor) -> NodeOutput:
        text = graph.nodes["item"].data["text"][nodes]
        both = torch.stack([head(text) for head in self.heads], 1)
        return NodeOutput(both.mean(1), both, ("a", "b")) if self.branches else NodeOutput(both.mean(1))


def hgnn_ima(graph: MultimodalGraph) -> nn.Module:
    return HGNNIMA(graph.schema, hidden_size=8, num_heads=2)


@pytest.mark.parametrize("make", [hgnn_ima, lambda graph: Own()], ids=["hgnn-ima", "own"])
@pytest.mark.parametrize("variant", ["nckd", "mnl", "nl", "kl"])
def test_it_works_on_any_model_with_branches(make: Any, variant: str) -> None:
    graph = make_items()
    seed_everything(0)
    config = NegativeConfig(weight=0.5, variant=variant, warmup_epochs=0, ramp_epochs=0, temperature=2.0)
    _, result = fit(graph, make(graph), config, dataclasses.replace(TRAIN, epochs=2))
    assert result.epochs[-1].terms["negative_learning"] > 0
    assert result.epochs[-1].figures["transfer"]["inferior"] > 0


@pytest.mark.parametrize("options", [{"graph_weight": 0.0}, {"heterophily": True}, {"delta": 0.2}, {"gamma": 3.0}])
def test_switches_change_what_is_learnt(options: dict[str, Any]) -> None:
    graph, train = make_items(), dataclasses.replace(TRAIN, epochs=4)
    one, other = mnl(graph), mnl(graph)
    fit(graph, one, NegativeConfig(weight=1.0, warmup_epochs=0, ramp_epochs=0), train)
    fit(graph, other, NegativeConfig(weight=1.0, warmup_epochs=0, ramp_epochs=0, **options), train)
    assert not equal_weights(one, other)


def test_nodes_without_any_modality_do_not_spoil_the_loss() -> None:
    graph = make_items()
    data = graph.g.nodes["item"].data
    data["text_present"] = torch.arange(60) % 2 == 0
    data["image_present"] = torch.zeros(60, dtype=torch.bool)
    data["text"][~data["text_present"]] = 0
    data["image"].zero_()
    _, result = fit(graph, mnl(graph, branches=("raw", "propagated")), dataclasses.replace(ON, warmup_epochs=0))
    assert result.status == "done"
    accuracy = result.epochs[-1].figures["branch_accuracy"]
    assert set(accuracy) == {"raw:text", "propagated:text"}


@pytest.mark.parametrize("make", [lambda graph: mnl(graph, branches=("raw", "propagated")), hgnn_ima])
def test_without_any_modality_there_is_nothing_to_teach(make: Any) -> None:
    graph = make_items()
    for name in ("text", "image"):
        graph.g.nodes["item"].data[f"{name}_present"] = torch.zeros(60, dtype=torch.bool)
        graph.g.nodes["item"].data[name].zero_()
    seed_everything(0)
    model = make(graph)
    _, result = fit(graph, model, dataclasses.replace(ON, warmup_epochs=0, ramp_epochs=0))
    assert result.status == "done"
    assert all(epoch.terms["negative_learning"] == 0 for epoch in result.epochs)
    assert set(result.epochs[-1].figures["transfer"].values()) == {0.0}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_two_classes_need_another_variant() -> None:
    graph = make_items(classes=2)
    with pytest.raises(ConfigError, match=r"negative.variant: 'nckd' .* a graph of 2 classes .* take .*variant=nl"):
        fit(graph, Own(classes=2), ON)
    for config in (dataclasses.replace(ON, variant="nl"), NegativeConfig()):
        assert fit(graph, Own(classes=2), config)[1].status == "done"


def test_a_model_must_have_branches() -> None:
    with pytest.raises(ConfigError, match=r"the model must return branch_logits .* got None; take a model"):
        fit(make_items(), Own(branches=False), ON)
    assert fit(make_items(), Own(branches=False), NegativeConfig())[1].epochs[0].figures == {}


def test_labels_outside_the_range_are_refused() -> None:
    graph = make_items()
    task = NegativeLearningTask(ON)
    task.on_fit_start(graph, CPU)
    task.on_epoch_start(1)
    model, nodes = Own(), graph.train_idx[:2]
    batch = Batch((graph.g, nodes), torch.tensor([0, 7]), nodes)
    with pytest.raises(ConfigError, match=r"target: classes lie in \[0, 3\), got 7 in row 1"):
        task.training_loss(model, model(*batch.inputs), batch)
    other = graph.val_idx[:2]
    with pytest.raises(ConfigError, match=rf"ids of nodes with state, 20 of 60, got {int(other[0])}"):
        task.decide(model(graph.g, other), graph.labels[other], other)


def test_it_must_know_the_graph() -> None:
    with pytest.raises(ConfigError, match=r"it does not know the graph yet, got no call of on_fit_start"):
        _ = NegativeLearningTask(ON).watched_nodes
