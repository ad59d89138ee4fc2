from __future__ import annotations

import subprocess
import sys

import pytest

import hgmm


@pytest.mark.parametrize("name", hgmm.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(hgmm, name) is not None
    assert name in dir(hgmm)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'trainer'; it has: GraphBuilder, .*Trainer"):
        _ = hgmm.trainer


def test_importing_the_package_loads_neither_torch_nor_dgl() -> None:
    code = "import sys, hgmm; print(sorted({'torch', 'dgl', 'pandas'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
