from __future__ import annotations

import pytest
import torch

from hgmm.dgl_compat import dgl
from hgmm.graph import MultimodalGraph
from hgmm.training import TrainConfig
from hgmm.training.loaders import (
    Batch,
    FullGraphLoader,
    NeighborLoader,
    make_loader,
    move_block,
    place_graph,
    prepare_graph,
    stream_seed,
)

CPU = torch.device("cpu")


def sampled(graph: MultimodalGraph, *, shuffle: bool = True, seed: int = 0) -> NeighborLoader:
    return NeighborLoader(graph, graph.train_idx, batch_size=8, fanouts=(1, 2), seed=seed, shuffle=shuffle, device=CPU)


def rows(batch: Batch) -> torch.Tensor:
    return batch.inputs[0][-1].dstnodes["item"].data[dgl.NID]


def same(left: list[Batch], right: list[Batch]) -> bool:
    pairs = [
        (a.edges(etype=etype)[0], b.edges(etype=etype)[0])
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one.inputs[0], two.inputs[0], strict=True)
        for etype in a.canonical_etypes
    ]
    nodes = [(rows(one), rows(two)) for one, two in zip(left, right, strict=True)]
    return all(torch.equal(a, b) for a, b in (*pairs, *nodes))


def test_full_graph_is_one_batch(graph: MultimodalGraph) -> None:
    loader = FullGraphLoader(graph, graph.val_idx, device=CPU)
    (batch,) = loader.batches(3)
    assert (len(loader), loader.num_items) == (1, 30)
    assert batch.inputs[0] is graph.g
    assert torch.equal(batch.inputs[1], graph.val_idx)
    assert torch.equal(batch.target, graph.labels[graph.val_idx])
    assert list(loader.batches(3, start=1)) == []


def test_sampled_batches_hold_every_node_once(graph: MultimodalGraph) -> None:
    loader = sampled(graph)
    batches = list(loader.batches(0))
    assert len(batches) == len(loader) == 4
    assert [len(batch.target) for batch in batches] == [8, 8, 8, 6]
    nodes = torch.cat([rows(batch) for batch in batches])
    assert torch.equal(nodes.sort()[0], graph.train_idx)
    assert torch.equal(torch.cat([batch.target for batch in batches]), graph.labels[nodes])


def test_fanouts_are_those_of_the_layers(graph: MultimodalGraph) -> None:
    first, last = next(sampled(graph).batches(0)).inputs[0]
    assert int(first.in_degrees(etype="bought_by").max()) == 1
    assert int(last.in_degrees(etype="buys").max()) == 2


def test_blocks_carry_the_features(graph: MultimodalGraph) -> None:
    block = next(sampled(graph).batches(0)).inputs[0][0]
    data = block.srcnodes["item"].data
    assert torch.equal(data["text"], graph.features("item")["text"][data[dgl.NID]])


def test_an_epoch_is_the_same_each_time_and_can_be_entered_anywhere(graph: MultimodalGraph) -> None:
    whole = list(sampled(graph).batches(5))
    assert same(whole, list(sampled(graph).batches(5)))
    assert same(whole[2:], list(sampled(graph).batches(5, start=2)))


@pytest.mark.parametrize("other", [{"epoch": 6, "seed": 0}, {"epoch": 5, "seed": 1}])
def test_other_epochs_and_seeds_differ(graph: MultimodalGraph, other: dict[str, int]) -> None:
    there = list(sampled(graph, seed=other["seed"]).batches(other["epoch"]))
    assert not same(list(sampled(graph).batches(5)), there)


def order(loader: NeighborLoader, epoch: int) -> list[int]:
    return torch.cat([rows(batch) for batch in loader.batches(epoch)]).tolist()


def test_order_is_kept_unless_shuffled(graph: MultimodalGraph) -> None:
    kept = sampled(graph, shuffle=False)
    assert order(kept, 0) == order(kept, 1) == graph.train_idx.tolist()
    assert order(sampled(graph), 0) != order(sampled(graph), 1) != graph.train_idx.tolist()


def test_make_loader(graph: MultimodalGraph) -> None:
    config = TrainConfig(batch_size=7, fanouts=(2,))
    assert isinstance(make_loader(graph, graph.val_idx, TrainConfig(), device=CPU, training=True), FullGraphLoader)
    loader = make_loader(graph, graph.val_idx, config, device=CPU, training=False)
    batches = list(loader.batches(0))
    assert torch.equal(torch.cat([rows(batch) for batch in batches]), graph.val_idx)
    assert int(batches[0].inputs[0][0].in_degrees(etype="buys").max()) == 3


def test_stream_seeds_fit_dgl_and_differ() -> None:
    seeds = {stream_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_graph_stays_where_dgl_cannot_move_it(graph: MultimodalGraph) -> None:
    class Block:
        def to(self, device: torch.device) -> object:
            raise dgl.DGLError("Device API cuda is not enabled")

    block = Block()
    assert move_block(block, torch.device("cuda")) is block
    assert place_graph(graph, CPU) is graph


def test_other_errors_of_dgl_are_not_hidden() -> None:
    class Block:
        def to(self, device: torch.device) -> object:
            raise dgl.DGLError("something else")

    with pytest.raises(dgl.DGLError, match="something else"):
        move_block(Block(), torch.device("cuda"))


def test_a_model_may_prepare_its_graph(graph: MultimodalGraph) -> None:
    class Model(torch.nn.Module):
        def prepare(self, graph: MultimodalGraph) -> MultimodalGraph:
            return graph.drop_modalities([])

    assert prepare_graph(torch.nn.Linear(1, 1), graph) is graph
    prepared = prepare_graph(Model(), graph)
    assert isinstance(prepared, MultimodalGraph)
    assert prepared is not graph
