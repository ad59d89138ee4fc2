from __future__ import annotations

import pytest
import torch

from hgmm.errors import ConfigError
from hgmm.training.devices import peak_memory_mib, reset_peak_memory, usable_device

CPU = torch.device("cpu")


def test_the_processor_is_always_there() -> None:
    assert usable_device("cpu") == CPU
    assert usable_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=rf"train.device: '{name}' is asked for and torch sees 0 GPUs"):
        usable_device(name)


def test_peak_memory_holds_at_least_what_is_held() -> None:
    reset_peak_memory(CPU)
    held = torch.ones(2**23)
    assert peak_memory_mib(CPU) > held.numel() * 4 / 2**20
    assert peak_memory_mib(CPU) < 2**24
