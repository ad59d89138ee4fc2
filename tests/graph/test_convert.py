from __future__ import annotations

import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch

from hgmm.dgl_compat import dgl
from hgmm.errors import ConfigError, DataError, SchemaError
from hgmm.graph import (
    MultimodalGraph,
    from_dgl,
    from_networkx,
    from_pyg,
    from_scipy,
    read_folder,
    to_dgl,
    to_networkx,
    to_pyg,
    to_scipy,
)


def assert_same_content(graph: MultimodalGraph, copy: MultimodalGraph) -> None:
    assert set(copy.schema.ntypes) == set(graph.schema.ntypes)
    assert set(copy.schema.canonical_etypes) == set(graph.schema.canonical_etypes)
    assert copy.target == graph.target
    assert copy.schema.classes == graph.schema.classes
    for ntype in graph.schema.ntypes:
        assert copy.node_ids[ntype] == graph.node_ids[ntype]
        features, copied = graph.features(ntype), copy.features(ntype)
        assert set(features) == set(copied)
        for name, values in features.items():
            assert torch.equal(values, copied[name])
            assert graph.schema.modalities[ntype][name].kind == copy.schema.modalities[ntype][name].kind
            columns = [one.schema.modality_names.index(name) for one in (graph, copy)]
            assert torch.equal(graph.present(ntype)[:, columns[0]], copy.present(ntype)[:, columns[1]])
    for etype in graph.schema.canonical_etypes:
        pairs, copied = (torch.stack(one.g.edges(order="eid", etype=etype)).T.tolist() for one in (graph, copy))
        assert sorted(pairs) == sorted(copied)
    assert torch.equal(graph.labels, copy.labels)
    for split in ("train", "val", "test"):
        assert torch.equal(graph.split(split), copy.split(split))


def test_dgl_round_trip(shop: Path) -> None:
    graph = read_folder(shop)
    kinds = {"photo": "image"}
    g = to_dgl(graph)
    copy = from_dgl(g, classes=graph.schema.classes, node_ids=graph.node_ids, kinds=kinds, name="copy")
    assert_same_content(graph, copy)
    g.nodes["item"].data.pop("text")
    assert "text" in graph.g.nodes["item"].data


def test_a_homogeneous_dgl_graph() -> None:
    g = dgl.graph(([0, 1], [1, 2]))
    g.ndata["feat"] = torch.ones(3, 4)
    g.ndata["label"] = torch.tensor([0, 2, 1])
    g.ndata["weight"] = torch.ones(3)
    graph = from_dgl(g)
    assert graph.target == "_N"
    assert graph.schema.classes == ("0", "1", "2")
    assert list(graph.features("_N")) == ["feature"]
    assert graph.schema.modalities["_N"]["feature"].kind == "other"
    assert set(g.ndata) == {"feat", "label", "weight"}


def test_networkx_round_trip(shop: Path) -> None:
    graph = read_folder(shop)
    net = to_networkx(graph)
    assert net.nodes["item", "007"]["label"] == "shoe"
    assert "numeric" not in net.nodes["item", "i3"]
    copy = from_networkx(net)
    assert_same_content(graph, copy)
    assert copy.node_names["item"] == graph.node_names["item"]
    assert copy.name == "shop"


def test_an_undirected_networkx_graph_with_columns(tmp_path: Path) -> None:
    net = nx.Graph()
    net.add_node(1, label="x", title="red", vector=[1, 2], split="train")
    net.add_node(2, label="y", title="")
    net.add_edge(1, 2)
    graph = from_networkx(net, modalities={"node": {"text": "title"}})
    assert graph.schema.modality_names == ("text", "vector")
    assert graph.schema.canonical_etypes == (("node", "edge", "node"),)
    assert graph.present("node").tolist() == [[True, True], [False, False]]
    assert sorted(zip(*map(torch.Tensor.tolist, graph.g.edges()), strict=True)) == [(0, 1), (1, 0)]
    assert graph.train_idx.tolist() == [0]


def test_networkx_vectors_of_different_widths() -> None:
    net = nx.path_graph(3)
    nx.set_node_attributes(net, {0: np.ones(2), 1: torch.ones(3)}, "vector")
    with pytest.raises(DataError, match="attribute 'vector' of 'node': its vectors have different widths: 2, 3"):
        from_networkx(net)


def test_networkx_modalities_of_unknown_types() -> None:
    with pytest.raises(DataError, match=r"modalities: unknown node type 'nod'; known: node. Did you mean 'node'"):
        from_networkx(nx.path_graph(3), modalities={"nod": {"text": "title"}})


@pytest.mark.parametrize("label", [torch.tensor([0.0, float("nan")]), torch.tensor([0, 1], dtype=torch.int32)])
def test_dgl_labels_of_other_types(label: torch.Tensor) -> None:
    g = dgl.graph(([0], [1]))
    g.ndata["label"] = label
    with pytest.raises(SchemaError, match=rf"label: must be \(N,\) int64, got \(2,\) {label.dtype}"):
        from_dgl(g)


def test_scipy_round_trip(shop: Path) -> None:
    graph = read_folder(shop)
    matrices = to_scipy(graph)
    assert matrices["user", "buys", "item"].shape == (3, 9)
    assert matrices["user", "buys", "item"].toarray()[2, 3] == 2
    names = graph.schema.modality_names
    copy = from_scipy(
        matrices,
        features={ntype: graph.features(ntype) for ntype in graph.schema.ntypes},
        present={
            ntype: {name: graph.present(ntype)[:, names.index(name)] for name in graph.features(ntype)}
            for ntype in graph.schema.ntypes
        },
        kinds={"photo": "image"},
        target="item",
        labels=graph.labels.numpy(),
        classes=graph.schema.classes,
        splits={split: graph.split(split).numpy() for split in ("train", "val", "test")},
        node_ids=graph.node_ids,
    )
    assert_same_content(graph, copy)


def test_scipy_formats_and_zeros() -> None:
    matrix = scipy.sparse.csr_array(np.array([[0, 1], [1, 0]]))
    matrix.data[0] = 0
    graph = from_scipy({("a", "to", "a"): matrix}, target="a", labels=np.array([1, 0]))
    assert [ends.tolist() for ends in graph.g.edges()] == [[1], [0]]
    assert graph.schema.classes == ("0", "1")


def test_scipy_matrices_that_do_not_fit() -> None:
    eye = scipy.sparse.eye(3)
    with pytest.raises(SchemaError, match=r"has 4 nodes of type 'a', an earlier matrix has 3"):
        from_scipy({("a", "to", "a"): eye, ("a", "on", "b"): scipy.sparse.eye(4)})
    with pytest.raises(SchemaError, match=r"\('a', 'to', 'a'\) has the weight 0.5; edges carry no weight"):
        from_scipy({("a", "to", "a"): eye * 0.5})
    with pytest.raises(SchemaError, match="features: unknown node type 'c'; known: a"):
        from_scipy({("a", "to", "a"): eye}, features={"c": {"text": np.ones((3, 2))}})
    with pytest.raises(SchemaError, match="splits: unknown split 'dev'; known: test, train, val"):
        from_scipy({("a", "to", "a"): eye}, target="a", labels=np.array([0, 1, 0]), splits={"dev": np.array([0])})


def test_scipy_labels_are_whole_numbers() -> None:
    matrices = {("a", "to", "a"): scipy.sparse.eye(3)}
    assert from_scipy(matrices, target="a", labels=np.array([0, 1, 0], np.uint8)).labels.tolist() == [0, 1, 0]
    with pytest.raises(SchemaError, match=r"labels: must be int64, got torch.float64"):
        from_scipy(matrices, target="a", labels=np.array([0, 1, np.nan]))


def test_pyg_round_trip(shop: Path) -> None:
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    graph = read_folder(shop)
    data = to_pyg(graph)
    assert data.validate()
    assert data["item"].y.tolist() == graph.labels.tolist()
    assert data["user", "buys", "item"].edge_index.shape == (2, 5)
    assert_same_content(graph, from_pyg(data))


def test_a_plain_heterodata() -> None:
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    from torch_geometric.data import Data, HeteroData

    data = HeteroData()
    data["a"].x = torch.ones(2, 3)
    data["a"].y = torch.tensor([0, 1])
    data["a"].train_mask = torch.tensor([True, False])
    data["b"].num_nodes = 1
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1], [0, 0]])
    graph = from_pyg(data, kinds={"x": "text"})
    assert graph.target == "a"
    assert graph.schema.modalities["a"]["x"].kind == "text"
    assert graph.schema.classes == ("0", "1")
    assert graph.train_idx.tolist() == [0]
    with pytest.raises(SchemaError, match="from_pyg data: expected a HeteroData, got Data"):
        from_pyg(Data())


def test_without_torch_geometric(monkeypatch: pytest.MonkeyPatch, small_graph: MultimodalGraph) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(
        ConfigError, match=r"torch_geometric is needed and not installed; run: pip install 'hgmm\[pyg\]'"
    ):
        to_pyg(small_graph)
