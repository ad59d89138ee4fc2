"""How near two results must be, by dtype, and why.

``close(actual, expected, dtype)`` compares in float64; `dtype` is the one that the operator ran in.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE: dict[torch.dtype, tuple[float, float]] = {
    # Relative and absolute. float64: the algebra itself, some tens of roundings of numbers of order one.
    torch.float64: (1e-11, 1e-12),
    # float32: logits of order ten lose 1e-6 in absolute terms, and exp turns that into a relative error.
    torch.float32: (2e-5, 2e-5),
    # Half precision accumulates in float32; what is left is the rounding of the result: 2^-8 and 2^-11.
    torch.bfloat16: (8e-3, 8e-3),
    torch.float16: (1e-3, 1e-3),
}


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Assert that two tensors agree within the tolerance of `dtype`."""
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol)
