"""Batches of target nodes: the whole graph in one, or neighbour-sampled blocks; the loop cannot tell them apart.

A batch depends on nothing but the seed, the epoch and its number, so an interrupted epoch goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from hgmm.dgl_compat import dgl, one_thread
from hgmm.graph import MultimodalGraph
from hgmm.training.config import TrainConfig

__all__ = [
    "Batch",
    "FullGraphLoader",
    "Loader",
    "NeighborLoader",
    "make_loader",
    "move_block",
    "place_graph",
    "prepare_graph",
    "stream_seed",
]


class Batch(NamedTuple):
    """One step's input.

    Attributes
    ----------
    inputs : tuple
        Positional arguments of the model: ``(graph, nodes)``, or ``(blocks,)``.
    target : Tensor
        ``(n,)`` int64 labels of the output rows.
    nodes : Tensor
        ``(n,)`` int64 numbers of the target nodes that the output rows are about.
    """

    inputs: tuple[Any, ...]
    target: Tensor
    nodes: Tensor

    @property
    def num_items(self) -> int:
        """How many of the loader's items the batch is about."""
        return len(self.target)


B_co = TypeVar("B_co", covariant=True)


class Loader(Protocol[B_co]):
    """Gives the batches of an epoch; its length is their number.

    Attributes
    ----------
    num_items : int
        Nodes, or whatever is trained on, in an epoch.
    """

    num_items: int

    def __len__(self) -> int: ...

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[B_co]:
        """Yield the batches of an epoch from number `start` on."""
        ...


def stream_seed(*parts: int) -> int:
    """Mix numbers into a seed in [0, 2**31), the range that DGL takes; different numbers give unrelated seeds."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 33


def move_block(block: Any, device: torch.device) -> Any:
    """Return a graph or block on `device`, or as it is if this DGL is built for the CPU only.

    A model that runs on CUDA with a graph in main memory moves features and index tensors itself, as hgmm's do.
    """
    try:
        return block.to(device)
    except dgl.DGLError as error:
        if "cuda" in str(error).lower():
            return block
        raise


def place_graph(graph: MultimodalGraph, device: torch.device) -> MultimodalGraph:
    """Return a graph on `device` where that is needed and this DGL can do it, else the graph itself."""
    if graph.g.device.type == device.type:
        return graph
    return graph if move_block(graph.g, device) is graph.g else graph.to(device)


def prepare_graph(model: nn.Module, graph: MultimodalGraph) -> MultimodalGraph:
    """Return what the model's ``prepare`` makes of a graph before it is batched; the graph itself if it has none."""
    prepare: Callable[[MultimodalGraph], MultimodalGraph] | None = getattr(model, "prepare", None)
    return graph if prepare is None else prepare(graph)


class FullGraphLoader:
    """One batch: the whole graph, with output for the given nodes.

    Parameters
    ----------
    graph : MultimodalGraph
        The graph, on `device` where DGL allows it.
    nodes : Tensor
        ``(n,)`` target nodes.
    device : torch.device
        Where the model is.
    """

    def __init__(self, graph: MultimodalGraph, nodes: Tensor, *, device: torch.device) -> None:
        self.num_items = len(nodes)
        nodes = nodes.to(graph.g.device)
        self._batch = Batch((graph.g, nodes), graph.labels[nodes].to(device), nodes.to(device))

    def __len__(self) -> int:
        return 1

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batch, unless it is done already."""
        if start == 0:
            yield self._batch


class NeighborLoader:
    """Batches of target nodes with sampled neighbourhoods, as DGL's message-flow blocks.

    Parameters
    ----------
    graph : MultimodalGraph
        The graph, in main memory.
    nodes : Tensor
        ``(n,)`` target nodes.
    batch_size : int
        Target nodes a batch; the last batch may have fewer.
    fanouts : sequence of int
        In-neighbours for a node and relation, one number a layer; -1 = all.
    seed : int
        Seed of order and neighbours.
    shuffle : bool
        Whether the order differs from epoch to epoch; if not, it is that of `nodes`.
    device : torch.device
        Where the blocks shall be.
    """

    def __init__(
        self,
        graph: MultimodalGraph,
        nodes: Tensor,
        *,
        batch_size: int,
        fanouts: tuple[int, ...],
        seed: int,
        shuffle: bool,
        device: torch.device,
    ) -> None:
        self.num_items = len(nodes)
        self._graph = graph
        self._nodes = nodes.cpu()
        self._batch_size = batch_size
        self._sampler = dgl.dataloading.NeighborSampler(list(fanouts))
        self._seed = seed
        self._shuffle = shuffle
        self._device = device

    def __len__(self) -> int:
        return math.ceil(self.num_items / self._batch_size)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        nodes = self._nodes
        if self._shuffle:
            generator = torch.Generator().manual_seed(stream_seed(self._seed, epoch))
            nodes = nodes[torch.randperm(len(nodes), generator=generator)]
        target = self._graph.target
        labels = self._graph.labels
        for step, chosen in enumerate(torch.split(nodes, self._batch_size)):
            if step < start:
                continue
            # DGL's random state cannot be saved; a seed for each step makes saving it needless.
            with one_thread():
                dgl.seed(stream_seed(self._seed, epoch, step))
                _, _, blocks = self._sampler.sample(self._graph.g, {target: chosen})
            moved = [move_block(block, self._device) for block in blocks]
            yield Batch((moved,), labels[chosen].to(self._device), chosen.to(self._device))


def make_loader(
    graph: MultimodalGraph, nodes: Tensor, config: TrainConfig, *, device: torch.device, training: bool
) -> Loader[Batch]:
    """Return the loader that a configuration asks for; outside training it keeps the order and takes all neighbours."""
    if not config.batch_size:
        return FullGraphLoader(graph, nodes, device=device)
    return NeighborLoader(
        graph,
        nodes,
        batch_size=config.batch_size,
        fanouts=config.fanouts if training else (-1,) * len(config.fanouts),
        seed=config.seed,
        shuffle=training,
        device=device,
    )
