from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Invoke


def test_the_name_of_a_run_stays_whole_in_a_narrow_terminal(
    hgmm: Invoke, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(trained).rename("runs/emoji-hgnn-ima-20261122-142513")
    monkeypatch.setenv("COLUMNS", "90")
    assert "emoji-hgnn-ima-20261122-142513" in hgmm("runs").output.split()
