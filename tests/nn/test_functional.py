from __future__ import annotations

import torch

from hgmm.nn import functional
from tests.nn.graphs import EDGES, SIZES, full_block, graph, presence

BUYS = ("user", "buys", "item")


def test_attention_comes_back_in_dgls_edge_order() -> None:
    """Give every source its own key, so that each edge's weight tells the edge."""
    g = graph()
    k = torch.arange(4, dtype=torch.float64).view(4, 1, 1, 1)
    one = torch.ones(6, 1, 1, 1, dtype=torch.float64)
    src, dst = (torch.tensor(ends) for ends in EDGES[BUYS])
    weight = src.double().exp()
    expected = weight / torch.zeros(6, dtype=torch.float64).index_add(0, dst, weight)[dst]
    cross = functional.cross_modal_attention(g, BUYS, k, one, one, k, combine="b1", return_attention=True)
    inter = functional.inter_node_attention(g, BUYS, k, one, k, return_attention=True)
    assert cross.attn is not None
    assert inter.attn is not None
    torch.testing.assert_close(cross.attn[:, 0], expected)
    torch.testing.assert_close(inter.attn[:, 0, 0], expected)


def test_attention_is_left_out_unless_asked_for() -> None:
    g, x = graph(), torch.ones(4, 1, 1, 1)
    assert functional.inter_node_attention(g, BUYS, x, torch.ones(6, 1, 1, 1), x).attn is None


def test_edge_bias_is_in_dgls_edge_order() -> None:
    g, x = graph(), torch.ones(4, 1, 1, 1)
    bias = torch.arange(len(EDGES[BUYS][0]), dtype=torch.float32).view(-1, 1, 1)
    weight, dst = bias.view(-1).exp(), torch.tensor(EDGES[BUYS][1])
    expected = weight / torch.zeros(6).index_add(0, dst, weight)[dst]
    q = torch.ones(6, 1, 1, 1)
    attn = functional.inter_node_attention(g, BUYS, x, q, x, edge_bias=bias, return_attention=True).attn
    assert attn is not None
    torch.testing.assert_close(attn.view(-1), expected)


def test_dropout_is_passed_on() -> None:
    g, x, q = graph(), torch.ones(4, 1, 1, 1), torch.ones(6, 1, 1, 1)
    kept, dropped = (
        functional.inter_node_attention(
            g, BUYS, x, q, x, dropout=dropout, seed=torch.tensor(3), return_attention=True
        ).attn
        for dropout in (0.0, 0.9)
    )
    assert kept is not None
    assert dropped is not None
    assert bool(kept.all())
    assert not bool(dropped.all())


def test_neighbor_sum_and_mean_take_weights_in_dgls_edge_order() -> None:
    g, x = graph(), torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    present = torch.tensor([[True, False], [True, True], [False, False], [True, True]])
    src, dst = (torch.tensor(ends) for ends in EDGES[BUYS])
    weight = torch.arange(1, len(src) + 1, dtype=torch.float64)
    mask = present[src].unsqueeze(-1)
    total = torch.zeros(6, 2, 3, dtype=torch.float64).index_add(0, dst, weight.view(-1, 1, 1) * mask * x[src])
    weights = torch.zeros(6, 2, 1, dtype=torch.float64).index_add(0, dst, weight.view(-1, 1, 1) * mask)
    out = functional.neighbor_sum(g, BUYS, x, present=present, edge_weight=weight)
    torch.testing.assert_close(out, total)
    mean = functional.neighbor_mean(g, BUYS, x, present=present, edge_weight=weight)
    torch.testing.assert_close(mean, total / weights.clamp(min=1))


def test_count_present_neighbors() -> None:
    present = torch.tensor([[True, False], [True, True], [False, False], [True, False]])
    counts = functional.count_present_neighbors(graph(), BUYS, present)
    assert counts.tolist() == [[3, 1], [1, 0], [0, 0], [0, 0], [1, 1], [0, 0]]
    never = functional.count_present_neighbors(graph(), ("user", "never", "item"), present)
    assert never.tolist() == [[0, 0]] * 6


def test_destination_rows_of_a_block_come_first() -> None:
    g = graph()
    block = full_block(g, {"item": torch.tensor([4, 1])})
    x = torch.arange(SIZES["item"])[block.srcnodes["item"].data["_ID"]]
    assert functional.destination_rows(block, "item", x).tolist() == [4, 1]
    assert functional.destination_rows(g, "item", x) is x


def test_masked_softmax() -> None:
    logits = torch.zeros(3, 3)
    present = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    expected = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(functional.masked_softmax(logits, present), expected)
    torch.testing.assert_close(functional.masked_softmax(logits), torch.full((3, 3), 1 / 3))


def test_masked_softmax_has_finite_gradients() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    functional.masked_softmax(logits, presence(2)["item"][2:4])[:, 1].sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
