from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hgmm.training import RunRecord
from hgmm.training.checkpoint import load_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = "tests.integration.train_in_process"
TIMES = ("seconds", "peak_memory_mib", "throughput")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", MODULE, *map(str, arguments)]


def epoch_of(folder: Path) -> int:
    state = folder / "checkpoint" / "state.json"
    return int(json.loads(state.read_text())["progress"]["epoch"]) if state.exists() else 0


def kill(folder: Path) -> int:
    """Start a training process, kill it once it has saved an epoch or more, and return how it ended."""
    process = subprocess.Popen(command(folder, "--slow"), cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while epoch_of(folder) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        return process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


def comparable(folder: Path) -> dict[str, Any]:
    """Return the record without times, and without the commit: somebody may commit between two runs."""
    record = RunRecord.load(folder).to_dict()
    return {key: value for key, value in record.items() if key not in (*TIMES, "commit")}


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert kill(killed) == -signal.SIGKILL
    assert RunRecord.load(killed).status == "running"
    assert 3 <= epoch_of(killed) <= 6

    subprocess.run(command(killed, whole), cwd=REPOSITORY, check=True)
    assert RunRecord.load(whole).status == "done"
    assert comparable(killed) == comparable(whole)
    assert (killed / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    found, expected = load_checkpoint(killed / "checkpoint"), load_checkpoint(whole / "checkpoint")
    assert found is not None
    assert expected is not None
    for ours, theirs in ((found[0].tensors, expected[0].tensors), (found[0].best, expected[0].best)):
        assert ours.keys() == theirs.keys()
        assert all(value.equal(theirs[name]) for name, value in ours.items())
