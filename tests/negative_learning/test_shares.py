from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError, ShapeError
from hgmm.negative_learning import Arbitration, arbitrate, shares_of_counts, transfer_counts, transfer_shares
from tests.negative_learning.cases import C, N, Nodes, P, nodes


def decided(x: Nodes) -> Arbitration:
    return arbitrate(x.logits, x.fused, x.target, available=x.available, reference=x.reference)


def test_equals_the_definition() -> None:
    x = nodes()
    decision = decided(x)
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(N, P, generator=generator) * (torch.rand(N, P, generator=generator) < 0.7) * decision.pairs
    inferior = others = agreeing = couples = right = decided_nodes = transfers = harmful = 0
    gates = []
    for i in range(N):
        has = [b for b in range(P) if x.available[i, b]]
        says = {b: int(x.logits[i, b].argmax()) for b in has}
        others += max(0, len(has) - 1)
        couples += sum(a != b for a in has for b in has)
        agreeing += sum(a != b and says[a] == says[b] for a in has for b in has)
        dominant = int(decision.dominant[i])
        if has:
            decided_nodes += 1
            right += says[dominant] == int(x.target[i])
        for b in range(P):
            if decision.pairs[i, b]:
                inferior += 1
                gates.append(float(weight[i, b]))
                transfers += int(weight[i, b] > 0)
                wrong_over_right = says[dominant] != x.target[i] and says[b] == x.target[i]
                harmful += int(weight[i, b] > 0 and wrong_over_right)
    found = transfer_shares(decision, weight, x.logits, x.target, available=x.available)
    assert found == pytest.approx(
        {
            "inferior": inferior / others,
            "gate": sum(gates) / inferior,
            "agreement": agreeing / couples,
            "dominant_accuracy": right / decided_nodes,
            "harmful": harmful / transfers,
        }
    )
    assert all(0 < found[name] < 1 for name in found if name != "harmful")


def test_harmful_transfers() -> None:
    # The first branch is surer of class 0, but takes class 2 for likelier; the second is right.
    logits = torch.tensor([[[2.0, 0.0, 2.2], [0.5, 0.0, 0.4]]])
    target = torch.tensor([0])
    decision = arbitrate(logits, torch.tensor([[1.0, 0.5, 0.0]]), target)
    assert decision.pairs.tolist() == [[False, True]]
    found = transfer_shares(decision, decision.pairs.float(), logits, target)
    assert (found["harmful"], found["dominant_accuracy"], found["agreement"]) == (1, 0, 0)
    assert transfer_shares(decision, torch.zeros(1, 2), logits, target)["harmful"] == 0


def test_nothing_to_take_a_share_of() -> None:
    x = nodes()
    nothing = torch.zeros_like(x.available)
    x.available = nothing
    found = transfer_shares(decided(x), torch.zeros(N, P), x.logits, x.target, available=nothing)
    assert set(found.values()) == {0.0}


def test_wrong_arguments() -> None:
    x = nodes()
    decision, weight = decided(x), torch.zeros(N, P)
    with pytest.raises(ShapeError, match=r"^transfer_shares, logits: expected shape \(n, P, C\) .*, got \(40, 5\)"):
        transfer_shares(decision, weight, x.fused, x.target)
    with pytest.raises(ShapeError, match=r"^transfer_counts, logits: expected shape \(n, P, C\) .*, got \(40, 5\)"):
        transfer_counts(decision, weight, x.fused, x.target)
    with pytest.raises(ShapeError, match=r"decision: expected shape \(39, 4\), got \(40, 4\)"):
        transfer_shares(decision, weight, x.logits[1:], x.target)
    with pytest.raises(ShapeError, match=r"weight: expected shape \(40, 4\), got \(40, 3\)"):
        transfer_shares(decision, weight[:, 1:], x.logits, x.target)
    with pytest.raises(ShapeError, match=r"available: expected shape \(40, 4\), got \(39, 4\)"):
        transfer_shares(decision, weight, x.logits, x.target, available=x.available[1:])
    with pytest.raises(ShapeError, match=r"target: expected shape \(40,\), got \(39,\)"):
        transfer_shares(decision, weight, x.logits, x.target[1:])
    x.target[7] = C
    with pytest.raises(ConfigError, match=r"target: classes lie in \[0, 5\), got 5 in row 7"):
        transfer_shares(decision, weight, x.logits, x.target)


def test_counts_of_batches_add_up() -> None:
    x = nodes()
    decision = decided(x)
    weight = decision.pairs * 0.25

    def counts(rows: slice) -> torch.Tensor:
        part = x.rows(rows)
        return transfer_counts(decided(part), weight[rows], part.logits, part.target, available=part.available)

    total = counts(slice(0, 7)) + counts(slice(7, 30)) + counts(slice(30, None))
    assert total.equal(counts(slice(None)))
    assert shares_of_counts(total) == transfer_shares(decision, weight, x.logits, x.target, available=x.available)
