"""Graph convolution, GraphSAGE and graph attention: one contract, and one definition in loops for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, SchemaError, ShapeError
from hgmm.nn import GATConv, GraphConv, SAGEConv
from hgmm.nn._names import node_key, relation_key
from tests.nn.graphs import EDGES, ETYPES, NTYPES, SIZES, full_block, graph, presence, states

M, IN, OUT, H = 2, 3, 4, 2
ONE = ("_N", "_E", "_N")
PLAIN = {ONE: ([0, 2, 2, 3, 3, 1], [1, 1, 1, 0, 2, 0])}
PLAIN_SIZES = {"_N": 6}
LAYERS: dict[str, tuple[type, dict[str, Any]]] = {
    "gcn": (GraphConv, {}),
    "gcn mean": (GraphConv, {"norm": "mean"}),
    "gcn sum": (GraphConv, {"relation_reduce": "sum"}),
    "sage": (SAGEConv, {}),
    "sage sum": (SAGEConv, {"relation_reduce": "sum"}),
    "gat": (GATConv, {"num_heads": H}),
    "gat sum": (GATConv, {"num_heads": H, "relation_reduce": "sum"}),
}
Edges = Mapping[tuple[str, str, str], tuple[list[int], list[int]]]


def layer(name: str, ntypes: list[str] = NTYPES, etypes: list[Any] = ETYPES, **options: Any) -> Any:
    kind, chosen = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = kind(ntypes, etypes, **{"num_modalities": M, "in_size": IN, "out_size": OUT, **chosen, **options})
        for own in made.bias.values():
            torch.nn.init.normal_(own)
        return made.double()


def plain(name: str) -> Any:
    return layer(name, ["_N"], [ONE])


def plain_graph() -> Any:
    src, dst = PLAIN[ONE]
    return dgl.graph((src, dst), num_nodes=PLAIN_SIZES["_N"])


def plain_states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Node 5 has no edge, node 0 lacks all, node 2 the first modality."""
    h = torch.randn(6, M, IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    present = torch.ones(6, M, dtype=torch.bool)
    present[0] = False
    present[2, 0] = False
    return {"_N": h}, {"_N": present}


def gcn_row(conv: GraphConv, etype: Any, members: list[tuple[int, Tensor]], own: Tensor, m: int, degree: Any) -> Tensor:
    weight, total = conv._matrix(relation_key(etype)).weight[m], torch.zeros(OUT, dtype=torch.float64)
    for j, x in members:
        norm = len(members) if conv.norm == "mean" else math.sqrt(len(members) * degree(j))
        total = total + x @ weight / norm
    return total


def sage_row(conv: SAGEConv, etype: Any, members: list[tuple[int, Tensor]], own: Tensor, m: int, degree: Any) -> Tensor:
    return sum(x for _, x in members) / len(members) @ conv._matrix(relation_key(etype)).weight[m]


def gat_row(conv: GATConv, etype: Any, members: list[tuple[int, Tensor]], own: Tensor, m: int, degree: Any) -> Tensor:
    key, heads = relation_key(etype), []
    for head in range(H):
        weight = conv._matrix(key).weight[m][:, head * OUT // H : (head + 1) * OUT // H]
        a, b = conv.source_scores[key][m, head], conv.own_scores[key][m, head]
        scores = [torch.nn.functional.leaky_relu(a @ (x @ weight) + b @ own, 0.2).exp() for _, x in members]
        heads.append(sum(s * (x @ weight) for s, (_, x) in zip(scores, members, strict=True)) / sum(scores))
    return torch.cat(heads)


ROWS: dict[type, Callable[..., Tensor]] = {GraphConv: gcn_row, SAGEConv: sage_row, GATConv: gat_row}


def node_by_loops(
    conv: Any, h: dict[str, Tensor], present: dict[str, Tensor], edges: Edges, ntype: str, i: int, m: int
) -> tuple[Tensor, bool]:
    incoming = [e for e in conv.canonical_etypes if e[2] == ntype]
    loop = not isinstance(conv, SAGEConv) and [e[0] for e in incoming] == [ntype]
    zero = torch.zeros(IN, dtype=torch.float64)
    own = h[ntype][i, m] if present[ntype][i, m] else zero
    total, count = torch.zeros(OUT, dtype=torch.float64), 0
    for etype in incoming:
        src, dst = edges[etype]
        sources = [j for j, d in zip(src, dst, strict=True) if d == i] + ([i] if loop else [])
        members = [(j, h[etype[0]][j, m]) for j in sources if present[etype[0]][j, m]]
        if members:
            total = total + ROWS[type(conv)](conv, etype, members, own, m, lambda j, s=src: s.count(j) + loop)
            count += 1
    if not loop:
        mine = own @ conv._matrix(node_key(ntype)).weight[m]
        if isinstance(conv, SAGEConv):
            scale = max(count, 1) if conv.relation_reduce == "mean" else 1
            return mine + total / scale + conv.bias[node_key(ntype)][m], bool(present[ntype][i, m]) or count > 0
        total, count = total + mine, count + int(present[ntype][i, m])
    scale = max(count, 1) if conv.relation_reduce == "mean" else 1
    return total / scale + conv.bias[node_key(ntype)][m], count > 0


def by_loops(
    conv: Any, h: dict[str, Tensor], present: dict[str, Tensor], edges: Edges, sizes: Mapping[str, int]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    out, arrived = {}, {}
    for ntype, rows in sizes.items():
        cells = [[node_by_loops(conv, h, present, edges, ntype, i, m) for m in range(M)] for i in range(rows)]
        out[ntype] = torch.stack([torch.stack([value for value, _ in row]) for row in cells])
        arrived[ntype] = torch.tensor([[has for _, has in row] for row in cells])
    return out, arrived


def everything(sizes: Mapping[str, int]) -> dict[str, Tensor]:
    return {t: torch.ones(rows, M, dtype=torch.bool) for t, rows in sizes.items()}


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "all present"])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_equals_its_definition_on_types(name: str, masked: bool) -> None:
    conv, h = layer(name), states(M, IN)
    out, arrived = conv(graph(), h, presence(M) if masked else None)
    expected, has = by_loops(conv, h, presence(M) if masked else everything(SIZES), EDGES, SIZES)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-12)
    assert (arrived is None) == (not masked)
    if masked:
        torch.testing.assert_close(arrived, has)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "all present"])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_equals_its_definition_with_loops(name: str, masked: bool) -> None:
    conv, (h, present) = plain(name), plain_states()
    out, arrived = conv(plain_graph(), h, present if masked else None)
    expected, has = by_loops(conv, h, present if masked else everything(PLAIN_SIZES), PLAIN, PLAIN_SIZES)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-12)
    if masked:
        torch.testing.assert_close(arrived, has)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGMM_BACKEND", "reference")
    conv, (h, present) = plain(name), plain_states()
    names, values = zip(*conv.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        called = torch.func.functional_call(conv, dict(zip(names, parameters, strict=True)), (g, {"_N": x}, present))
        return called[0]["_N"]

    g = plain_graph()
    leaves = [value.detach().clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(run, (h["_N"].clone().requires_grad_(), *leaves), fast_mode=True)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_backends_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for backend in ("reference", "cpu"):
        monkeypatch.setenv("HGMM_BACKEND", backend)
        conv, h = layer(name), {t: x.requires_grad_() for t, x in states(M, IN).items()}
        out, _ = conv(graph(), h, presence(M))
        sum(x.square().sum() for x in out.values()).backward()
        grads = [x.grad for x in (*h.values(), *conv.parameters()) if x.grad is not None]
        found[backend] = [*out.values(), *grads]
    torch.testing.assert_close(found["cpu"], found["reference"], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "all present"])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_full_block_equals_the_graph(name: str, masked: bool) -> None:
    conv, g, h = layer(name), graph(), states(M, IN)
    present = presence(M) if masked else None
    seeds = {"item": torch.tensor([4, 1, 5]), "user": torch.tensor([2])}
    block = full_block(g, seeds)
    rows = {t: block.srcnodes[t].data["_ID"] for t in NTYPES}
    given = {} if name[:3] != "gcn" else {
        "out_degrees": {e: g.out_degrees(etype=e)[rows[e[0]]] for e in ETYPES}
    }  # fmt: skip
    part = conv(
        block, {t: h[t][rows[t]] for t in NTYPES}, present and {t: present[t][rows[t]] for t in NTYPES}, **given
    )
    whole = conv(g, h, present)
    torch.testing.assert_close(part[0], {t: whole[0][t][seeds[t]] for t in NTYPES}, rtol=1e-11, atol=1e-12)
    assert part[1] is None or all(part[1][t].equal(whole[1][t][seeds[t]]) for t in NTYPES)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_what_absent_rows_hold_does_not_matter(name: str) -> None:
    conv, h, present = layer(name), states(M, IN), presence(M)
    broken = {t: x.masked_fill(~present[t].unsqueeze(-1), torch.nan) for t, x in h.items()}
    torch.testing.assert_close(conv(graph(), broken, present)[0], conv(graph(), h, present)[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_one_modality_does_not_see_another(name: str) -> None:
    conv, h = layer(name), states(M, IN)
    out, _ = conv(graph(), h)
    other, _ = conv(graph(), {t: torch.cat([x[:, :1], x[:, 1:] + 1], 1) for t, x in h.items()})
    torch.testing.assert_close({t: x[:, 0] for t, x in other.items()}, {t: x[:, 0] for t, x in out.items()})
    assert not torch.equal(out["item"][:, 1], other["item"][:, 1])


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_without_edges_a_node_is_its_own_neighbour(name: str) -> None:
    conv, (h, present) = plain(name), plain_states()
    out, arrived = conv(dgl.graph(([], []), num_nodes=6), h, present)
    key = node_key("_N") if name.startswith("sage") else relation_key(ONE)
    own = conv._matrix(key)(h["_N"] * present["_N"].unsqueeze(-1)) + conv.bias[node_key("_N")]
    torch.testing.assert_close(out["_N"], own)
    assert arrived["_N"].equal(present["_N"])


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_graph_may_lack_types_and_nodes(name: str) -> None:
    conv = layer(name)
    small = dgl.heterograph({ETYPES[0]: ([], [])}, num_nodes_dict=dict.fromkeys(ETYPES[0][::2], 0))
    out, _ = conv(small, {t: torch.zeros(0, M, IN, dtype=torch.float64) for t in small.ntypes})
    assert {t: tuple(x.shape) for t, x in out.items()} == dict.fromkeys(small.ntypes, (0, M, OUT))


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_only_the_node_types_asked_for_are_updated(name: str) -> None:
    conv, h = layer(name), states(M, IN)
    out, _ = conv(graph(), h, ntypes={"user"})
    torch.testing.assert_close(out, {"user": conv(graph(), h)[0]["user"]}, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_mixed_precision_stays_near_full_precision(name: str) -> None:
    conv, h = layer(name).float(), states(M, IN, dtype=torch.float32)
    full, _ = conv(graph(), h, presence(M))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = conv(graph(), h, presence(M))
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.05, check_dtype=False)
    assert not torch.equal(mixed["item"], full["item"])
    sum(x.float().square().sum() for x in mixed.values()).backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in conv.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gcn", {"in_size": 0}, r"GraphConv, in_size: must be at least 1, got 0"),
        ("sage", {"out_size": -1}, r"SAGEConv, out_size: must be at least 1, got -1"),
        ("gat", {"out_size": 5}, r"GATConv, out_size: must be a multiple of num_heads=2, got 5"),
        ("gat", {"num_heads": 0}, r"GATConv, out_size: must be a multiple of num_heads=0, got 4"),
        ("gcn", {"norm": "both"}, r"GraphConv, norm: unknown norm 'both'; known: mean, symmetric"),
        ("sage", {"relation_reduce": "max"}, r"SAGEConv, relation_reduce: unknown relation_reduce 'max'"),
        ("gcn", {"num_modalities": 0}, r"GraphConv, num_modalities: must be at least 1, got 0"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layer(name, **options)


def test_declarations_and_graphs_must_fit() -> None:
    with pytest.raises(SchemaError, match=r"GraphConv, canonical_etypes .*: unknown node type 'shop'"):
        layer("gcn", NTYPES, [("shop", "sells", "item")])
    with pytest.raises(SchemaError, match=r"SAGEConv, graph: unknown node type 'item'"):
        layer("sage", ["user"], [])(graph(), states(M, IN))
    with pytest.raises(SchemaError, match=r"SAGEConv, graph: unknown relation .*'never'"):
        layer("sage", NTYPES, [e for e in ETYPES if e[1] != "never"])(graph(), states(M, IN))
    with pytest.raises(ShapeError, match=r"GATConv, h\['item'\]: expected shape \(6, 2, 3\), got \(6, 2, 5\)"):
        layer("gat")(graph(), states(M, 5))
    with pytest.raises(ShapeError, match=r"GraphConv, present\['item'\]: expected shape \(6, 2\), got \(6, 1\)"):
        layer("gcn")(graph(), states(M, IN), presence(1))


def test_a_block_needs_the_degrees_of_its_sources() -> None:
    conv, block = plain("gcn"), full_block(plain_graph(), {"_N": torch.tensor([1])})
    h = {"_N": torch.zeros(block.num_src_nodes(), M, IN, dtype=torch.float64)}
    with pytest.raises(ConfigError, match=r"GraphConv, out_degrees: a block does not tell them, got None"):
        conv(block, h)
    with pytest.raises(ShapeError, match=r"GraphConv, out_degrees\[.*\]: expected shape \(3,\), got \(1,\)"):
        conv(block, h, out_degrees={ONE: torch.ones(1)})
    with pytest.raises(ShapeError, match=r"GraphConv, out_degrees\[.*\]: expected shape \(3,\), got nothing"):
        conv(block, h, out_degrees={})


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_it_says_its_sizes(name: str) -> None:
    assert f"num_modalities={M}, in_size={IN}, out_size={OUT}" in repr(layer(name))
