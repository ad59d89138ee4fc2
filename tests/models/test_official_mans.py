from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.kg import CandidateTable, ModalityPairs, TransE
from hgmm.models.official import mm_transe_from_state_dict
from tests import oracles_kg

E, R, D, W = 6, 3, 5, 4


def released() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "zero_const": (1,),
        "pi_const": (1,),
        "ent_embeddings.weight": (E, D),
        "rel_embeddings.weight": (R, D),
        "img_proj.weight": (D, W),
        "img_proj.bias": (D,),
        "img_embeddings.weight": (E, W),
    }
    return {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def lists(state: dict[str, Tensor]) -> dict[str, list]:
    return {name: x.tolist() for name, x in state.items()}


def test_scores_equal_the_released_model() -> None:
    state = released()
    model = mm_transe_from_state_dict(state)
    triples = torch.cartesian_prod(torch.arange(E), torch.arange(R), torch.arange(E))
    expected = [-oracles_kg.mans_distance(lists(state), *row) for row in triples.tolist()]
    torch.testing.assert_close(model.score(triples), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)
    table = model.candidates().score_tails(triples[::E, 0], triples[::E, 1])
    torch.testing.assert_close(table.flatten(), model.score(triples), rtol=0, atol=1e-10)
    assert model.pairs.pairs == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert not model.training


def test_its_test_modes_are_sets_of_pairs() -> None:
    state = released()
    model = mm_transe_from_state_dict(state)
    relations = model.relation_vectors(torch.arange(R))
    table = CandidateTable(model.project(), relations, TransE(), pairs=ModalityPairs([(0, 1)]))
    weights = lists(state)
    image = [
        oracles_kg.unit(oracles_kg.affine(weights["img_proj.weight"], weights["img_proj.bias"], row))
        for row in weights["img_embeddings.weight"]
    ]
    head = oracles_kg.unit(weights["ent_embeddings.weight"][2])
    relation = oracles_kg.unit(weights["rel_embeddings.weight"][1])
    expected = [oracles_kg.transe_l1(head, relation, tail) for tail in image]
    assert table.score_tails(torch.tensor([2]), torch.tensor([1]))[0].tolist() == pytest.approx(expected)


def test_images_may_come_from_elsewhere() -> None:
    state = released()
    images = state.pop("img_embeddings.weight")
    model = mm_transe_from_state_dict(state, images=images)
    assert model.score(torch.tensor([[0, 0, 1]])).item() == pytest.approx(
        -oracles_kg.mans_distance(lists({**state, "img_embeddings.weight": images}), 0, 0, 1)
    )


def test_weights_that_do_not_fit() -> None:
    state = released()
    with pytest.raises(ConfigError, match=r"'rel_embeddings\.weight' is missing"):
        mm_transe_from_state_dict({name: x for name, x in state.items() if name != "rel_embeddings.weight"})
    with pytest.raises(ConfigError, match=r"'img_embeddings\.weight' is missing"):
        mm_transe_from_state_dict({name: x for name, x in state.items() if name != "img_embeddings.weight"})
    with pytest.raises(ConfigError, match=r"'norm_vector\.weight' is no part of MANS' MMTransE"):
        mm_transe_from_state_dict({**state, "norm_vector.weight": torch.zeros(1)})
    with pytest.raises(ConfigError, match=r"'img_proj.weight' has the shape \(5, 3\), .* ask for \(5, 4\)"):
        mm_transe_from_state_dict({**state, "img_proj.weight": torch.zeros(D, W - 1)})
