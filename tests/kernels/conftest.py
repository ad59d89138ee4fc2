from __future__ import annotations

import os
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hgmm.kernels import _triton
from tests.kernels.against_reference import use_isa


@pytest.fixture(params=["portable", "avx2"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with each of the compiled libraries."""
    name: str = request.param
    use_isa(name, monkeypatch)
    return name


@pytest.fixture
def triton() -> None:
    """Skip where there is no Triton, unless there must be one."""
    reason = _triton.missing_reason()
    if reason is not None:
        assert os.environ.get("HGMM_REQUIRE_NATIVE") != "1", reason
        pytest.skip(reason)


class _Allocations(TorchDispatchMode):
    """Note the size of the largest floating tensor that an operation of torch returns."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.numel = max(self.numel, result.numel())
        return result


@pytest.fixture
def largest_allocation() -> type[_Allocations]:
    return _Allocations
