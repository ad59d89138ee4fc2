from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hgmm.errors import ConfigError
from hgmm.models import MMTransE
from hgmm.training import TrainConfig
from hgmm.training.config import OPTIMIZERS
from hgmm.training.optimizers import RowAdamW, make_optimizer
from tests.training.knowledge import make_knowledge_graph

ROWS, WIDTH = 6, 3
# Steps: which rows have a gradient; the last time one of them twice.
BATCHES = ([0, 2, 5], [2], [0, 1, 2, 3, 4, 5], [4, 2, 4])
RATE, DECAY, BETAS, EPS = 0.1, 0.05, (0.9, 0.999), 1e-8


def config(optimizer: str) -> TrainConfig:
    return TrainConfig(optimizer=optimizer, learning_rate=RATE, weight_decay=DECAY, gradient_clip=0.0)


def gradients(batches: tuple[list[int], ...] = BATCHES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(len(rows), WIDTH, generator=generator, dtype=torch.float64) for rows in batches]


def table() -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def by_definition(start: Tensor) -> list[list[float]]:
    """Lazy AdamW, number by number."""
    x = start.tolist()
    first, second = ([[0.0] * WIDTH for _ in range(ROWS)] for _ in range(2))
    for number, (rows, values) in enumerate(zip(BATCHES, gradients(), strict=True), 1):
        sums: dict[int, list[float]] = {}
        for row, value in zip(rows, values.tolist(), strict=True):
            sums[row] = [a + b for a, b in zip(sums.get(row, [0.0] * WIDTH), value, strict=True)]
        for row, grad in sums.items():
            for d, g in enumerate(grad):
                first[row][d] = BETAS[0] * first[row][d] + (1 - BETAS[0]) * g
                second[row][d] = BETAS[1] * second[row][d] + (1 - BETAS[1]) * g * g
                mean, square = first[row][d] / (1 - BETAS[0] ** number), second[row][d] / (1 - BETAS[1] ** number)
                x[row][d] = x[row][d] * (1 - RATE * DECAY) - RATE * mean / (math.sqrt(square) + EPS)
    return x


def test_rows_follow_the_definition_and_others_stay() -> None:
    parameter = table()
    start = parameter.detach().clone()
    optimizer = RowAdamW([parameter], lr=RATE, weight_decay=DECAY)
    for number, (rows, values) in enumerate(zip(BATCHES, gradients(), strict=True)):
        before, state = parameter.detach().clone(), optimizer.state[parameter]
        moments = [state[name].clone() for name in ("exp_avg", "exp_avg_sq")] if number else []
        parameter.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, parameter.shape, check_invariants=True)
        optimizer.step()
        assert parameter.grad.is_sparse
        moved = parameter.detach().ne(before).any(1)
        assert moved.nonzero().flatten().tolist() == sorted(set(rows))
        for x, y in zip(moments, (state["exp_avg"], state["exp_avg_sq"]), strict=False):
            assert x[~moved].equal(y[~moved])
    torch.testing.assert_close(parameter.detach(), torch.tensor(by_definition(start), dtype=torch.float64))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_with_all_rows_equal_those_of_adamw(sparse: bool, dtype: torch.dtype) -> None:
    ours, theirs = (nn.Parameter(table().detach().to(dtype)) for _ in range(2))
    optimizers = [
        RowAdamW([ours], lr=RATE, weight_decay=DECAY),
        torch.optim.AdamW([theirs], lr=RATE, weight_decay=DECAY),
    ]
    for values in gradients((list(range(ROWS)),) * 5):
        grad = values.to(dtype)
        ours.grad, theirs.grad = grad.to_sparse(1) if sparse else grad.clone(), grad
        for optimizer in optimizers:
            optimizer.step()
        assert ours.equal(theirs)
    left, right = (optimizer.state_dict()["state"][0] for optimizer in optimizers)
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)


def test_gradients_are_not_computed_again() -> None:
    with pytest.raises(ConfigError, match=r"closure: not supported, got one"):
        RowAdamW([table()]).step(lambda: 0.0)  # type: ignore[arg-type]


def make_model() -> MMTransE:
    graph = make_knowledge_graph()
    torch.manual_seed(0)
    model = MMTransE(graph.schema, 20, dim=4)
    model.prepare(graph)
    return model


def test_a_step_moves_the_entities_of_the_batch_alone() -> None:
    model = make_model()
    optimizer = make_optimizer(model, config("adamw-rows"))
    assert isinstance(optimizer, RowAdamW)
    positives, entity, side = torch.tensor([[3, 0, 4]]), torch.tensor([[7, 9]]), torch.tensor([[0, 1]])
    before = model.structure.detach().clone()
    scores = model(positives, entity, side)
    head, _, tail = model.loss_vectors(positives)
    (scores.negative.sum() - scores.positive.sum() + head.square().sum() + tail.square().sum()).backward()
    assert model.structure.grad is not None
    assert model.structure.grad.is_sparse
    optimizer.step()
    assert model.structure.detach().ne(before).any(1).nonzero().flatten().tolist() == [3, 4, 7, 9]
    # A later optimiser is told anew.
    make_optimizer(model, config("adamw"))
    assert not model.row_gradients


def test_sparse_gradients_equal_dense_ones() -> None:
    positives, side = torch.tensor([[3, 0, 4], [4, 1, 14]]), torch.tensor([[0, 1], [1, 1]])
    entity = torch.tensor([[7, 9], [3, 3]])
    grads = []
    for by_rows in (False, True):
        model = make_model()
        model.row_gradients = by_rows
        scores = model(positives, entity, side)
        scores.negative.square().sum().backward()
        assert model.structure.grad is not None
        grads.append(model.structure.grad)
    assert not grads[0].is_sparse
    torch.testing.assert_close(grads[1].to_dense(), grads[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_configuration_chooses(name: str) -> None:
    model = make_model()
    optimizer = make_optimizer(model, config(name))
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["fused"]) == (RATE, DECAY, name == "adamw-fused" or None)
    assert group["params"] == list(model.parameters())
    assert isinstance(optimizer, RowAdamW) == (name == "adamw-rows") == model.row_gradients


def test_the_fused_step_equals_the_other_up_to_rounding() -> None:
    found = []
    for name in ("adamw", "adamw-fused"):
        layer = nn.Linear(5, 4, dtype=torch.float64)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        optimizer = make_optimizer(layer, config(name))
        for _ in range(4):
            optimizer.zero_grad()
            F.silu(layer(torch.eye(5, dtype=torch.float64))).sum().backward()
            optimizer.step()
        found.append(layer.weight.detach())
    torch.testing.assert_close(*found)


def test_rows_need_a_model_that_has_them() -> None:
    with pytest.raises(ConfigError, match=r"train.optimizer: adamw-rows needs .* got Linear; choose adamw"):
        make_optimizer(nn.Linear(2, 2), config("adamw-rows"))
