from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hgmm import files
from hgmm.errors import DataError
from hgmm.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
)


def checkpoint(number: int, *, best_epoch: int = 0) -> Checkpoint:
    tensors = {"model/w": torch.full((3,), float(number))}
    return Checkpoint({"epoch": number}, tensors, best_epoch, {"w": torch.full((3,), float(best_epoch))})


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint") is None


def test_the_last_one_is_read_and_the_others_are_gone(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(number, best_epoch=number // 2), number=number)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == 3
    assert found[0].progress == {"epoch": 3}
    assert float(found[0].tensors["model/w"][0]) == 3.0
    assert (found[0].best_epoch, float(found[0].best["w"][0])) == (1, 1.0)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"state.json", "state-00000003.safetensors", "best-000001.safetensors"}


class Killed(BaseException):
    """Stands for a process that ends in the middle of things."""


@pytest.mark.parametrize("moment", range(6))
@pytest.mark.parametrize("half_written", [False, True])
def test_killed_at_any_moment_a_whole_checkpoint_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, half_written: bool
) -> None:
    save_checkpoint(tmp_path, checkpoint(1, best_epoch=1), number=1)
    writes = 0
    write, unlink = files.write_atomically, Path.unlink

    def count() -> bool:
        nonlocal writes
        writes += 1
        return writes > moment

    def write_or_die(path: Path, fill: Any) -> None:
        if count():
            if half_written:
                path.with_name(f".{path.name}.0.tmp").write_bytes(b"half")
            raise Killed
        write(path, fill)

    def unlink_or_die(path: Path, missing_ok: bool = False) -> None:
        if ".tmp" not in path.name and count():
            raise Killed
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(files, "write_atomically", write_or_die)
    monkeypatch.setattr(Path, "unlink", unlink_or_die)
    died = False
    try:
        save_checkpoint(tmp_path, checkpoint(2, best_epoch=2), number=2)
    except Killed:
        died = True
    monkeypatch.undo()
    assert died is (moment < 5)
    found = load_checkpoint(tmp_path)
    assert found is not None
    number = found[1]
    assert number == (1 if moment < 3 else 2)
    assert found[0].progress == {"epoch": number}
    assert float(found[0].tensors["model/w"][0]) == float(found[0].best["w"][0]) == number
    save_checkpoint(tmp_path, checkpoint(3, best_epoch=2), number=3)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"state.json", "state-00000003.safetensors", "best-000002.safetensors"}


def test_another_format(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), number=1)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"format_version": 99}))
    with pytest.raises(DataError, match="format_version must be 1, got 99"):
        load_checkpoint(tmp_path)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), number=1)
    (tmp_path / "state-00000001.safetensors").unlink()
    with pytest.raises(DataError, match=r"state-00000001.safetensors: there is no such file"):
        load_checkpoint(tmp_path)


def test_random_states_come_back(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.standard_normal()), float(torch.randn(1))  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    random.gauss(0, 1)
    np.random.standard_normal()  # noqa: NPY002 - leaves a cached second number behind
    data, tensors = random_state()
    expected = draw()
    draw()
    restore_random_state(json.loads(json.dumps(data)), tensors)
    assert draw() == expected


def test_optimizer_goes_on_as_if_nothing_had_been() -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, value: float) -> None:
        optimizer.zero_grad()
        model(torch.full((1, 2), value)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    unused = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([unused, *model.parameters()], lr=0.1)
    step(model, optimizer, 1.0)
    copy = nn.Linear(2, 2)
    copy.load_state_dict(model.state_dict())
    other = torch.optim.AdamW([nn.Parameter(torch.zeros(1)), *copy.parameters()], lr=0.1)
    restore_optimizer(other, {name: value.clone() for name, value in optimizer_tensors(optimizer).items()})
    step(model, optimizer, 2.0)
    step(copy, other, 2.0)
    assert torch.equal(model.weight, copy.weight)
    assert "0.step" not in optimizer_tensors(optimizer)
