"""A model and a graph small enough that a whole run takes a fraction of a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hgmm.dgl_compat import dgl
from hgmm.graph import GraphSchema, ModalitySpec, MultimodalGraph
from hgmm.typing import NodeOutput

ETYPES = (("user", "buys", "item"), ("item", "bought_by", "user"))
CLASSES = ("red", "green", "blue")


class TinyClassifier(nn.Module):
    """Own text, mean of the buyers' features, dropout; one layer, so that it takes a graph or one block."""

    tasks = ("node-classification",)

    def __init__(
        self, schema: GraphSchema, *, hidden_size: int = 8, dropout: float = 0.5, note: str | list[str] = ""
    ) -> None:
        super().__init__()
        self.schema = schema
        self._args = {"hidden_size": hidden_size, "dropout": dropout, "note": note}
        self.item = nn.Linear(schema.widths("item")["text"], hidden_size)
        self.user = nn.Linear(schema.widths("user")["structure"], hidden_size)
        self.norm = nn.BatchNorm1d(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, schema.num_classes)

    def constructor_args(self) -> dict[str, Any]:
        return dict(self._args)

    def forward(self, graph: Any, nodes: Tensor | None = None) -> NodeOutput:
        block = graph[0] if isinstance(graph, list) else graph
        src, dst = block.edges(etype=ETYPES[0], order="eid")
        text = block.dstnodes["item"].data["text"]
        users = self.user(block.srcnodes["user"].data["structure"])
        count = block.num_dst_nodes("item")
        total = torch.zeros(count, users.shape[1]).index_add(0, dst, users[src])
        degree = torch.zeros(count).index_add(0, dst, torch.ones(len(dst))).clamp(min=1)
        h = self.item(text) + total / degree[:, None]
        if nodes is not None:
            h = h[nodes]
        h = self.dropout(torch.relu(self.norm(h)))
        weights = torch.full((len(h), self.schema.num_modalities), 1.0 / self.schema.num_modalities)
        return NodeOutput(self.out(h), aux={"modality_weights": weights, "embedding": h})


def make_graph(*, items: int = 90, users: int = 15, seed: int = 0, width: int = 6) -> MultimodalGraph:
    """Items with a text that hints at their class; a third each for training, validation and test."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(items) % len(CLASSES)
    buyers = torch.randint(users, (3 * items,), generator=generator)
    bought = torch.arange(items).repeat(3)
    g = dgl.heterograph(
        {ETYPES[0]: (buyers, bought), ETYPES[1]: (bought, buyers)}, num_nodes_dict={"item": items, "user": users}
    )
    data = g.nodes["item"].data
    data["text"] = torch.randn(items, width, generator=generator) + 3 * nn.functional.one_hot(label, width)
    data["label"] = label
    order = torch.randperm(items, generator=generator)
    for name, rows in zip(("train", "val", "test"), order.chunk(3), strict=True):
        data[f"{name}_mask"] = torch.zeros(items, dtype=torch.bool).index_fill(0, rows, True)
    schema = GraphSchema(
        ("item", "user"), ETYPES, {"item": {"text": ModalitySpec("text", width)}}, target="item", classes=CLASSES
    )
    ids = {"item": [f"i{n}" for n in range(items)], "user": [f"u{n}" for n in range(users)]}
    names = {"item": [f"item, no. {n}" for n in range(items)]}
    return MultimodalGraph(g, schema, node_ids=ids, node_names=names, name="tiny")
