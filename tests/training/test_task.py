from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hgmm.errors import ConfigError, ShapeError
from hgmm.training import NodeClassificationTask, TrainConfig, classification_metrics
from hgmm.typing import NodeOutput


def logits_of(predicted: list[int], num_classes: int) -> torch.Tensor:
    return F.one_hot(torch.tensor(predicted), num_classes).double()


def test_metrics_by_hand() -> None:
    target = torch.tensor([0, 0, 0, 1, 1, 2])
    found = classification_metrics(logits_of([0, 0, 1, 1, 2, 2], 4), target)
    # class 0: 2 TP, 1 FN; class 1: 1 TP, 1 FP, 1 FN; class 2: 1 TP, 1 FP; class 3 does not occur
    assert found == pytest.approx({"accuracy": 4 / 6, "micro_f1": 4 / 6, "macro_f1": (4 / 5 + 2 / 4 + 2 / 3) / 3})


def test_a_class_that_is_only_predicted_counts() -> None:
    found = classification_metrics(logits_of([0, 2], 3), torch.tensor([0, 0]))
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    f1_score: Any = importlib.import_module("sklearn.metrics").f1_score
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, 6, generator=generator)
    target = torch.randint(5, (40,), generator=generator)
    found = classification_metrics(logits, target)
    predicted = logits.argmax(1)
    assert found["micro_f1"] == pytest.approx(f1_score(target, predicted, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(target, predicted, average="macro", zero_division=0))


@pytest.mark.parametrize("shapes", [((3, 2), (2,)), ((3,), (3,)), ((0, 2), (0,))])
def test_metrics_of_wrong_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    logits, target = torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.int64)
    with pytest.raises(ShapeError, match=rf"got \({shapes[0][0]},.*and \({shapes[1][0]},\)"):
        classification_metrics(logits, target)


def test_branches_that_a_node_lacks_are_not_blamed() -> None:
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    branches = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]], [[0.0, 9.0, 0.0], [9.0, 0.0, 0.0]]])
    available = torch.tensor([[True, False], [True, False]])
    blamed = NodeOutput(logits, branches, ("a", "b"))
    task = NodeClassificationTask(branch_weight=1.0)
    spared = task.loss(blamed._replace(available=available), target)[0]
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(branches[:, 0], target)) / 2
    assert float(spared) == pytest.approx(float(expected))
    assert float(task.loss(blamed, target)[0]) > 2 * float(spared)


def test_loss_is_the_sum_of_its_terms() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator)
    branches = torch.randn(5, 2, 3, generator=generator)
    target = torch.tensor([0, 1, 2, 0, 1])
    output = NodeOutput(logits, branches, ("a", "b"), aux={"missing_attention": torch.tensor(0.5)})
    loss, terms = NodeClassificationTask(branch_weight=1.0, missing_attention_weight=2.0).loss(output, target)
    parts = [F.cross_entropy(entry, target) for entry in (logits, branches[:, 0], branches[:, 1])]
    assert terms["cross_entropy"] == pytest.approx(float(sum(parts)) / 3)
    assert terms["missing_attention"] == 0.5
    assert float(loss) == pytest.approx(terms["cross_entropy"] + 1.0)


def test_weights_of_zero_switch_terms_off() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    output = NodeOutput(logits, logits[:, None] * 5, ("a",), aux={"missing_attention": torch.tensor(float("nan"))})
    task = NodeClassificationTask(branch_weight=0.0, missing_attention_weight=0.0)
    loss, _ = task.loss(output, torch.tensor([0]))
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0]))))


def test_a_model_without_branches_has_one_term() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    loss, terms = NodeClassificationTask(label_smoothing=0.2).loss(NodeOutput(logits), torch.tensor([0]))
    assert list(terms) == ["cross_entropy"]
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0]), label_smoothing=0.2)))


def test_monitors() -> None:
    task = NodeClassificationTask(monitor="macro_f1", patience_monitor="loss")
    assert task.monitor == ("macro_f1", "max")
    assert task.patience_monitor == ("loss", "min")
    assert NodeClassificationTask(monitor="loss").patience_monitor == ("loss", "min")


def test_from_config() -> None:
    config = TrainConfig(branch_weight=0.25, missing_attention_weight=0.5, label_smoothing=0.125, monitor="accuracy")
    task = NodeClassificationTask.from_config(config)
    assert (task.branch_weight, task.missing_attention_weight, task.label_smoothing) == (0.25, 0.5, 0.125)
    assert task.monitor == ("accuracy", "max")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"branch_weight": -1.0}, r"branch_weight: must be at least 0, got -1.0"),
        ({"missing_attention_weight": float("nan")}, r"missing_attention_weight: must be at least 0, got nan"),
        ({"label_smoothing": 1.0}, r"label_smoothing: must be in \[0, 1\), got 1.0"),
        ({"monitor": "auc"}, r"monitor: unknown monitor 'auc'; known: accuracy"),
        ({"patience_monitor": "mrr"}, r"patience_monitor: unknown monitor 'mrr'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        NodeClassificationTask(**arguments)
