from __future__ import annotations

import math

import pytest
import torch
from click.testing import CliRunner

from benchmarks.attention_uniformity import main, measure, skewed_graph, spread_by_degree
from hgmm.dgl_compat import dgl

ETYPE = ("a", "x", "a")


def star(degree: int) -> dgl.DGLGraph:
    return dgl.heterograph({ETYPE: (torch.arange(1, degree + 1), torch.zeros(degree, dtype=torch.int64))})


def test_a_mean_has_no_spread() -> None:
    assert spread_by_degree(star(4), [{ETYPE: torch.full((4, 2), 0.25)}])[0] == pytest.approx(0, abs=1e-7)


def test_spread_is_that_of_the_weights_of_a_bucket() -> None:
    """One neighbour gets all of four: beta * deg is 4, 0, 0, 0, of which the standard deviation is the root of 3."""
    one_hot = torch.tensor([[0.5], [0.0], [0.0], [0.0]])
    first, *others = spread_by_degree(star(4), [{ETYPE: one_hot}])
    assert first == pytest.approx(math.sqrt(3))
    assert all(math.isnan(spread) for spread in others)


def test_sharp_is_far_from_a_mean_and_the_product_is_not() -> None:
    graph = skewed_graph()
    sharp, product = (measure(graph, name, epochs=0, seed=0) for name in ("sharp", "modal2_align"))
    assert max(product) < 0.05
    assert all(a > 10 * b for a, b in zip(sharp, product, strict=True))


def test_command_prints_a_table() -> None:
    result = CliRunner().invoke(main, ["--variant", "sharp", "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "sharp" in result.output
    assert "epoch 1" in result.output
