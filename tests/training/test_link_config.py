from __future__ import annotations

from typing import Any

import pytest

from hgmm.errors import ConfigError
from hgmm.training import LinkConfig


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("num_negs_per_pos", 0, r"link.num_negs_per_pos: must be at least 1 and finite, got 0"),
        ("num_negs_per_pos", 1.5, r"link.num_negs_per_pos: must be a whole number, got 1.5"),
        ("batch_size", 0, r"link.batch_size: must be at least 1 and finite, got 0"),
        ("margin", -1.0, r"link.margin: must be at least 0 and finite, got -1.0"),
        ("adversarial_temperature", float("nan"), r"link.adversarial_temperature: must be at least 0 .*, got nan"),
        ("regularizer_weight", -0.1, r"link.regularizer_weight: must be at least 0 and finite, got -0.1"),
        ("proposal", "typed", r"link.proposal: unknown proposal 'typed'; known: bernoulli, uniform"),
        ("filter", "test", r"link.filter: unknown filter 'test'; known: all, none, train"),
        ("loss", "hinge", r"link.loss: unknown loss 'hinge'"),
        ("sampler", "mans", r"link.sampler: unknown sampler 'mans'; .*mans-a, mans-h, mans-t, mans-v, normal"),
        ("corrupted_modalities", "image", r"link.corrupted_modalities: must be a list of strings, got 'image'"),
        ("modal_share", 1.5, r"link.modal_share: must be at least 0 and at most 1, got 1.5"),
        ("modal_pairs", "some", r"link.modal_pairs: unknown modal_pairs 'some'; known: all, changed"),
        ("adaptive_rule", "all", r"link.adaptive_rule: unknown adaptive_rule 'all'; known: rows, share"),
        ("type_constrained", 1, r"link.type_constrained: must be true or false, got 1"),
        ("regularizer", "l1", r"link.regularizer: unknown regularizer 'l1'"),
    ],
)
def test_wrong_values(name: str, value: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        LinkConfig(**{name: value})


def test_a_weight_needs_a_regularizer() -> None:
    with pytest.raises(ConfigError, match=r"link.regularizer: .* weight of 0.1 .* got 'none'"):
        LinkConfig(regularizer_weight=0.1)
    assert LinkConfig(regularizer="n3", regularizer_weight=0.1).regularizer == "n3"


def test_all_entities_leave_nothing_to_a_sampler() -> None:
    with pytest.raises(ConfigError, match=r"link.sampler: the loss one-vs-all draws no negatives, got 'mans-v'"):
        LinkConfig(loss="one-vs-all", sampler="mans-v")
