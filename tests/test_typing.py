from __future__ import annotations

import pytest
import torch

from hgmm.typing import NodeOutput, RelationCSC


def test_outputs_without_further_terms_cannot_share_one() -> None:
    output = NodeOutput(torch.zeros(1, 2))
    assert not output.aux
    with pytest.raises(TypeError, match="does not support item assignment"):
        output.aux["embedding"] = torch.zeros(1)  # type: ignore[index]
    assert not NodeOutput(torch.zeros(1, 2)).aux


def test_sizes_of_a_relation() -> None:
    csc = RelationCSC(*map(torch.tensor, ([0, 1, 3], [2, 0, 2], [0, 1, 1, 3], [1, 0, 1], [1, 0, 2])))
    assert (csc.num_src, csc.num_dst, csc.num_edges) == (3, 2, 3)
