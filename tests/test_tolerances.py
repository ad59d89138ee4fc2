from __future__ import annotations

import pytest
import torch

from tests.tolerances import TOLERANCE, close


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_close_accepts_half_the_tolerance_and_rejects_twice(dtype: torch.dtype) -> None:
    expected = torch.ones(3, dtype=torch.float64)
    rtol, atol = TOLERANCE[dtype]
    close(expected + (rtol + atol) / 2, expected, dtype)
    with pytest.raises(AssertionError, match="not close"):
        close(expected + (rtol + atol) * 2, expected, dtype)


def test_close_rejects_nan() -> None:
    with pytest.raises(AssertionError, match="not close"):
        close(torch.tensor([float("nan")]), torch.tensor([0.0]), torch.float16)
