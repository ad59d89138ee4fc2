"""`CrossModalConv` in a DGL model of your own, on the emoji graph that comes with hgmm.

Run ``python examples/cross_modal_conv_in_your_model.py``. The graph is a plain DGLGraph, the model a plain Module, the
loop a plain loop; nothing but the layer is hgmm's.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import hgmm.datasets
from hgmm.nn import CrossModalConv

MODALITIES = ("text", "image")


class MyModel(nn.Module):
    def __init__(self, graph, target, num_classes, hidden_size=32):
        super().__init__()
        self.target = target
        widths = {t: {m: x.shape[1] for m, x in graph.nodes[t].data.items() if m in MODALITIES} for t in graph.ntypes}
        self.inputs = nn.ModuleDict(
            {f"{t} {m}": nn.Linear(width, hidden_size) for t, own in widths.items() for m, width in own.items()}
        )
        self.hidden_size = hidden_size
        sizes = {"num_modalities": len(MODALITIES), "hidden_size": hidden_size, "num_heads": 4}
        self.convs = nn.ModuleList(CrossModalConv(graph.ntypes, graph.canonical_etypes, **sizes) for _ in range(2))
        self.output = nn.Linear(len(MODALITIES) * hidden_size, num_classes)

    def forward(self, graph):
        h, present = {}, {}
        for t in graph.ntypes:
            h[t] = torch.zeros(graph.num_nodes(t), len(MODALITIES), self.hidden_size)
            present[t] = torch.zeros(graph.num_nodes(t), len(MODALITIES), dtype=torch.bool)
            for m, name in enumerate(MODALITIES):
                if f"{t} {name}" in self.inputs:
                    h[t][:, m] = F.gelu(self.inputs[f"{t} {name}"](graph.nodes[t].data[name]))
                    present[t][:, m] = True
        for conv in self.convs:
            h, present = conv(graph, h, present)
        return self.output(h[self.target].flatten(1))


torch.manual_seed(0)
data = hgmm.datasets.load("emoji")
model = MyModel(data.g, data.target, data.schema.num_classes)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(20):
    loss = F.cross_entropy(model(data.g)[data.train_idx], data.labels[data.train_idx])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
predicted = model.eval()(data.g).argmax(1)
print(f"test accuracy {(predicted == data.labels)[data.test_idx].float().mean():.3f}")
