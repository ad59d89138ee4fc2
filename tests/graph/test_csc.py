from __future__ import annotations

import gc

import pytest
import torch

from hgmm.dgl_compat import dgl
from hgmm.errors import SchemaError
from hgmm.graph import edge_ids, relation_csc
from hgmm.graph.csc import _cache, build_csc


def test_the_example_of_the_record() -> None:
    csc, eids = build_csc(torch.tensor([2, 0, 2]), torch.tensor([0, 1, 1]), num_src=3, num_dst=2)
    assert csc.indptr.tolist() == [0, 1, 3]
    assert csc.indices.tolist() == [2, 0, 2]
    assert csc.indptr_t.tolist() == [0, 1, 1, 3]
    assert csc.indices_t.tolist() == [1, 0, 1]
    assert csc.edge_pos_t.tolist() == [1, 0, 2]
    assert eids.tolist() == [0, 1, 2]
    assert (csc.num_src, csc.num_dst, csc.num_edges) == (3, 2, 3)


@pytest.mark.parametrize(
    ("num_src", "num_dst", "num_edges"), [(1, 1, 0), (5, 3, 40), (20, 1, 30), (1, 20, 30), (0, 4, 0)]
)
def test_rows_and_their_transpose_hold_every_edge(num_src: int, num_dst: int, num_edges: int) -> None:
    generator = torch.Generator().manual_seed(num_edges)
    src = torch.randint(0, max(num_src, 1), (num_edges,), generator=generator)
    dst = torch.randint(0, num_dst, (num_edges,), generator=generator)
    csc, eids = build_csc(src, dst, num_src=num_src, num_dst=num_dst)
    rows = [(int(csc.indices[p]), i) for i in range(num_dst) for p in range(csc.indptr[i], csc.indptr[i + 1])]
    assert sorted(rows) == sorted(zip(src.tolist(), dst.tolist(), strict=True))
    assert rows == sorted(rows, key=lambda edge: (edge[1], edge[0]))
    assert [(int(src[e]), int(dst[e])) for e in eids] == rows
    for j in range(num_src):
        for p in range(csc.indptr_t[j], csc.indptr_t[j + 1]):
            assert rows[csc.edge_pos_t[p]] == (j, int(csc.indices_t[p]))
    assert csc.indptr.dtype == csc.indices.dtype == torch.int32
    assert sorted(csc.edge_pos_t.tolist()) == list(range(num_edges))


def test_a_relation_is_built_once_and_again_when_the_graph_changes() -> None:
    g = dgl.graph(([0, 1], [1, 2]))
    first = relation_csc(g, ("_N", "_E", "_N"))
    assert relation_csc(g, ("_N", "_E", "_N")) is first
    g.add_edges([2], [0])
    second = relation_csc(g, ("_N", "_E", "_N"))
    assert second.num_edges == 3
    assert edge_ids(g, ("_N", "_E", "_N")).tolist() == [2, 0, 1]
    g.add_nodes(1)
    assert relation_csc(g, ("_N", "_E", "_N")).num_dst == 4


def test_equal_counts_hide_no_change() -> None:
    g = dgl.graph(([0, 1], [1, 2]))
    assert relation_csc(g, ("_N", "_E", "_N")).indptr.tolist() == [0, 0, 1, 2]
    g.remove_edges([0])
    g.add_edges([2], [0])
    csc = relation_csc(g, ("_N", "_E", "_N"))
    assert (csc.indptr.tolist(), csc.indices.tolist()) == ([0, 1, 1, 2], [2, 1])


def test_blocks() -> None:
    g = dgl.heterograph({("a", "to", "b"): ([0, 1, 2], [1, 1, 0])})
    block = dgl.to_block(dgl.in_subgraph(g, {"b": torch.tensor([1])}), {"b": torch.tensor([1])})
    csc = relation_csc(block, ("a", "to", "b"))
    assert csc.num_dst == 1
    assert csc.indptr.tolist() == [0, 2]


def test_the_cache_dies_with_the_graph() -> None:
    g = dgl.graph(([0, 1], [1, 2]))
    relation_csc(g, ("_N", "_E", "_N"), device="cpu")
    gc.collect()
    before = len(_cache)
    del g
    gc.collect()
    assert len(_cache) == before - 1


def test_self_loops_are_edges_of_their_own() -> None:
    etype = ("_N", "_E", "_N")
    g = dgl.graph(([0, 1], [1, 2]))
    csc = relation_csc(g, etype, self_loops=True)
    assert (csc.indptr.tolist(), csc.indices.tolist()) == ([0, 1, 3, 5], [0, 0, 1, 1, 2])
    assert relation_csc(g, etype).num_edges == 2
    assert relation_csc(g, etype, self_loops=True) is csc
    block = dgl.to_block(dgl.in_subgraph(g, [2]), [2])
    assert relation_csc(block, etype, self_loops=True).indices.tolist() == [0, 1]


def test_self_loops_need_one_node_type() -> None:
    g = dgl.heterograph({("a", "to", "b"): ([0], [0])})
    with pytest.raises(SchemaError, match=r"relation_csc, self_loops: \('a', 'to', 'b'\) leads from one node type to"):
        relation_csc(g, ("a", "to", "b"), self_loops=True)
