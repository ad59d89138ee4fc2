from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.models import HGNNIMA
from hgmm.models.official import RELEASED_VARIANTS, hgnn_ima_from_state_dict
from tests.oracles_hgnn_ima import VARIANTS, loss_l_att, official_forward, random_official_state_dict

MODALITIES = ("text", "image", "numeric")
SHAPE: dict[str, Any] = {"hidden_size": 6, "num_classes": 3, "num_heads": 2, "num_layers": 2}
IN_SIZE = 5
SKEWED = {
    ("film", "fa", "actor"): ([0, 1, 1, 2, 4, 4, 5, 6, 0, 2, 3, 6], [0, 0, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1]),
    ("actor", "af", "film"): ([0, 0, 1, 1, 1, 3, 2, 4], [0, 1, 1, 2, 4, 4, 4, 4]),
    ("film", "fd", "director"): ([0, 1, 2], [0, 0, 1]),
    ("film", "like", "film"): ([0, 1, 1, 1, 5], [1, 0, 5, 5, 5]),
    ("director", "df", "film"): ([0, 1], [3, 3]),
    ("actor", "seen_in", "film"): ([4], [6]),
}
SIZES = {"film": 7, "actor": 5, "director": 3}
ONE_TYPE = {
    ("item", name, "item"): (torch.randint(6, (12,)).tolist(), torch.randint(6, (12,)).tolist())
    for name in ("also_bought", "also_viewed", "a.dotted:name")
}


def seeded_one_type() -> dict[Any, Any]:
    generator = torch.Generator().manual_seed(3)
    return {
        ("item", name, "item"): tuple(torch.randint(6, (12,), generator=generator).tolist() for _ in range(2))
        for name in ("also_viewed", "also_bought", "a.dotted:name")
    }


GRAPHS = {"skewed": (SKEWED, SIZES, "film"), "one type": (seeded_one_type(), {"item": 6}, "item")}


def make(name: str, variant: str, **options: Any) -> tuple[Any, dict[str, Tensor], dict[str, Tensor], str]:
    edges, sizes, target = GRAPHS[name]
    num_modalities = VARIANTS[variant].num_modalities
    g = dgl.heterograph(
        {etype: tuple(torch.tensor(ids, dtype=torch.int64) for ids in ends) for etype, ends in edges.items()},
        num_nodes_dict=sizes,
    )
    generator = torch.Generator().manual_seed(1)
    features = {
        ntype: torch.randn(count, num_modalities, IN_SIZE, generator=generator, dtype=torch.float64)
        for ntype, count in sizes.items()
    }
    for ntype, x in features.items():
        for m in range(num_modalities):
            g.nodes[ntype].data[MODALITIES[m]] = x[:, m].clone()
    g.nodes[target].data["label"] = torch.zeros(sizes[target], dtype=torch.int64)
    state = random_official_state_dict(
        variant, ntypes=list(sizes), etypes=list(edges), in_size=IN_SIZE, **{**SHAPE, **options}
    )
    return g, features, state, target


def grad_of(model: HGNNIMA, name: str) -> Tensor:
    parameter = dict(model.named_parameters())[name]
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@pytest.mark.parametrize("use_norm", [True, False], ids=["norm", "no norm"])
@pytest.mark.parametrize("graph_name", sorted(GRAPHS))
@pytest.mark.parametrize("variant", RELEASED_VARIANTS)
def test_logits_equal_the_released_module(variant: str, graph_name: str, use_norm: bool) -> None:
    g, features, state, target = make(graph_name, variant, use_norm=use_norm)
    expected = official_forward(
        state, GRAPHS[graph_name][0], features, variant, num_heads=2, num_layers=2, target=target, use_norm=use_norm
    )
    out = hgnn_ima_from_state_dict(state, g, variant)(g)
    assert not expected["logits"].isnan().any()
    torch.testing.assert_close(out.logits, expected["logits"], rtol=0, atol=1e-10)
    torch.testing.assert_close(out.branch_logits, expected["branch_logits"], rtol=0, atol=1e-10)
    torch.testing.assert_close(out.aux["modality_weights"], expected["modality_attn"], rtol=0, atol=1e-10)
