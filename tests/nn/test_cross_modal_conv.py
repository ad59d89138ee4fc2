from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError, ShapeError
from hgmm.kernels import COMBINES
from hgmm.nn import CrossModalConv
from hgmm.nn._conv import AttentionConv
from tests.nn.graphs import EDGES, ETYPES, NTYPES, SIZES, full_block, graph, presence, states

M, F, H = 3, 6, 2
D = F // H


def conv(**options: Any) -> CrossModalConv:
    options = {"num_modalities": M, "hidden_size": F, "num_heads": H, "dropout": 0.0, **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CrossModalConv(NTYPES, ETYPES, **options).double()


def sharp_by_loops(layer: CrossModalConv, h: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the layer one edge, head and modality at a time, with the matrices on the edges' keys and values."""
    own = {t: layer._node(t) for t in NTYPES}
    full = {t: torch.where(present[t].unsqueeze(-1), h[t], own[t].absent) for t in NTYPES}
    result = {}
    for ntype in NTYPES:
        rows = []
        for i in range(SIZES[ntype]):
            z, reached = torch.zeros(M, F, dtype=torch.float64), torch.zeros(M, dtype=torch.float64)
            for etype in ETYPES:
                sources = [j for j, d in zip(*EDGES[etype], strict=True) if d == i]
                sources = [j for j in sources if etype[2] == ntype and present[etype[0]][j].any()]
                for m in range(M):
                    reached[m] += any(bool(present[etype[0]][j, m]) for j in sources)
                if sources:
                    z = z + arriving(layer, etype, sources, full[etype[0]], full[ntype][i], present[etype[0]])
            update = own[ntype].a(torch.nn.functional.gelu(z / reached.clamp(min=1)[:, None]))
            gate = torch.sigmoid(own[ntype].skip)
            rows.append(own[ntype].norm(gate * update + (1 - gate) * full[ntype][i]))
        result[ntype] = torch.stack(rows)
    return result


def arriving(
    layer: CrossModalConv, etype: Any, sources: list[int], h: Tensor, query: Tensor, present: Tensor
) -> Tensor:
    relation = layer._relation(etype)
    k = layer._node(etype[0]).k(h).view(-1, M, H, D)
    v = layer._node(etype[0]).v(h).view(-1, M, H, D)
    q = layer._node(etype[2]).q(query).view(M, H, D)
    out = torch.zeros(M, H, D, dtype=torch.float64)
    for a in range(H):
        has = [[m for m in range(M) if present[j, m]] for j in sources]
        g = [
            {m: relation.prior[a] / math.sqrt(D) * (k[j, m, a] @ relation.node[a]) @ q[m, a] for m in has[e]}
            for e, j in enumerate(sources)
        ]
        weights = []
        for e, j in enumerate(sources):
            t = {m: (k[j, m, a] @ relation.modal[m, a]) @ q[m, a] / math.sqrt(D) for m in has[e]}
            b1 = sum(
                t[m].exp() / sum(x.exp() for x in t.values()) * g[e][m].exp() / sum(r[m].exp() for r in g if m in r)
                for m in has[e]
            )
            pairs = list(combinations(has[e], 2))
            gap = sum((g[e][m] - g[e][n]).abs() for m, n in pairs) / max(1, len(pairs))
            weights.append(b1 * torch.exp(-torch.as_tensor(gap)))
        for m in range(M):
            parts = [
                (w, v[j, m, a] @ relation.message[a])
                for e, (w, j) in enumerate(zip(weights, sources, strict=True))
                if m in has[e]
            ]
            if parts:
                out[m, a] = sum(w * x for w, x in parts) / sum(w for w, _ in parts)
    return out.flatten(1)


def randomise(layer: CrossModalConv) -> None:
    """Give every parameter a value of its own; gates, priors and norms start as ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def gradients(layer: CrossModalConv, out: dict[str, Tensor]) -> dict[str, Tensor]:
    loss = sum(x.sin().sum() for x in out.values())
    grads = torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if grad is None else grad
        for (name, parameter), grad in zip(layer.named_parameters(), grads, strict=True)
    }


def test_sharp_equals_its_definition_with_absent_modalities() -> None:
    layer, h, present = conv(), states(M, F), presence(M)
    randomise(layer)
    expected = sharp_by_loops(layer, h, present)
    out, _ = layer(graph(), h, present)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(gradients(layer, out), gradients(layer, expected), rtol=1e-8, atol=1e-10)


def test_presence_spreads_along_edges() -> None:
    """User 3 hears of nobody but item 0, which has nothing; item 3 hears of nobody."""
    h, present = states(M, F), presence(M)
    _, after = conv()(graph(), h, present)
    assert after["user"].tolist() == [[True] * 3] * 3 + [[True, True, False]]
    assert after["item"].tolist() == [[True] * 3] * 3 + [[False, True, True]] + [[True] * 3] * 2
    assert conv()(graph(), h)[1] is None


def test_what_absent_rows_hold_does_not_matter() -> None:
    h, present = states(M, F), presence(M)
    spoilt = {t: x.masked_fill(~present[t].unsqueeze(-1), torch.nan).requires_grad_() for t, x in h.items()}
    expected, _ = conv()(graph(), h, present)
    out, _ = conv()(graph(), spoilt, present)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    sum(x.sum() for x in out.values()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in spoilt.values())


def test_inputs_are_not_written_to() -> None:
    h, present = states(M, F), presence(M)
    before = ({t: x.clone() for t, x in h.items()}, {t: x.clone() for t, x in present.items()})
    conv()(graph(), h, present)
    torch.testing.assert_close((h, present), before, rtol=0, atol=0)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "all present"])
@pytest.mark.parametrize("combine", COMBINES)
def test_a_full_block_equals_the_graph(combine: str, masked: bool) -> None:
    g, layer, h = graph(), conv(combine=combine), states(M, F)
    present = presence(M) if masked else None
    expected, after = layer(g, h, present)
    seeds = {"item": torch.tensor([2, 0, 5]), "user": torch.tensor([3])}
    block = full_block(g, seeds)
    rows = {t: block.srcnodes[t].data["_ID"] for t in NTYPES}
    inputs = {t: h[t][ids] for t, ids in rows.items()}
    masks = None if present is None else {t: present[t][ids] for t, ids in rows.items()}
    out, seen = layer(block, inputs, masks)
    torch.testing.assert_close(out, {t: expected[t][ids] for t, ids in seeds.items()}, rtol=1e-12, atol=1e-12)
    if after is not None:
        assert seen is not None
        torch.testing.assert_close(seen, {t: after[t][ids] for t, ids in seeds.items()})


def test_order_of_edges_does_not_matter() -> None:
    turned = {etype: tuple(torch.tensor(ids[::-1], dtype=torch.int64) for ids in ends) for etype, ends in EDGES.items()}
    h = states(M, F)
    expected, _, attn = conv()(graph(), h, return_attention=True)
    out, _, turned_attn = conv()(dgl.heterograph(turned, num_nodes_dict=SIZES), h, return_attention=True)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close({e: x.flip(0) for e, x in turned_attn.items()}, attn, rtol=1e-12, atol=1e-12)


def test_attention_sums_to_one_over_in_neighbours() -> None:
    _, _, attn = conv()(graph(), states(M, F), return_attention=True)
    assert sorted(attn) == [e for e in ETYPES if EDGES[e][0]]
    for etype, weights in attn.items():
        dst = torch.tensor(EDGES[etype][1])
        sums = torch.zeros(SIZES[etype[2]], H, dtype=torch.float64).index_add(0, dst, weights)
        torch.testing.assert_close(sums[dst.unique()], torch.ones(len(dst.unique()), H, dtype=torch.float64))


def test_a_node_without_in_edges_keeps_its_own_state() -> None:
    layer, h = conv(use_norm=False), states(M, F)
    out, _ = layer(graph(), h)
    own = layer._node("item")
    gate = torch.sigmoid(own.skip)
    torch.testing.assert_close(out["item"][3], gate * own.a.bias + (1 - gate) * h["item"][3])


def test_permuting_modalities_with_their_parameters_permutes_the_result() -> None:
    layer, turned, h, present = conv(), conv(), states(M, F), presence(M)
    order = torch.tensor([2, 0, 1])
    state = layer.state_dict()
    turned.load_state_dict({k: v[order] if k.endswith((".modal", ".absent")) else v for k, v in state.items()})
    expected, _ = layer(graph(), h, present)
    out, _ = turned(graph(), {t: x[:, order] for t, x in h.items()}, {t: x[:, order] for t, x in present.items()})
    torch.testing.assert_close(out, {t: x[:, order] for t, x in expected.items()}, rtol=1e-11, atol=1e-12)


def test_relation_reduce() -> None:
    """Item 4 hears from one of three relations, so `mean` brings it a third of what `reached` does."""
    messages = {}
    for name in ("reached", "mean"):
        layer = conv(relation_reduce=name, use_norm=False, message_activation="none")
        own = layer._node("item")
        with torch.no_grad():
            own.a.weight.copy_(torch.eye(F))
            own.a.bias.zero_()
            own.skip.fill_(50.0)
        messages[name] = layer(graph(), states(M, F))[0]["item"][4]
    torch.testing.assert_close(messages["mean"], messages["reached"] / 3)


def test_only_the_node_types_asked_for_are_updated() -> None:
    layer, h = conv(), states(M, F)
    out = layer.propagate(graph(), h, ntypes={"user"})
    torch.testing.assert_close(out.h, {"user": layer(graph(), h)[0]["user"]}, rtol=0, atol=0)


def test_lambda_sums_come_for_the_relations_asked_for() -> None:
    layer, h = conv(uniform_modalities=True), states(M, F)
    etype = ("user", "buys", "item")
    weight = torch.tensor([[0.0, 1.0, 0.0]] * 4, dtype=torch.float64)
    sums = layer.propagate(graph(), h, lambda_weight={etype: weight}).lambda_sums
    assert list(sums) == [etype]
    degrees = torch.tensor([4, 1, 2, 0, 1, 0], dtype=torch.float64)
    torch.testing.assert_close(sums[etype][:, 1], (degrees / 3).unsqueeze(1).expand(-1, H))
    assert not sums[etype][:, [0, 2]].any()


def test_mixed_precision_stays_near_full_precision() -> None:
    layer = conv().float()
    etype = ("user", "buys", "item")
    h, weight = states(M, F, dtype=torch.float32), {etype: torch.ones(4, M)}
    full = layer.propagate(graph(), h, presence(M), lambda_weight=weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer.propagate(graph(), h, presence(M), lambda_weight=weight)
    torch.testing.assert_close(mixed.lambda_sums, full.lambda_sums, rtol=0.05, atol=0.05)
    torch.testing.assert_close(mixed.h, full.h, rtol=0.05, atol=0.05, check_dtype=False)
    assert not torch.equal(mixed.h["item"], full.h["item"])
    sum(x.float().square().sum() for x in mixed.h.values()).backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in layer.parameters())


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_stored_keys_and_values_round_them_and_nothing_else(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", backend)
    full, stored = conv().float(), conv(kv_dtype="bfloat16").float()
    h, weight = states(M, F, dtype=torch.float32), {ETYPES[0]: torch.ones(SIZES[ETYPES[0][0]], M)}
    expected = full.propagate(graph(), h, presence(M), lambda_weight=weight)
    actual = stored.propagate(graph(), h, presence(M), lambda_weight=weight)
    assert actual.h["item"].dtype == torch.float32
    assert not torch.equal(actual.h["item"], expected.h["item"])
    # Keys and values are off by up to 2^-9 of themselves, and LayerNorm spreads what comes of it.
    torch.testing.assert_close(actual.h, expected.h, rtol=0.02, atol=0.02)
    for layer, out in ((full, expected), (stored, actual)):
        sum(x.square().sum() for x in (*out.h.values(), *out.lambda_sums.values())).backward()
        assert all(x.grad is None or x.grad.dtype == torch.float32 for x in layer.parameters())
    grads = [layer._node("user").v.weight.grad for layer in (full, stored)]
    torch.testing.assert_close(grads[1], grads[0], rtol=0.05, atol=0.05 * float(grads[0].abs().max()))


def test_stored_keys_and_values_go_with_float32_only() -> None:
    with pytest.raises(ConfigError, match=r"CrossModalConv, kv_dtype='bfloat16': goes with .* float32, got float64"):
        conv(kv_dtype="bfloat16")(graph(), states(M, F))


def test_a_graph_may_lack_types_and_relations() -> None:
    etype = ("item", "v1.like", "item")
    part = dgl.heterograph({etype: EDGES[etype]}, num_nodes_dict={"item": 6})
    layer = conv(relation_reduce="reached")
    whole = dgl.heterograph(
        {e: EDGES[e] if e == etype else ([], []) for e in ETYPES}, num_nodes_dict={"item": 6, "user": 0}
    )
    h = {"item": states(M, F)["item"], "user": torch.zeros(0, M, F, dtype=torch.float64)}
    out, _ = layer(part, {"item": h["item"]})
    expected, _ = layer(whole, h)
    assert list(out) == ["item"]
    assert expected["user"].shape == (0, M, F)
    torch.testing.assert_close(out["item"], expected["item"], rtol=0, atol=0)


@pytest.mark.parametrize(("init", "node_bound"), [("per-matrix", 1.0), ("released", math.sqrt(6 / (6 * 9)))])
def test_initial_scale(init: str, node_bound: float) -> None:
    layer = conv(init=init)
    values = torch.cat([layer._relation(e).node.flatten() for e in ETYPES])
    assert 0.9 * node_bound < values.abs().max() <= node_bound
    modal = torch.cat([layer._relation(e).modal.flatten() for e in ETYPES])
    assert (modal.abs().max() > 2) == (init == "released")


def test_seed_decides_the_parameters() -> None:
    torch.testing.assert_close(dict(conv().state_dict()), dict(conv().state_dict()), rtol=0, atol=0)


def test_it_is_an_attention_conv_and_says_its_sizes() -> None:
    assert issubclass(CrossModalConv, AttentionConv)
    assert "num_modalities=3, hidden_size=6, num_heads=2" in repr(conv())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 7}, "multiple of num_heads=2, got 7"),
        ({"num_modalities": 0}, "num_modalities: must be at least 1, got 0"),
        ({"combine": "blunt"}, "unknown combine 'blunt'; known: b1"),
        ({"relation_reduce": "max"}, "unknown relation_reduce 'max'; known: mean, reached"),
        ({"message_activation": "swish"}, "unknown message_activation 'swish'"),
        ({"init": "zeros"}, "unknown init 'zeros'; known: per-matrix, released"),
        ({"kv_dtype": "int8"}, "kv_dtype: unknown kv_dtype 'int8'; known: None, bfloat16"),
        ({"gamma": math.inf}, "gamma: must be a finite number, got inf"),
        ({"temperature": math.nan}, "temperature: must be a finite number, got nan"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        conv(**options)


def test_a_relation_needs_known_ends() -> None:
    with pytest.raises(SchemaError, match="unknown node type 'usr'; known: item, user"):
        CrossModalConv(NTYPES, [("usr", "buys", "item")], num_modalities=1, hidden_size=8)


def test_undeclared_types_and_relations() -> None:
    layer = CrossModalConv(["item"], [("item", "v1.like", "item")], num_modalities=M, hidden_size=F, num_heads=H)
    with pytest.raises(SchemaError, match="unknown node type 'user'; known: item"):
        layer(graph(), states(M, F))
    other = dgl.heterograph({("item", "hate", "item"): ([0], [1])})
    with pytest.raises(SchemaError, match=r"unknown relation .*'hate'"):
        layer(other, {"item": torch.zeros(2, M, F)})


def test_wrong_shapes() -> None:
    h = states(M, F)
    with pytest.raises(ShapeError, match=r"h: node type 'user' is missing, got \['item'\]"):
        conv()(graph(), {"item": h["item"]})
    with pytest.raises(ShapeError, match=r"h\['item'\]: expected shape \(6, 3, 6\), got \(6, 2, 6\)"):
        conv()(graph(), {**h, "item": h["item"][:, :2]})
    with pytest.raises(ShapeError, match=r"present\['item'\]: expected shape \(6, 3\), got \(6, 1\)"):
        conv()(graph(), h, {**presence(M), "item": torch.ones(6, 1, dtype=torch.bool)})
