from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.official_style import VARIANTS, OfficialStyleHGNNIMA
from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError
from tests.oracles_hgnn_ima import official_forward, random_official_state_dict

SIZES = {"film": 7, "actor": 5, "director": 3}
SHAPE: dict[str, Any] = {"in_size": 5, "hidden_size": 6, "num_classes": 3, "num_heads": 2, "num_layers": 2}
GRAPH = {
    ("film", "fa", "actor"): ([0, 1, 1, 2, 4, 4, 5], [0, 0, 1, 1, 1, 3, 1]),
    ("actor", "af", "film"): ([0, 0, 1, 1, 1, 3, 2, 4], [0, 1, 1, 2, 4, 4, 4, 4]),
    ("film", "fd", "director"): ([0, 1, 2], [0, 0, 1]),
    ("film", "ff", "film"): ([0, 1, 1, 5], [1, 0, 5, 5]),
    ("director", "df", "film"): ([], []),
}


def make(variant: str) -> tuple[Any, dict[str, Tensor], dict[str, Tensor], OfficialStyleHGNNIMA]:
    graph = dgl.heterograph(
        {etype: tuple(torch.tensor(ids, dtype=torch.int64) for ids in edges) for etype, edges in GRAPH.items()},
        num_nodes_dict=SIZES,
    )
    generator = torch.Generator().manual_seed(1)
    features = {
        ntype: torch.randn(count, len(VARIANTS[variant].encoders), 5, generator=generator, dtype=torch.float64)
        for ntype, count in SIZES.items()
    }
    state = random_official_state_dict(variant, ntypes=list(SIZES), etypes=list(GRAPH), **SHAPE)
    model = OfficialStyleHGNNIMA(graph.ntypes, graph.canonical_etypes, variant=variant, target="film", **SHAPE)
    model = model.to(torch.float64).eval()
    loaded = model.load_state_dict(state, strict=False)
    assert loaded.missing_keys == []
    return graph, features, state, model


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_equals_the_oracle_with_gradients(variant: str) -> None:
    graph, features, state, model = make(variant)
    parameters = dict(model.named_parameters())
    leaves = {name: state[name].clone().requires_grad_() for name in parameters}
    expected = official_forward({**state, **leaves}, GRAPH, features, variant, num_heads=2, num_layers=2, target="film")
    out = model(graph, features)
    torch.testing.assert_close(out.logits, expected["logits"], rtol=0, atol=1e-11)
    torch.testing.assert_close(out.branch_logits, expected["branch_logits"], rtol=0, atol=1e-11)
    assert all(not graph.edges[etype].data for etype in graph.canonical_etypes)
    (out.logits.square().sum() + out.branch_logits.sin().sum()).backward()
    (expected["logits"].square().sum() + expected["branch_logits"].sin().sum()).backward()
    for name, parameter in parameters.items():
        mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        oracle = leaves[name].grad
        oracle = torch.zeros_like(parameter) if oracle is None else oracle
        torch.testing.assert_close(mine, oracle, rtol=1e-9, atol=1e-10)


def test_numbering_is_dgls() -> None:
    graph, _, _, model = make("modal2_align")
    assert model.ntypes == graph.ntypes
    assert model.etypes == graph.canonical_etypes


def test_trains() -> None:
    graph, features, _, model = make("modal3_align")
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, SIZES["film"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(graph, features).logits, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_initial_weights_have_the_documented_scale() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OfficialStyleHGNNIMA(
            ["a", "b"],
            [("a", "x", "b"), ("a", "y", "b"), ("b", "x", "a"), ("b", "y", "a")],
            variant="modal2_align",
            target="a",
            in_size=4,
            hidden_size=64,
            num_classes=2,
            num_heads=8,
            num_layers=1,
        )
    weights = dict(model.named_parameters())
    for name in ("gcs.0.relation_att", "gcs.0.relation_msg"):
        assert 0.08 < weights[name].abs().max() < 0.089
    assert 0.95 < weights["gcs.0.crossmodal.w_m.modal_1"].std() < 1.05
    assert bool((weights["gcs.0.relation_pri"] == 1).all())
    assert bool((weights["gcs.0.skip"] == 1).all())


def test_unknown_variant() -> None:
    with pytest.raises(ConfigError, match=r"unknown variant 'modal2_aling'.*Did you mean 'modal2_align'"):
        OfficialStyleHGNNIMA(["a"], [("a", "x", "a")], variant="modal2_aling", target="a", **SHAPE)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(ConfigError, match="multiple of num_heads=2, got 7"):
        OfficialStyleHGNNIMA(
            ["a"], [("a", "x", "a")], variant="modal2_align", target="a", **{**SHAPE, "hidden_size": 7}
        )
