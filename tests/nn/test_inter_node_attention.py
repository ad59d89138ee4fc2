from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError
from hgmm.nn import CrossModalConv, InterNodeAttention
from tests.nn.graphs import ETYPES, NTYPES, full_block, graph, presence, states

M, F = 2, 6


def layer(attn_dropout: float = 0.0) -> InterNodeAttention:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InterNodeAttention(
            NTYPES, ETYPES, num_modalities=M, hidden_size=F, num_heads=2, dropout=0.0, attn_dropout=attn_dropout
        ).double()


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "all present"])
def test_equals_the_ablation_cross(masked: bool) -> None:
    """Without lambda, cross-modal attention is inter-node attention."""
    own = layer()
    cross = CrossModalConv(
        NTYPES, ETYPES, num_modalities=M, hidden_size=F, num_heads=2, dropout=0.0, combine="cross"
    ).double()
    loaded = cross.load_state_dict(own.state_dict(), strict=False)
    assert all(name.endswith(".modal") for name in loaded.missing_keys)
    assert loaded.unexpected_keys == []
    present = presence(M) if masked else None
    h = states(M, F)
    out = own(graph(), h, present, return_attention=True)
    expected = cross(graph(), h, present, return_attention=True)
    torch.testing.assert_close(out[0], expected[0], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(out[2], expected[2], rtol=1e-11, atol=1e-12)


def test_one_modality_does_not_see_another() -> None:
    h = states(M, F)
    changed = {t: torch.cat([x[:, :1], x[:, 1:] + 1], 1) for t, x in h.items()}
    out, _ = layer()(graph(), h)
    other, _ = layer()(graph(), changed)
    torch.testing.assert_close({t: x[:, 0] for t, x in other.items()}, {t: x[:, 0] for t, x in out.items()})
    assert not torch.equal(out["item"][:, 1], other["item"][:, 1])


def test_a_full_block_equals_the_graph() -> None:
    g, h, seeds = graph(), states(M, F), {"item": torch.tensor([2, 0])}
    block = full_block(g, seeds)
    expected, _ = layer()(g, h)
    out, _ = layer()(block, {t: h[t][block.srcnodes[t].data["_ID"]] for t in NTYPES})
    torch.testing.assert_close(out["item"], expected["item"][seeds["item"]], rtol=1e-12, atol=1e-12)


def test_attention_dropout_is_off_in_evaluation_and_repeats_with_torchs_generator() -> None:
    g, h = graph(), states(M, F)
    plain, own = layer(), layer(0.5)

    def trained(seed: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return own(g, h)[0]["item"]

    first = trained(1)
    assert torch.equal(first, trained(1))
    assert not torch.equal(first, trained(2))
    assert not torch.equal(first, plain(g, h)[0]["item"])
    assert torch.equal(own.eval()(g, h)[0]["item"], plain(g, h)[0]["item"])


def test_dropped_attention_is_zero_and_the_rest_grows() -> None:
    g, h = graph(), states(M, F)
    kept = layer()(g, h, return_attention=True)[2]
    dropped = layer(0.5)(g, h, return_attention=True)[2]
    for etype, attn in dropped.items():
        torch.testing.assert_close(attn, torch.where(attn == 0, 0, 2 * kept[etype]))
    assert any(bool((attn == 0).any()) for attn in dropped.values())


def test_keys_and_values_may_be_stored_in_half() -> None:
    sizes = {"num_modalities": M, "hidden_size": F, "num_heads": 2, "dropout": 0.0}
    stored = InterNodeAttention(NTYPES, ETYPES, **sizes, kv_dtype="bfloat16")
    full = InterNodeAttention(NTYPES, ETYPES, **sizes)
    full.load_state_dict(stored.state_dict())
    h = states(M, F, dtype=torch.float32)
    actual, expected = stored(graph(), h)[0], full(graph(), h)[0]
    assert not torch.equal(actual["item"], expected["item"])
    torch.testing.assert_close(actual, expected, rtol=0.02, atol=0.02)


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"InterNodeAttention, attn_dropout: .* got 1\.5"):
        layer(1.5)
    with pytest.raises(ConfigError, match=r"InterNodeAttention, hidden_size: .* num_heads=4, got 6"):
        InterNodeAttention(NTYPES, ETYPES, num_modalities=M, hidden_size=6, num_heads=4)
