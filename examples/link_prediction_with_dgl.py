"""Link prediction in DGL's own loop, on false edges that are none: python examples/link_prediction_with_dgl.py.

Which keywords has an emoji? A tenth of these edges is held out and ranked at the end. Loader, GraphSAGE layers and loop
are DGL's and PyTorch's; of hgmm are the data and the sampler of false edges.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import hgmm.datasets
from hgmm.dgl_compat import dgl
from hgmm.sampling import LinkNegativeSampler

ETYPE, REVERSE = "has_keyword", "keyword_of"
MODALITIES = ("text", "image", "numeric")


class Encoder(nn.Module):
    """Two layers of GraphSAGE over all relations, from the sum of a node's projected modalities."""

    def __init__(self, graph, hidden_size=64):
        super().__init__()
        self.modalities = {t: [m for m in MODALITIES if m in graph.nodes[t].data] for t in graph.ntypes}
        widths = {(t, m): graph.nodes[t].data[m].shape[1] for t, own in self.modalities.items() for m in own}
        self.inputs = nn.ModuleDict({f"{t} {m}": nn.Linear(width, hidden_size) for (t, m), width in widths.items()})
        self.layers = nn.ModuleList(
            dgl.nn.HeteroGraphConv({e: dgl.nn.SAGEConv(hidden_size, hidden_size, "mean") for e in graph.etypes})
            for _ in range(2)
        )

    def forward(self, blocks):
        data = {t: blocks[0].srcnodes[t].data for t in self.modalities}
        h = {t: sum(self.inputs[f"{t} {m}"](data[t][m]) for m in own) for t, own in self.modalities.items()}
        for layer, block in zip(self.layers, blocks, strict=True):
            h = layer(block, {t: F.relu(x) for t, x in h.items()})
        return h


def scores(edges, h):
    """Dot product of both ends of each edge."""
    src, dst = edges.edges(etype=ETYPE)
    return (h["emoji"][src] * h["keyword"][dst]).sum(1)


def evaluate(table, whole, held_out):
    """Area under the curve, and mean reciprocal rank of a keyword among those that make a false edge."""
    src, dst = whole.find_edges(held_out, etype=ETYPE)
    true = table[src, dst].unsqueeze(1)
    # Edges of the whole graph are filtered, so none of these is one that was held out.
    ((false_src, false_dst),) = LinkNegativeSampler(10)(whole, {ETYPE: held_out}).values()
    false = table[false_src, false_dst]
    auc = (true > false).float().mean() + (true == false).float().mean() / 2
    others = table.index_put(whole.edges(etype=ETYPE), torch.tensor(-torch.inf))[src]
    rank = 1 + (others > true).sum(1) + (others == true).sum(1) / 2
    return f"AUC {auc:.3f}, MRR {rank.reciprocal().mean():.3f}"


torch.manual_seed(0)
whole = hgmm.datasets.load("emoji").g
held_out, kept = torch.randperm(whole.num_edges(ETYPE)).tensor_split([whole.num_edges(ETYPE) // 10])
# Both directions of an edge have the same number.
train = dgl.remove_edges(dgl.remove_edges(whole, held_out, etype=ETYPE), held_out, etype=REVERSE)
sampler = dgl.dataloading.as_edge_prediction_sampler(
    dgl.dataloading.NeighborSampler([10, 10]),
    exclude="reverse_types",
    reverse_etypes={ETYPE: REVERSE, REVERSE: ETYPE},
    negative_sampler=LinkNegativeSampler(8),
)
eids = {ETYPE: torch.arange(train.num_edges(ETYPE))}
loader = dgl.dataloading.DataLoader(train, eids, sampler, batch_size=1024, shuffle=True)
model = Encoder(train)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(1, 21):
    for _, positive, negative, blocks in loader:
        h = model(blocks)
        loss = F.softplus(-scores(positive, h)).mean() + F.softplus(scores(negative, h)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 0:
        print(f"epoch {epoch}, loss {loss:.3f}")
popularity = train.in_degrees(etype=ETYPE).float().expand(whole.num_nodes("emoji"), -1)
print("popularity of the keyword:", evaluate(popularity, whole, held_out))
with torch.no_grad():
    h = model([train, train])
print("model:", evaluate(h["emoji"] @ h["keyword"].T, whole, held_out))
