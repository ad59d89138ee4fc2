from __future__ import annotations

import numpy as np
import torch

from hgmm.dgl_compat import dgl
from hgmm.graph.hashing import mix64
from hgmm.graph.structure import id_noise, structure_features


def test_noise_belongs_to_the_id_not_to_the_row() -> None:
    one = id_noise(["a", "b", "c"], seed=0, width=16)
    assert torch.equal(id_noise(["c", "x", "a"], seed=0, width=16)[[2, 0]], one[[0, 2]])
    assert not torch.equal(id_noise(["a"], seed=1, width=16)[0], one[0])
    assert id_noise([], seed=0, width=4).shape == (0, 4)


def test_noise_is_standard_normal() -> None:
    noise = id_noise([str(number) for number in range(20_000)], seed=3, width=4)
    assert torch.isfinite(noise).all()
    torch.testing.assert_close(noise.mean(0), torch.zeros(4), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(noise.T), torch.eye(4), atol=0.04, rtol=0)
    assert 0.04 < float((noise.abs() > 2).float().mean()) < 0.051


def test_degrees_come_before_the_noise() -> None:
    g = dgl.heterograph(
        {("a", "to", "b"): ([0, 0, 1], [0, 1, 1]), ("a", "knows", "a"): ([0, 1], [1, 1])},
        num_nodes_dict={"a": 2, "b": 3},
    )
    columns = {etype: index for index, etype in enumerate(g.canonical_etypes)}
    features = structure_features(g, "a", ["x", "y"])
    assert features.shape == (2, 2 + 16)
    torch.testing.assert_close(features[:, columns["a", "to", "b"]], torch.tensor([2.0, 1.0]).log1p())
    torch.testing.assert_close(features[:, columns["a", "knows", "a"]], torch.tensor([0.0, 2.0]).log1p())
    assert torch.equal(features[:, 2:], id_noise(["x", "y"], seed=0, width=16))
    assert structure_features(g, "b", ["x", "y", "z"]).shape == (3, 1 + 16)


def test_a_type_without_relations_has_noise_only() -> None:
    g = dgl.heterograph({("a", "to", "a"): ([0], [0])}, num_nodes_dict={"a": 1, "b": 2})
    assert torch.equal(structure_features(g, "b", ["x", "y"]), id_noise(["x", "y"], seed=0, width=16))


def test_mix64_is_the_finaliser_of_splitmix64() -> None:
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        states = np.arange(1, 4, dtype=np.uint64) * golden
    # The first outputs of SplitMix64 seeded with 0.
    assert [hex(word) for word in mix64(states).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]
