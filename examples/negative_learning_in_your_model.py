"""Negative learning on the branches of a model of your own: python examples/negative_learning_in_your_model.py.

Here the branches are two Linear layers, one a modality; any tensors of logits (n, P, C) do, and no graph is needed.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import hgmm.datasets
from hgmm.losses import negative_learning_loss
from hgmm.negative_learning import StabilityGate, arbitrate, transfer_shares

torch.manual_seed(0)
data = hgmm.datasets.load("planted-imbalance")
text, image = data.features("item").values()
train, target = data.train_idx, data.labels[data.train_idx]
branches = nn.ModuleList(nn.Linear(x.shape[1], data.schema.num_classes) for x in (text, image))
optimizer = torch.optim.AdamW(branches.parameters(), lr=1e-2)
gate = StabilityGate(data.num_nodes("item"), node_ids=train, warmup_epochs=20, ramp_epochs=20)

for epoch in range(80):
    logits = torch.stack([branch(x[train]) for branch, x in zip(branches, (text, image), strict=True)], 1)
    fused = logits.mean(1)
    decision = arbitrate(logits, fused, target)  # who teaches whom, at each node
    weight = gate(decision, logits, train, epoch=epoch)  # how much
    dominant = decision.of_dominant(logits)
    loss = F.cross_entropy(fused, target) + sum(F.cross_entropy(z, target) for z in logits.unbind(1))
    loss = loss + 0.7 * negative_learning_loss(logits, dominant, target, pairs=decision.pairs, weight=weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

print({name: round(share, 3) for name, share in transfer_shares(decision, weight, logits, target).items()})
fused = torch.stack([branch(x) for branch, x in zip(branches, (text, image), strict=True)], 1).mean(1)
print(f"test accuracy {(fused.argmax(1) == data.labels)[data.test_idx].float().mean():.3f}")
