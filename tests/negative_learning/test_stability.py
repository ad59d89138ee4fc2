from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels import _segment
from hgmm.negative_learning import Arbitration, StabilityGate, arbitrate, entropy_stability, posterior_stability
from tests.negative_learning.cases import C, N, Nodes, P, nodes
from tests.oracles_negative_learning import entropy_stability as entropy_oracle
from tests.oracles_negative_learning import jensen_shannon_stability
from tests.tolerances import close

AT_ONCE: dict[str, Any] = {"warmup_epochs": 0, "ramp_epochs": 0}
EVERYBODY = torch.arange(N)
# The state is kept in float32.
STATE_TOLERANCE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}


def decided(x: Nodes) -> Arbitration:
    return arbitrate(x.logits, x.fused, x.target, available=x.available, reference=x.reference)


def epochs(count: int = 9) -> list[Nodes]:
    """Return nodes whose logits drift from epoch to epoch, those of odd ids much faster."""
    first, second = nodes(seed=0), nodes(seed=1)
    step = torch.where(EVERYBODY % 2 > 0, 0.5, 0.005).view(N, 1, 1)
    drifts = [(1 - epoch * step) * first.logits + epoch * step * second.logits for epoch in range(count)]
    return [Nodes(z, first.fused, first.target, first.available, first.reference) for z in drifts]


def run(gate: StabilityGate, seen: list[Nodes], batches: list[Tensor]) -> list[Tensor]:
    """Return the weights of all nodes in each epoch, from calls on batches."""
    weights = []
    for epoch, x in enumerate(seen):
        weight = torch.full((N, P), torch.nan, dtype=torch.float64)
        for ids in batches:
            part = x.rows(ids)
            weight[ids] = gate(decided(part), part.logits, ids, epoch=epoch)
        weights.append(weight)
    return weights


def expected_weights(
    seen: list[Nodes], *, hard: bool, momentum: float, gamma: float, delta: float, temperature: float
) -> list[Tensor]:
    """Do in loops what `StabilityGate` says."""
    average: dict[int, Tensor] = {}
    path: dict[int, list[int]] = {i: [] for i in range(N)}
    weights = []
    for x in seen:
        decision = decided(x)
        weight = torch.zeros(N, P, dtype=torch.float64)
        for i in range(N):
            if not x.available[i].any():
                continue
            dominant = int(decision.dominant[i])
            posterior = x.logits[i, dominant].softmax(0)
            s = jensen_shannon_stability(posterior, average[i]) if i in average else 1.0
            average[i] = momentum * average[i] + (1 - momentum) * posterior if i in average else posterior
            path[i].append(dominant)
            recent = path[i][-6:]
            changes = sum(a != b for a, b in pairwise(recent))
            if decision.margin[i, dominant] <= 0 or (hard and (s < 0.8 or changes > 1)):
                continue
            for b in range(P):
                if decision.pairs[i, b]:
                    lead = float(decision.reliability[i, dominant] - decision.reliability[i, b])
                    weight[i, b] = s**gamma / (1 + math.exp(-(lead - delta) / temperature))
        weights.append(weight)
    return weights


@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("block", [1, 1 << 19], ids=["one-row", "all-rows"])
def test_equals_the_definition(mode: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_segment._BLOCK_ELEMENTS, "cpu", block)
    options: dict[str, Any] = {"momentum": 0.7, "gamma": 1.5, "delta": 0.05, "temperature": 0.2}
    gate = StabilityGate(N, mode=mode, **options, **AT_ONCE)
    seen = epochs()
    expected = expected_weights(seen, hard=mode == "hard", **options)
    for found, wanted in zip(run(gate, seen, [EVERYBODY]), expected, strict=True):
        torch.testing.assert_close(found, wanted, **STATE_TOLERANCE)


def test_the_three_reasons_of_hard_all_occur() -> None:
    soft, hard = (run(StabilityGate(N, mode=m, **AT_ONCE), epochs(), [EVERYBODY]) for m in ("soft", "hard"))
    shut = [(s > 0) & (h == 0) for s, h in zip(soft, hard, strict=True)]
    assert any(x.any() for x in shut)
    assert any(((s > 0) & (h == s)).any() for s, h in zip(soft, hard, strict=True))
    lenient = run(StabilityGate(N, mode="hard", min_stability=0.0, **AT_ONCE), epochs(), [EVERYBODY])
    patient = run(StabilityGate(N, mode="hard", max_changes=9, **AT_ONCE), epochs(), [EVERYBODY])
    assert any(((h == 0) & (x > 0)).any() for h, x in zip(hard, lenient, strict=True))
    assert any(((h == 0) & (x > 0)).any() for h, x in zip(hard, patient, strict=True))


@pytest.mark.parametrize("most", [128, 2**70])
def test_more_changes_than_a_byte_holds_may_be_allowed(most: int) -> None:
    found, wanted = (
        run(StabilityGate(N, mode="hard", max_changes=changes, **AT_ONCE), epochs(), [EVERYBODY])
        for changes in (most, 5)
    )
    assert all(x.equal(y) for x, y in zip(found, wanted, strict=True))
    assert found[-1].any()


def test_a_dominant_branch_that_is_wrong_itself_does_not_teach() -> None:
    x = nodes()
    decision = decided(x)
    weight = StabilityGate(N, **AT_ONCE)(decision, x.logits, EVERYBODY, epoch=0)
    wrong = decision.of_dominant(decision.margin) <= 0
    assert decision.pairs[wrong].any()
    assert weight[wrong].eq(0).all()
    assert (weight[~wrong] > 0).equal(decision.pairs[~wrong])


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_values_do_not_depend_on_the_batches(mode: str) -> None:
    orders = [EVERYBODY], list(EVERYBODY.flip(0).split(7)), [EVERYBODY[::2], EVERYBODY[1::2]]
    whole, *others = (run(StabilityGate(N, mode=mode, **AT_ONCE), epochs(), order) for order in orders)
    for other in others:
        for found, wanted in zip(other, whole, strict=True):
            torch.testing.assert_close(found, wanted, **STATE_TOLERANCE)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_a_node_that_comes_again_in_an_epoch_is_weighed_as_before_and_not_noted_twice(mode: str) -> None:
    once, again = (StabilityGate(N, mode=mode, **AT_ONCE) for _ in range(2))
    for epoch, x in enumerate(epochs()):
        wanted = once(decided(x), x.logits, EVERYBODY, epoch=epoch)
        for _ in range(3):
            assert again(decided(x), x.logits, EVERYBODY, epoch=epoch).equal(wanted)
    for name, value in once.state_dict().items():
        assert again.state_dict()[name].equal(value)


def test_evaluation_mode_only_reads() -> None:
    first, second, third = epochs(3)
    gate = StabilityGate(N, mode="hard", **AT_ONCE)
    gate(decided(first), first.logits, EVERYBODY, epoch=0)
    before = {name: value.clone() for name, value in gate.state_dict().items()}
    gate.eval()
    seen = gate(decided(third), third.logits, EVERYBODY, epoch=1)
    for name, value in gate.state_dict().items():
        assert value.equal(before[name])
    gate.train()
    assert gate(decided(third), third.logits, EVERYBODY, epoch=1).equal(seen)
    assert not gate(decided(second), second.logits, EVERYBODY, epoch=2).equal(seen)


def test_off_leaves_the_ramp_and_keeps_no_state() -> None:
    x = nodes()
    gate = StabilityGate(N, mode="off", warmup_epochs=2, ramp_epochs=4)
    weights = [gate(decided(x), x.logits, EVERYBODY, epoch=epoch) for epoch in (2, 3, 9)]
    for weight, ramp in zip(weights, (0, 0.25, 1), strict=True):
        assert weight.equal(decided(x).pairs * ramp)
    assert gate.state_dict() == {}


def test_ramp() -> None:
    gate = StabilityGate(1)
    assert [gate.ramp(epoch) for epoch in (0, 20, 25, 40, 100)] == [0, 0, 0.25, 1, 1]
    assert [StabilityGate(1, ramp_epochs=0).ramp(epoch) for epoch in (19, 20)] == [0, 1]
    assert StabilityGate(1, warmup_epochs=0, ramp_epochs=0).ramp(0) == 1
    x = nodes()
    gates = (StabilityGate(N, warmup_epochs=0, ramp_epochs=count) for count in (2, 4))
    full, half = (gate(decided(x), x.logits, EVERYBODY, epoch=2) for gate in gates)
    torch.testing.assert_close(half, full / 2)


def test_state_of_some_nodes_only() -> None:
    ids = torch.tensor([30, 3, 8, 15])
    seen = epochs()
    some = StabilityGate(N, node_ids=ids, mode="hard", **AT_ONCE)
    everybody = run(StabilityGate(N, mode="hard", **AT_ONCE), seen, [EVERYBODY])
    for epoch, x in enumerate(seen):
        part = x.rows(ids)
        weight = some(decided(part), part.logits, ids, epoch=epoch)
        torch.testing.assert_close(weight, everybody[epoch][ids])
    assert {len(value) for value in some.state_dict().values()} == {4}


def test_nodes_without_branches_leave_no_trace() -> None:
    x = nodes()
    x.logits[~x.available] = torch.nan
    gate = StabilityGate(N, mode="hard", **AT_ONCE)
    for epoch in range(3):
        assert gate(decided(x), x.logits, EVERYBODY, epoch=epoch).isfinite().all()
    assert gate.memory.part("last_epoch").tolist() == [-1] + [2] * (N - 1)
    assert all(value.isfinite().all() for value in gate.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_resumes_from_its_state(dtype: torch.dtype) -> None:
    seen = epochs()
    gate = StabilityGate(N, mode="hard", average_dtype=dtype, **AT_ONCE)
    for epoch, x in enumerate(seen[:-1]):
        gate(decided(x), x.logits, EVERYBODY, epoch=epoch)
    saved = {name: value.clone() for name, value in gate.state_dict().items()}
    x = seen[-1]
    wanted = gate(decided(x), x.logits, EVERYBODY, epoch=len(seen))
    used = StabilityGate(N, mode="hard", average_dtype=dtype, **AT_ONCE)
    used(decided(x), x.logits, EVERYBODY, epoch=0)
    for other in (StabilityGate(N, mode="hard", average_dtype=dtype, **AT_ONCE), used):
        other.load_state_dict(saved)
        assert other.memory.part("average").dtype == dtype
        assert other(decided(x), x.logits, EVERYBODY, epoch=len(seen)).equal(wanted)
    used.load_state_dict({})
    assert used.state_dict() == {}
    with pytest.raises(RuntimeError, match=r"size mismatch for memory\.last_epoch"):
        StabilityGate(N + 1, mode="hard").load_state_dict(saved)


def test_memory_is_as_documented() -> None:
    x = nodes()
    ids = torch.arange(10)
    per_node = {("soft", torch.float32): 4 * C + 8, ("hard", torch.bfloat16): 2 * C + 8 + 6}
    for (mode, dtype), size in per_node.items():
        gate = StabilityGate(N, node_ids=ids, mode=mode, average_dtype=dtype)
        part = x.rows(ids)
        gate(decided(part), part.logits, ids, epoch=0)
        assert sum(value.nbytes for value in gate.state_dict().values()) == 10 * size
        assert sum(value.nbytes for value in gate.buffers()) == 10 * (size + 8)


def test_entropy_measure_needs_no_average() -> None:
    x, perturbed = nodes(), nodes(seed=1).logits
    decision = decided(x)
    gate = StabilityGate(N, measure="entropy", exponent=0.5, **AT_ONCE)
    weight = gate(decision, x.logits, EVERYBODY, epoch=0, perturbed_logits=perturbed)
    plain = StabilityGate(N, gamma=0.0, **AT_ONCE)(decision, x.logits, EVERYBODY, epoch=0)
    for i in range(2, N):
        b = int(decision.dominant[i])
        torch.testing.assert_close(weight[i], plain[i] * entropy_oracle(x.logits[i, b], perturbed[i, b], 0.5))
    assert set(gate.state_dict()) == {"memory.last_epoch", "memory.stability"}


def test_stability_functions() -> None:
    x, y = nodes().logits[:, 0], nodes(seed=1).logits[:, 0]
    p, q = x.softmax(1), y.softmax(1)
    p[0], q[0] = torch.eye(C, dtype=torch.float64)[:2]
    posterior, entropy = posterior_stability(p, q), entropy_stability(x, y, exponent=2.0)
    for i in range(N):
        close(posterior[i], torch.tensor(jensen_shannon_stability(p[i], q[i]), dtype=torch.float64), torch.float64)
        close(entropy[i], torch.tensor(entropy_oracle(x[i], y[i], 2.0), dtype=torch.float64), torch.float64)
    assert posterior_stability(p.float(), p.float()).eq(1).all()
    assert posterior[0].item() == 0


def test_stability_functions_refuse_what_does_not_fit() -> None:
    x = nodes().logits[:, 0]
    p = x.softmax(1)
    with pytest.raises(ShapeError, match=r"posterior_stability, posterior: expected shape \(n, C\), got \(5,\)"):
        posterior_stability(p[0], p)
    with pytest.raises(ShapeError, match=r"posterior_stability, average: expected shape \(40, 5\), got \(1, 5\)"):
        posterior_stability(p, p[:1])
    with pytest.raises(ShapeError, match=r"entropy_stability, logits: .* at least two classes, got \(40, 1\)"):
        entropy_stability(x[:, :1], x[:, :1])
    with pytest.raises(ShapeError, match=r"entropy_stability, perturbed_logits: expected .*, got \(1, 5\)"):
        entropy_stability(x, x[:1])
    with pytest.raises(ConfigError, match=r"entropy_stability, exponent: must be .* above 0, got -1\.0"):
        entropy_stability(x, x, exponent=-1.0)


def test_no_nodes() -> None:
    x = nodes().rows(slice(0, 0))
    weight = StabilityGate(N, mode="hard")(decided(x), x.logits, torch.arange(0), epoch=0)
    assert weight.shape == (0, P)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_nodes": 0}, "num_nodes: must be .* at least 1, got 0"),
        ({"mode": "firm"}, "unknown mode 'firm'; known: hard, off, soft"),
        ({"measure": "margin"}, "unknown measure 'margin'; known: entropy, posterior"),
        ({"momentum": 1.5}, r"momentum: must be .* at most 1, got 1\.5"),
        ({"gamma": -1.0}, r"gamma: must be .* at least 0, got -1\.0"),
        ({"exponent": 0.0}, r"exponent: must be .* above 0, got 0\.0"),
        ({"delta": -0.5}, r"delta: must be .* at least 0, got -0\.5"),
        ({"temperature": 0.0}, r"temperature: must be .* above 0, got 0\.0"),
        ({"warmup_epochs": -1}, "warmup_epochs: must be .* at least 0, got -1"),
        ({"ramp_epochs": -2}, "ramp_epochs: must be .* at least 0, got -2"),
        ({"min_stability": 1.2}, r"min_stability: must be .* at most 1, got 1\.2"),
        ({"max_changes": -1}, "max_changes: must be .* at least 0, got -1"),
        ({"warmup_epochs": 2.5}, r"warmup_epochs: must be a whole number, got 2\.5"),
        ({"max_changes": 0.5}, r"max_changes: must be a whole number, got 0\.5"),
        ({"window": 0}, "window: must be .* at least 1 and at most 127, got 0"),
        ({"average_dtype": torch.float16}, r"average_dtype: expected torch.float32 .*, got torch\.float16"),
        ({"node_ids": torch.tensor([], dtype=torch.int64)}, "node_ids: expected at least one id, .* got 0 ids"),
        ({"node_ids": torch.tensor([3, 3])}, "node_ids: expected .* distinct, .* got 2 ids, 1 distinct"),
        ({"node_ids": torch.tensor([0, N])}, r"in \[0, 40\), got .* \[0\] to \[40\]"),
        ({"node_ids": torch.tensor([-1, 2])}, r"in \[0, 40\), got .* \[-1\] to \[2\]"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StabilityGate(**{"num_nodes": N, **options})


def test_wrong_node_ids() -> None:
    with pytest.raises(ShapeError, match=r"node_ids: expected shape \(k,\), got \(1, 1\)"):
        StabilityGate(N, node_ids=torch.tensor([[1]]))
    with pytest.raises(ShapeError, match="node_ids: expected dtype int64, got float32"):
        StabilityGate(N, node_ids=torch.tensor([1.0]))


def test_wrong_calls() -> None:
    x = nodes()
    decision = decided(x)

    def call(gate: StabilityGate, logits: Tensor = x.logits, ids: Tensor = EVERYBODY, **given: Any) -> None:
        gate(decision, logits, ids, epoch=0, **given)

    with pytest.raises(ConfigError, match=r"ids: expected ids of nodes with state, 30 of 30, got 30; leave"):
        call(StabilityGate(30))
    with pytest.raises(ConfigError, match="ids: expected ids of nodes with state, 40 of 40, got -1"):
        call(StabilityGate(N), ids=EVERYBODY - 1)
    with pytest.raises(ConfigError, match="ids: expected ids of nodes with state, 39 of 40, got 39"):
        call(StabilityGate(N, node_ids=EVERYBODY[:-1]))
    with pytest.raises(ConfigError, match="ids: each node may come once in a call, got 3 twice"):
        call(StabilityGate(N), ids=EVERYBODY.clone().index_fill_(0, torch.tensor([9]), 3))
    with pytest.raises(ConfigError, match="perturbed_logits: the measure 'entropy' needs them, got None"):
        call(StabilityGate(N, measure="entropy"))
    with pytest.raises(ShapeError, match=r"perturbed_logits: expected shape \(40, 4, 5\), got \(40, 3, 5\)"):
        call(StabilityGate(N, measure="entropy"), perturbed_logits=x.logits[:, 1:])
    with pytest.raises(ShapeError, match=r"decision: expected shape \(39, 4\), got \(40, 4\)"):
        call(StabilityGate(N), logits=x.logits[1:])
    with pytest.raises(ShapeError, match=r"ids: expected shape \(40,\), got \(39,\)"):
        call(StabilityGate(N), ids=EVERYBODY[1:])
    with pytest.raises(ShapeError, match="ids: expected dtype int64, got int32"):
        call(StabilityGate(N), ids=EVERYBODY.int())
    with pytest.raises(ShapeError, match=r"logits: expected shape \(n, P, C\) .*, got \(40, 5\)"):
        call(StabilityGate(N), logits=x.fused)
    with pytest.raises(ConfigError, match=r"epoch: must be .* at least 0, got -1; count epochs from 0"):
        StabilityGate(N)(decision, x.logits, EVERYBODY, epoch=-1)
    gate = StabilityGate(N)
    call(gate)
    with pytest.raises(ShapeError, match="logits: expected C = 5 as in the state, got 4; take a new gate"):
        call(gate, logits=x.logits[..., 1:])


def test_too_many_branches() -> None:
    logits = torch.randn(2, 129, 3, generator=torch.Generator().manual_seed(0))
    decision = arbitrate(logits, logits.mean(1), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="at most 128 branches, whose number is kept in a byte, got 129"):
        StabilityGate(2)(decision, logits, torch.arange(2), epoch=0)
    most = arbitrate(logits[:, :128], logits.mean(1), torch.tensor([0, 1]))
    assert StabilityGate(2)(most, logits[:, :128], torch.arange(2), epoch=0).shape == (2, 128)


def test_print() -> None:
    assert "mode='hard', measure='posterior'" in repr(StabilityGate(3, mode="hard"))
