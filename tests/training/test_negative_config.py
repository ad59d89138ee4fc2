from __future__ import annotations

from typing import Any

import pytest

from hgmm.errors import ConfigError
from hgmm.training import NegativeConfig


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("weight", -0.5, r"negative.weight: must be at least 0 and finite, got -0.5"),
        ("weight", float("inf"), r"negative.weight: must be at least 0 and finite, got inf"),
        ("weight", "much", r"negative.weight: must be a number, got 'much'"),
        ("graph_weight", float("nan"), r"negative.graph_weight: must be at least 0 and finite, got nan"),
        ("temperature", 0, r"negative.temperature: must be above 0 and finite, got 0.0"),
        ("gate_temperature", -1.0, r"negative.gate_temperature: must be above 0 and finite, got -1.0"),
        ("momentum", 1.5, r"negative.momentum: must be at least 0 and at most 1, got 1.5"),
        ("min_stability", 2.0, r"negative.min_stability: must be at least 0 and at most 1, got 2.0"),
        ("window", 0, r"negative.window: must be at least 1 and at most 127, got 0"),
        ("window", 200, r"negative.window: must be at least 1 and at most 127, got 200"),
        ("warmup_epochs", 2.5, r"negative.warmup_epochs: must be a whole number, got 2.5"),
        ("ramp_epochs", -1, r"negative.ramp_epochs: must be at least 0 and finite, got -1"),
        ("max_changes", -1, r"negative.max_changes: must be at least 0 and finite, got -1"),
        ("heterophily", 1, r"negative.heterophily: must be true or false, got 1"),
        ("variant", "dkd", r"negative.variant: unknown variant 'dkd'; known: kl, mnl, nckd, nl"),
        ("gate", "none", r"negative.gate: unknown gate 'none'; known: hard, off, soft"),
        ("stability", "js", r"negative.stability: unknown stability 'js'; known: entropy, posterior"),
    ],
)
def test_wrong_values(name: str, value: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        NegativeConfig(**{name: value})


def test_a_node_without_neighbours_needs_a_score() -> None:
    with pytest.raises(ConfigError, match=r"one must be above 0, got 0 and 0"):
        NegativeConfig(confidence_weight=0, margin_weight=0)
    assert NegativeConfig(confidence_weight=0).margin_weight == 1
