from __future__ import annotations

import pytest
import torch

from hgmm.graph import MultimodalGraph
from hgmm.training import NodeClassificationTask, TrainConfig
from hgmm.training.evaluation import collect_outputs, evaluate
from hgmm.training.loaders import make_loader
from tests.training.tiny import TinyClassifier

CPU = torch.device("cpu")
SAMPLED = TrainConfig(batch_size=7, fanouts=(1,))


def model_for(graph: MultimodalGraph) -> TinyClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyClassifier(graph.schema)


def test_batches_give_what_the_whole_graph_gives(graph: MultimodalGraph) -> None:
    model = model_for(graph)
    whole = make_loader(graph, graph.test_idx, TrainConfig(), device=CPU, training=False)
    batches = make_loader(graph, graph.test_idx, SAMPLED, device=CPU, training=False)
    one, two = collect_outputs(model, whole), collect_outputs(model, batches)
    assert one.logits.shape == (30, 3)
    assert torch.allclose(one.logits, two.logits, atol=1e-6)
    assert torch.allclose(one.aux["embedding"], two.aux["embedding"], atol=1e-6)
    task = NodeClassificationTask()
    assert evaluate(model, task, whole) == pytest.approx(evaluate(model, task, batches))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_no_gradient_kept(graph: MultimodalGraph, training: bool) -> None:
    model = model_for(graph).train(training)
    loader = make_loader(graph, graph.val_idx, TrainConfig(), device=CPU, training=False)
    assert not collect_outputs(model, loader).logits.requires_grad
    evaluate(model, NodeClassificationTask(), loader)
    assert model.training is training


def test_evaluation_draws_no_random_numbers(graph: MultimodalGraph) -> None:
    model = model_for(graph)
    before = torch.get_rng_state()
    evaluate(model, NodeClassificationTask(), make_loader(graph, graph.val_idx, SAMPLED, device=CPU, training=False))
    assert torch.equal(before, torch.get_rng_state())
