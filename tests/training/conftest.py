from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hgmm.graph import MultimodalGraph
from hgmm.registry import MODELS
from tests.training.tiny import TinyClassifier, make_graph


@pytest.fixture
def graph() -> MultimodalGraph:
    return make_graph()


@pytest.fixture
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register `TinyClassifier` as model ``tiny`` for one test."""
    list(MODELS)
    monkeypatch.setitem(MODELS._entries, "tiny", TinyClassifier)


@pytest.fixture(autouse=True)
def _random_state_is_kept() -> Iterator[None]:
    """Runs seed the global generators; other tests shall not depend on it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
