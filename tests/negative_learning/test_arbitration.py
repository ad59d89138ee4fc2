from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels import _segment
from hgmm.negative_learning import UNAVAILABLE, Arbitration, NeighborReference, arbitrate
from tests.negative_learning.cases import C, N, Nodes, P, nodes
from tests.oracles_negative_learning import decide
from tests.tolerances import close

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "weights": {"weights": (0.5, 2.0, 1.5), "margin_temperature": 3.0},
    "delta": {"delta": 0.2},
    "neighbours only": {"weights": (0.0, 0.0, 1.0)},
}


def decision_of(x: Nodes, *, labelled: bool = True, **options: Any) -> Arbitration:
    target = x.target if labelled else None
    return arbitrate(x.logits, x.fused, target, available=x.available, reference=x.reference, **options)


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "label-free"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("block", [1, 1 << 19], ids=["one-row", "all-rows"])
def test_equals_the_definition(
    block: int, options: dict[str, Any], labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    x = nodes()
    decision = decision_of(x, labelled=labelled, **options)
    for i in range(N):
        reference = x.reference.expected[i].tolist() if x.reference.has_neighbors[i] else None
        target = int(x.target[i]) if labelled else None
        wanted = decide(x.logits[i], x.fused[i], target, x.available[i].tolist(), reference, **options)
        assert (int(decision.dominant[i]), decision.pairs[i].tolist()) == wanted[:2]
        for found, values in zip(decision[2:], wanted[2:], strict=True):
            close(found[i], torch.tensor(values, dtype=torch.float64), torch.float64)
    assert decision.pairs.any()


def test_without_a_reference_its_weight_does_not_count() -> None:
    x = nodes()
    bare = arbitrate(x.logits, x.fused, x.target, weights=(1.0, 1.0, 5.0))
    expected = arbitrate(x.logits, x.fused, x.target, weights=(0.5, 0.5, 0.0))
    torch.testing.assert_close(bare.reliability, expected.reliability)
    assert bare.pairs.equal(expected.pairs)


def test_two_branches_follow_the_two_conditions_of_multimodal_negative_learning() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 2, C, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(C, (4000,), generator=generator)
    fused = logits.mean(1)
    decision = arbitrate(logits, fused, target, weights=(1.0, 1.0, 0.0))
    label = target.unsqueeze(1)
    rival = fused.scatter(1, label, -torch.inf).argmax(1, keepdim=True)
    confidence, margin = [], []
    for b in range(2):
        confidence.append(logits[:, b].softmax(1).gather(1, label))
        margin.append(logits[:, b].gather(1, label) - logits[:, b].gather(1, rival))
    first_guides = (confidence[0] > confidence[1]) & (margin[0] > margin[1])
    second_guides = (confidence[0] < confidence[1]) & (margin[0] < margin[1])
    assert decision.pairs.equal(torch.cat([second_guides, first_guides], 1))
    assert 0.5 < decision.pairs.any(1).double().mean() < 1


def test_identical_branches_teach_nobody_and_the_first_is_dominant() -> None:
    x = nodes()
    same = x.logits[:, :1].expand(N, P, C)
    decision = arbitrate(same, x.fused, x.target)
    assert not decision.pairs.any()
    assert decision.dominant.eq(0).all()
    later = torch.ones(N, P, dtype=torch.bool)
    later[:, :2] = False
    assert arbitrate(same, x.fused, x.target, available=later).dominant.eq(2).all()


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "label-free"])
def test_what_an_unavailable_branch_holds_does_not_matter(labelled: bool) -> None:
    x = nodes()
    decision = decision_of(x, labelled=labelled)
    x.logits[~x.available] = torch.nan
    again = decision_of(x, labelled=labelled)
    for found, expected in zip(again, decision, strict=True):
        assert found.equal(expected)
    assert decision.reliability[~x.available].eq(UNAVAILABLE).all()
    assert not decision.pairs[~x.available].any()


def test_a_node_without_branches_has_no_pairs_and_is_not_decided() -> None:
    decision = decision_of(nodes())
    assert decision.decided.tolist() == [False] + [True] * (N - 1)
    assert not decision.pairs[:2].any()
    assert decision.dominant[:2].tolist() == [0, P - 1]
    assert all(x.isfinite().all() for x in decision[2:])


def test_conflicting_conditions_teach_nobody() -> None:
    # The second branch is surer of class 0, the first keeps a wider margin to the rival, class 1.
    logits = torch.tensor([[[2.0, -2.0, 2.0], [2.0, 0.0, -2.0]]])
    decision = arbitrate(logits, torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0]))
    assert (decision.confidence[0, 1] > decision.confidence[0, 0]).item()
    assert (decision.margin[0, 0] > decision.margin[0, 1]).item()
    assert not decision.pairs.any()


def test_an_equal_margin_is_not_a_wider_one() -> None:
    logits = torch.tensor([[[1.0, 0.0, -2.0], [1.0, 0.0, 0.0]]])
    decision = arbitrate(logits, torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0]))
    assert (decision.confidence[0, 0] > decision.confidence[0, 1]).item()
    assert decision.dominant.item() == 0
    assert not decision.pairs.any()


def test_permutations_of_nodes_branches_and_classes() -> None:
    x = nodes()
    decision = decision_of(x)
    moved = decision_of(x.rows(torch.arange(N).flip(0)))
    for found, expected in zip(moved, decision, strict=True):
        assert found.flip(0).equal(expected)
    classes = torch.tensor([3, 0, 4, 1, 2])
    reference = x.reference._replace(expected=x.reference.expected[:, classes])
    turned = decision_of(
        Nodes(x.logits[..., classes], x.fused[:, classes], classes.argsort()[x.target], x.available, reference)
    )
    assert turned.pairs.equal(decision.pairs)
    assert turned.dominant.equal(decision.dominant)
    torch.testing.assert_close(turned.reliability, decision.reliability)
    branches = torch.tensor([2, 0, 3, 1])
    swapped = decision_of(Nodes(x.logits[:, branches], x.fused, x.target, x.available[:, branches], x.reference))
    assert swapped.pairs.equal(decision.pairs[:, branches])
    torch.testing.assert_close(swapped.reliability, decision.reliability[:, branches])


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "label-free"])
def test_the_batch_does_not_matter(labelled: bool) -> None:
    x = nodes(torch.float32)
    decision = decision_of(x, labelled=labelled)
    parts = [decision_of(x.rows(index), labelled=labelled) for index in torch.arange(N).split(7)]
    for name in Arbitration._fields:
        # A vectorised sigmoid rounds the last entries of a tensor in another way than the others.
        torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(decision, name))
    empty = decision_of(x.rows(slice(0, 0)), labelled=labelled)
    assert [tuple(part.shape) for part in empty] == [(0,), *[(0, P)] * 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_computes_in_float32(dtype: torch.dtype) -> None:
    x = nodes(dtype)
    decision = decision_of(x)
    exact = Nodes(x.logits.double(), x.fused.double(), x.target, x.available, x.reference)
    exact.reference = x.reference._replace(expected=x.reference.expected.double())
    assert decision.reliability.dtype == torch.float32
    close(decision.reliability, decision_of(exact).reliability, torch.float32)


def test_nothing_has_a_gradient() -> None:
    x = nodes()
    x.logits.requires_grad_()
    x.fused.requires_grad_()
    assert not any(part.requires_grad for part in decision_of(x))


def test_rows_of_the_dominant_branch() -> None:
    x = nodes()
    decision = decision_of(x)
    rows = decision.of_dominant(x.logits)
    for i, b in enumerate(decision.dominant.tolist()):
        assert rows[i].equal(x.logits[i, b])
    assert decision.of_dominant(decision.margin)[5] == decision.margin[5, decision.dominant[5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": (1.0, -0.5, 1.0)}, r"weights, margin: must be .* at least 0, got -0\.5"),
        (
            {"weights": (1.0, 0.5)},
            r"weights: expected one for each of .*, got \(1\.0, 0\.5\)",
        ),
        ({"weights": (0.0, 0.0, 0.0)}, r"one of confidence, margin, neighborhood must count, got \(0\.0, 0\.0, 0\.0\)"),
        ({"weights": (0.0, 0.0, 1.0), "reference": None}, r"must count without a reference, got \(0\.0, 0\.0, 1\.0\)"),
        ({"margin_temperature": 0.0}, r"margin_temperature: must be .* above 0, got 0\.0"),
        ({"delta": -0.1}, r"delta: must be .* at least 0, got -0\.1"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    x = nodes()
    with pytest.raises(ConfigError, match=message):
        arbitrate(x.logits, x.fused, x.target, **{"reference": x.reference, **options})


@pytest.mark.parametrize("wrong", [-1, C])
def test_targets_outside_the_classes(wrong: int) -> None:
    x = nodes()
    x.target[3] = wrong
    with pytest.raises(ConfigError, match=rf"target: classes lie in \[0, 5\), got {wrong} in row 3"):
        decision_of(x)


def test_wrong_shapes() -> None:
    x = nodes()

    def fails(message: str, logits: Tensor = x.logits, fused: Tensor = x.fused, **given: Any) -> None:
        with pytest.raises(ShapeError, match=message):
            arbitrate(logits, fused, **{"target": x.target, **given})

    fails(r"logits: expected shape \(n, P, C\) .*, got \(40, 5\)", x.fused)
    fails(r"at least one branch .*, got \(40, 0, 5\)", x.logits[:, :0])
    fails(r"two classes, got \(40, 4, 1\)", x.logits[..., :1])
    fails(r"fused_logits: expected shape \(40, 5\), got \(40, 4\)", x.logits, x.fused[:, 1:])
    fails(r"target: expected shape \(40,\), got \(39,\)", target=x.target[1:])
    fails(r"target: expected dtype int64, got int32", target=x.target.int())
    fails(r"available: expected shape \(40, 4\), got \(40, 3\)", available=x.available[:, 1:])
    fails(r"available: expected dtype bool, got uint8", available=x.available.byte())
    expected, has_neighbors = x.reference
    short, shorter = NeighborReference(expected[1:], has_neighbors), NeighborReference(expected, has_neighbors[1:])
    fails(r"reference: expected shape \(40, 5\), got \(39, 5\)", reference=short)
    fails(r"reference: expected shape \(40,\), got \(39,\)", reference=shorter)
