from __future__ import annotations

import torch

from hgmm.sampling import NegativeBatch


def test_triples_have_the_entity_at_the_corrupted_end() -> None:
    batch = NegativeBatch(
        torch.tensor([[7, 8]]), torch.tensor([[0, 1]], dtype=torch.int8), torch.ones(1, 2, 1, dtype=torch.bool)
    )
    assert batch.triples(torch.tensor([[1, 2, 3]])).tolist() == [[[7, 2, 3], [1, 2, 8]]]
