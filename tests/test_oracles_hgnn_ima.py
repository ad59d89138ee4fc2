from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles_hgnn_ima import (
    BATCH_NORM_EPS,
    LAYER_NORM_EPS,
    VARIANTS,
    Etype,
    loss_l_att,
    loss_l_cro,
    official_forward,
    random_official_state_dict,
)

HEADS, HEAD_SIZE, IN_SIZE, CLASSES = 2, 3, 4, 3
SIZES = {"film": 5, "actor": 4, "director": 2}
GRAPH: dict[Etype, tuple[list[int], list[int]]] = {
    ("film", "fa", "actor"): ([0, 1, 1, 2, 4, 4], [0, 0, 1, 1, 1, 3]),
    ("actor", "af", "film"): ([0, 0, 1, 1, 1, 3, 2], [0, 1, 1, 2, 4, 4, 4]),
    ("film", "fd", "director"): ([0, 1, 2], [0, 0, 1]),
    ("director", "df", "film"): ([0, 0, 1], [0, 1, 2]),
}


def make(variant: str, *, num_layers: int = 1, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(100 + seed)
    num_modalities = VARIANTS[variant].num_modalities
    features = {
        ntype: torch.randn(count, num_modalities, IN_SIZE, generator=generator, dtype=torch.float64)
        for ntype, count in SIZES.items()
    }
    state = random_official_state_dict(
        variant,
        ntypes=list(SIZES),
        etypes=list(GRAPH),
        in_size=IN_SIZE,
        hidden_size=HEADS * HEAD_SIZE,
        num_heads=HEADS,
        num_layers=num_layers,
        num_classes=CLASSES,
        seed=seed,
    )
    return state, features


def run(
    variant: str,
    state: dict[str, Tensor],
    features: dict[str, Tensor],
    graph: Any = GRAPH,
    *,
    num_layers: int = 1,
    use_norm: bool = True,
) -> dict[str, Any]:
    return official_forward(
        state,
        graph,
        features,
        variant,
        num_heads=HEADS,
        num_layers=num_layers,
        target="film",
        use_norm=use_norm,
    )


@pytest.fixture(params=sorted(VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_shapes_and_attention_sums(variant: str) -> None:
    state, features = make(variant, num_layers=2)
    out = run(variant, state, features, num_layers=2)
    num_modalities = VARIANTS[variant].num_modalities
    assert out["logits"].shape == (5, CLASSES)
    assert out["branch_logits"].shape == (5, num_modalities, CLASSES)
    torch.testing.assert_close(out["modality_attn"].sum(1), torch.ones(5, dtype=torch.float64))
    assert [len(out[name]) for name in ("hidden", "messages", "lambdas", "alphas", "betas")] == [3, 2, 2, 2, 2]
    for lambdas, alphas, betas in zip(out["lambdas"], out["alphas"], out["betas"], strict=True):
        for etype, (_, dst) in GRAPH.items():
            torch.testing.assert_close(lambdas[etype].sum(2), torch.ones(len(dst), HEADS, dtype=torch.float64))
            for node in set(dst):
                rows = torch.tensor(dst) == node
                expected = torch.ones(HEADS, dtype=torch.float64)
                torch.testing.assert_close(alphas[etype][rows].sum(0), expected[:, None].expand(HEADS, num_modalities))
                if VARIANTS[variant].combine != "b1":
                    torch.testing.assert_close(betas[etype][rows].sum(0), expected)


def test_every_used_parameter_gets_a_gradient_and_no_other(variant: str) -> None:
    state, features = make(variant)
    leaves = {name: value.clone().requires_grad_() for name, value in state.items() if value.is_floating_point()}
    out = run(variant, {**state, **leaves}, features)
    (out["logits"].square().sum() + out["branch_logits"].square().sum()).backward()
    without = {name for name, value in leaves.items() if value.grad is None}
    used_inputs = {prefix for prefix, _ in VARIANTS[variant].inputs}
    assert {name for name in without if name.startswith("adapt")} == {
        name for name in leaves if name.startswith("adapt") and name.split(".")[0] not in used_inputs
    }
    assert {name for name in without if "relation" in name} == {"gcs.0.relation_modal"}
    assert {"linear.weight", "linear.bias"} <= without
    for name, value in leaves.items():
        if "relation_" in name and name not in without:
            assert value.grad is not None
            assert value.grad.abs().sum() > 0


def test_gradcheck(variant: str) -> None:
    state, features = make(variant)
    names = ["gcs.0.relation_att", "gcs.0.crossmodal.w_m.modal_1", "gcs.0.relation_pri", "gcs.0.skip"]
    small = {("actor", "af", "film"): ([0, 1, 1], [0, 0, 1]), ("film", "fa", "actor"): ([0], [1])}
    features = {ntype: features[ntype][:2] for ntype in ("film", "actor")}

    def function(*tensors: Tensor) -> Tensor:
        out = run(variant, {**state, **dict(zip(names, tensors, strict=True))}, features, small)
        return out["logits"]  # type: ignore[no-any-return]

    inputs = [state[name][:2].clone() if "gcs" in name else state[name].clone() for name in names]
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in inputs], fast_mode=True)


def test_degree_one_gives_beta_one(variant: str) -> None:
    state, features = make(variant)
    out = run(variant, state, features)
    ones = torch.ones(3, HEADS, dtype=torch.float64)
    torch.testing.assert_close(out["betas"][0]["director", "df", "film"], ones, rtol=0, atol=1e-15)
    torch.testing.assert_close(out["betas"][0]["film", "fd", "director"][2:], ones[:1], rtol=0, atol=1e-15)


def test_node_without_in_edges_gets_no_message(variant: str) -> None:
    state, features = make(variant)
    out = run(variant, state, features, use_norm=False)
    assert not out["messages"][0]["film"][3].any()
    assert not out["messages"][0]["actor"][2].any()
    gate = torch.sigmoid(state["gcs.0.skip"][2])
    expected = gate * state["gcs.0.a_linears.2.bias"] + (1 - gate) * out["hidden"][0]["film"][3]
    torch.testing.assert_close(out["hidden"][1]["film"][3], expected)


def test_empty_relation_still_counts_in_the_mean(variant: str) -> None:
    state, features = make(variant)
    empty: Any = {**GRAPH, ("director", "df", "film"): ([], [])}
    full = run(variant, state, features)["messages"][0]["film"]
    part = run(variant, state, features, empty)["messages"][0]["film"]
    torch.testing.assert_close(part[4], full[4])
    assert not torch.allclose(part[0], full[0])


def test_edge_order_does_not_matter(variant: str) -> None:
    state, features = make(variant, num_layers=2)
    generator = np.random.default_rng(3)
    shuffled = {}
    for etype, (src, dst) in reversed(list(GRAPH.items())):
        order = generator.permutation(len(src))
        shuffled[etype] = (np.asarray(src)[order], np.asarray(dst)[order])
    first = run(variant, state, features, num_layers=2)
    second = run(variant, state, features, shuffled, num_layers=2)
    torch.testing.assert_close(first["branch_logits"], second["branch_logits"], rtol=0, atol=1e-12)


def test_swapping_two_modalities_with_their_weights_swaps_the_branches(variant: str) -> None:
    state, features = make(variant, num_layers=2)
    swapped = copy.copy(state)
    for name, value in state.items():
        for one, other in (("adapt_ws_text", "adapt_ws_img"), ("modal_0", "modal_1")):
            if one in name:
                swapped[name] = state[name.replace(one, other)]
                swapped[name.replace(one, other)] = value
    order = [1, 0, *range(2, VARIANTS[variant].num_modalities)]
    first = run(variant, state, features, num_layers=2)
    second = run(variant, swapped, {n: x[:, order] for n, x in features.items()}, num_layers=2)
    torch.testing.assert_close(first["branch_logits"][:, order], second["branch_logits"], rtol=0, atol=1e-12)
    torch.testing.assert_close(first["logits"], second["logits"], rtol=0, atol=1e-12)
    assert not torch.allclose(first["branch_logits"], second["branch_logits"])


def identity_batch_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give both modalities the shared encoder, behind a batch normalisation that changes nothing."""
    constants = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - BATCH_NORM_EPS}
    result = dict(state)
    for name in state:
        prefix, type_id, *rest = name.split(".")
        if prefix not in ("adapt_ws_text", "adapt_ws_img"):
            continue
        if rest[0] == "1":
            result[name] = state[f"adapt_ws.{type_id}.{rest[1]}"]
        elif rest[1] in constants:
            result[name] = torch.full_like(state[name], constants[rest[1]])
    return result


def test_missing_is_align_with_another_prior_and_encoder() -> None:
    state, features = make("modal2_align", num_layers=2)
    state = identity_batch_norm(state)
    warmer = {
        name: value * 100 * math.sqrt(HEAD_SIZE) if name.endswith("relation_pri") else value
        for name, value in state.items()
    }
    align = run("modal2_align", warmer, features, num_layers=2)
    missing = run("modal2_missing", state, features, num_layers=2)
    torch.testing.assert_close(align["branch_logits"], missing["branch_logits"], rtol=0, atol=1e-10)
    assert not torch.allclose(run("modal2_align", state, features, num_layers=2)["logits"], missing["logits"])


def test_variants_combine_as_stated() -> None:
    """Recompute beta of one destination from the reported lambda, alpha and the scores behind alpha."""
    etype = ("film", "fa", "actor")
    edges = [2, 3, 4]
    for name, combine in (("modal2_align", "product"), ("modal3_align", "sum"), ("model_modal3", "b1")):
        state, features = make(name)
        out = run(name, state, features)
        lam, alpha = out["lambdas"][0][etype][edges], out["alphas"][0][etype][edges]
        b1 = (lam * alpha).sum(-1)
        g = scores(state, out["hidden"][0], etype, edges)
        torch.testing.assert_close(alpha, torch.softmax(g, 0))
        num_modalities = g.shape[-1]
        gaps = [(g[..., a] - g[..., b]).abs() for a in range(num_modalities) for b in range(a)]
        b2 = torch.softmax(-torch.stack(gaps).mean(0), 0)
        expected = {"product": torch.softmax(b1 * b2, 0), "sum": torch.softmax(b1 + b2, 0), "b1": b1}[combine]
        torch.testing.assert_close(out["betas"][0][etype][edges], expected)


def scores(state: dict[str, Tensor], hidden: dict[str, Tensor], etype: Etype, edges: list[int]) -> Tensor:
    ntypes, relation = sorted(SIZES), sorted(GRAPH).index(etype)
    src, dst = (torch.tensor(ids)[edges] for ids in GRAPH[etype])

    def project(kind: str, ntype: str, ids: Tensor) -> Tensor:
        name = f"gcs.0.{kind}_linears.{ntypes.index(ntype)}"
        x = torch.nn.functional.linear(hidden[ntype][ids], state[f"{name}.weight"], state[f"{name}.bias"])
        return x.reshape(*x.shape[:2], HEADS, HEAD_SIZE)

    key, query = project("k", etype[0], src), project("q", etype[2], dst)
    g = torch.einsum("emhx,hxy,emhy->ehm", key, state["gcs.0.relation_att"][relation], query)
    return g * state["gcs.0.relation_pri"][relation][:, None] / math.sqrt(HEAD_SIZE)


def test_layer_norm_and_output_by_hand() -> None:
    state, features = make("modal2_align")
    out = run("modal2_align", state, features)
    raw = run("modal2_align", state, features, use_norm=False)["hidden"][1]["film"]
    names = ("weight", "bias")
    weight, bias = (state[f"gcs.0.norms.2.{name}"] for name in names)
    hidden = torch.nn.functional.layer_norm(raw, (HEADS * HEAD_SIZE,), weight, bias, LAYER_NORM_EPS)
    torch.testing.assert_close(out["hidden"][1]["film"], hidden)
    attn = torch.softmax(torch.tanh(hidden @ state["project.1.weight"][0] + state["project.1.bias"]), 1)
    torch.testing.assert_close(out["modality_attn"], attn)
    fused = (attn[..., None] * hidden).sum(1) @ state["predict.weight"].T + state["predict.bias"]
    torch.testing.assert_close(out["logits"], fused)


def test_encoders_by_hand() -> None:
    for name in ("modal2_missing", "model_modal3"):
        state, features = make(name)
        encoded = run(name, state, features)["hidden"][0]["actor"]
        for m, (prefix, batch_norm) in enumerate(VARIANTS[name].inputs):
            x, key = features["actor"][:, m], f"{prefix}.0"
            if batch_norm:
                mean, variance = state[f"{key}.0.running_mean"], state[f"{key}.0.running_var"]
                x = (x - mean) * torch.rsqrt(variance + BATCH_NORM_EPS)
                x, key = x * state[f"{key}.0.weight"] + state[f"{key}.0.bias"], f"{key}.1"
            expected = torch.tanh(torch.nn.functional.linear(x, state[f"{key}.weight"], state[f"{key}.bias"]))
            torch.testing.assert_close(encoded[:, m], expected)


def test_type_without_incoming_relation_is_refused() -> None:
    state, features = make("modal2_align")
    graph: Any = {etype: edges for etype, edges in GRAPH.items() if etype[2] != "director"}
    with pytest.raises(ValueError, match="node type 'director' has no incoming edge type"):
        run("modal2_align", state, features, graph)


def test_state_dict_holds_the_unused_keys() -> None:
    state, _ = make("modal2_missing", num_layers=2)
    assert {"gcs.1.relation_modal", "linear.weight", "adapt_ws_text.0.0.running_var", "adapt_ws.2.bias"} <= set(state)
    assert state["adapt_ws_img.1.0.num_batches_tracked"].dtype is torch.int64
    three, _ = make("model_modal3")
    assert three["adapt_ws_s.1.weight"].shape == (HEADS * HEAD_SIZE, IN_SIZE)
    assert three["gcs.0.crossmodal.w_m.modal_2"].shape == (4, HEADS, HEAD_SIZE, HEAD_SIZE)
    again, _ = make("model_modal3")
    assert all(torch.equal(three[name], again[name]) for name in three)


def test_l_att_code_form() -> None:
    state, features = make("modal2_missing", num_layers=2)
    out = run("modal2_missing", state, features, num_layers=2)
    absent = {"director": [1], "actor": [1]}
    value = loss_l_att(out["lambdas"], GRAPH, absent, target="film")
    terms = [
        (layer["director", "df", "film"][..., 1].mean() + layer["actor", "af", "film"][..., 1].mean()) / 2
        for layer in out["lambdas"]
    ]
    torch.testing.assert_close(value, torch.stack(terms).mean())
    one = loss_l_att(out["lambdas"], GRAPH, {"director": [1]}, target="film")
    torch.testing.assert_close(
        one, torch.stack([layer["director", "df", "film"][..., 1].mean() for layer in out["lambdas"]]).mean()
    )
    assert loss_l_att(out["lambdas"], GRAPH, {}, target="film") == 0


def test_l_att_poster_form() -> None:
    state, features = make("modal2_missing", num_layers=2)
    out = run("modal2_missing", state, features, num_layers=2)
    value = loss_l_att(out["lambdas"], GRAPH, {"director": [0], "film": [0, 1]}, target="film", form="poster")
    films = 2 * (len(GRAPH["actor", "af", "film"][0]) + len(GRAPH["director", "df", "film"][0]))
    directors = sum(layer["film", "fd", "director"][..., 0].mean(1).sum() for layer in out["lambdas"])
    torch.testing.assert_close(value, (films + directors) / (2 * 2))
    with pytest.raises(ValueError, match="got 'sum'"):
        loss_l_att(out["lambdas"], GRAPH, {}, target="film", form="sum")


def test_l_cro() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(6, CLASSES, generator=generator, dtype=torch.float64)
    branches = torch.randn(6, 2, CLASSES, generator=generator, dtype=torch.float64)
    labels, index = np.array([0, 1, 2, 2, 0, 1]), np.array([5, 0, 3])
    targets = torch.as_tensor(labels[index])
    cross_entropy = torch.nn.functional.cross_entropy
    parts = [cross_entropy(x[index], targets) for x in (logits, branches[:, 0], branches[:, 1])]
    torch.testing.assert_close(loss_l_cro(logits, branches, labels, index), torch.stack(parts).mean())
    torch.testing.assert_close(loss_l_cro(logits, branches, labels, index, form="poster"), torch.stack(parts).sum())
    torch.testing.assert_close(loss_l_cro(logits, branches, labels, index, individual=False), parts[0])
    with pytest.raises(ValueError, match="got 'mean'"):
        loss_l_cro(logits, branches, labels, index, form="mean")
