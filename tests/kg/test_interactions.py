from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.kg import INTERACTIONS, ComplEx, RotatE, TransE, get_interaction
from tests.oracles_kg import SCORES
from tests.tolerances import close

EACH = pytest.mark.parametrize("name", INTERACTIONS)
Q, E, D = 3, 5, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vectors(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries' entities, relations and candidates."""
    return draw(Q, D), draw(Q, get_interaction(name).relation_size(D), seed=1), draw(E, D, seed=2)


def oracle(name: str, head: Tensor, relation: Tensor, tail: Tensor) -> float:
    return SCORES[name](head.tolist(), relation.tolist(), tail.tolist())


def test_every_interaction_has_an_oracle() -> None:
    assert set(SCORES) == set(INTERACTIONS)


@EACH
def test_scores_equal_the_definition(name: str) -> None:
    x, relation, candidates = vectors(name)
    interaction = get_interaction(name)
    tails = torch.tensor([[oracle(name, x[q], relation[q], t) for t in candidates] for q in range(Q)], dtype=x.dtype)
    heads = torch.tensor([[oracle(name, h, relation[q], x[q]) for h in candidates] for q in range(Q)], dtype=x.dtype)
    close(interaction.score_tails(x, relation, candidates), tails, torch.float64)
    close(interaction.score_heads(relation, x, candidates), heads, torch.float64)
    close(interaction.score(x.unsqueeze(1), relation.unsqueeze(1), candidates), tails, torch.float64)


@EACH
def test_gradients_by_finite_differences(name: str) -> None:
    interaction = get_interaction(name)
    leaves = [x.requires_grad_() for x in vectors(name)]
    assert torch.autograd.gradcheck(interaction.score_tails, leaves)
    assert torch.autograd.gradcheck(lambda x, r, c: interaction.score_heads(r, x, c), leaves)
    assert torch.autograd.gradcheck(lambda x, r, c: interaction.score(x, r, c[:Q]), leaves)


@pytest.mark.parametrize("name", ["transe", "transe-l2", "rotate"])
def test_no_nan_where_the_distance_is_zero(name: str) -> None:
    x, relation, _ = vectors(name)
    interaction = get_interaction(name)
    # At the zero vectors all rotations and a zero translation meet the tail exactly.
    leaves = [torch.zeros_like(x).requires_grad_(), torch.zeros_like(relation).requires_grad_()]
    score = interaction.score_tails(*leaves, torch.zeros_like(x)).sum() + interaction.score(*leaves, leaves[0]).sum()
    assert abs(score.item()) < 1e-100
    assert all(grad.eq(0).all() for grad in torch.autograd.grad(score, leaves))


def test_near_vectors_keep_their_distance_in_float32() -> None:
    x = draw(40, 64).float()
    near = x + 1e-4
    score = TransE(2).score_tails(x, torch.zeros_like(x), near).diagonal()
    torch.testing.assert_close(score, torch.full((40,), -1e-4 * 8), rtol=1e-2, atol=0)


def test_sizes_of_relations() -> None:
    assert [INTERACTIONS[name].relation_size(8) for name in INTERACTIONS] == [8, 8, 8, 8, 4]
    with pytest.raises(ConfigError, match=r"ComplEx, size: complex vectors need an even number .* got 7"):
        ComplEx().relation_size(7)
    with pytest.raises(ConfigError, match="RotatE, size: complex vectors need an even number of at least 2, got 0"):
        RotatE().relation_size(0)
    with pytest.raises(ConfigError, match="TransE, size: must be at least 1, got 0"):
        TransE().relation_size(0)


@EACH
def test_relations_are_drawn_afresh(name: str) -> None:
    relation = torch.empty(200, get_interaction(name).relation_size(D))
    torch.manual_seed(0)
    get_interaction(name).init_relation_(relation)
    assert relation.std() > 0.05
    if name == "rotate":
        assert 3 < relation.max() <= math.pi
        assert -math.pi <= relation.min() < -3


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown interaction 'transd'; known: complex, .*Did you mean 'transe'"):
        get_interaction("transd")
    with pytest.raises(ConfigError, match="TransE, norm: must be 1 or 2, got 3"):
        TransE(3)
