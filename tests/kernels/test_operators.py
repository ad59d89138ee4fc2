"""Each operator has its pieces, all under one stem."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks._layers import LAYERS
from benchmarks._operators import OPERATORS as TIMED
from benchmarks.translational_score import OP
from hgmm import kernels, nn, settings
from hgmm.kernels import OPERATORS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KERNELS = REPOSITORY / "hgmm" / "kernels"


def test_every_folder_with_a_contract_is_an_operator() -> None:
    assert {path.parent.name for path in KERNELS.glob("*/op.py")} == set(OPERATORS)


def test_every_operator_has_a_benchmark() -> None:
    assert {*TIMED, OP} == set(OPERATORS)


def test_a_layer_with_a_benchmark_is_a_layer() -> None:
    assert LAYERS
    assert {layer.title().replace("_", "") for layer in LAYERS} <= set(nn.__all__)
    assert not set(LAYERS) & set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_has_its_pieces(name: str) -> None:
    module = import_module(f"hgmm.kernels.{name}")
    assert name in module.__all__
    assert name in kernels.__all__
    assert callable(getattr(kernels, name))
    for file in ("op.py", "inputs.py", "reference.py", "autograd.py", "cpu.py", "README.md"):
        assert (KERNELS / name / file).is_file(), file
    for file in (f"test_{name}.py", f"test_cpu_{name}.py"):
        assert (REPOSITORY / "tests" / "kernels" / file).is_file(), file


@pytest.mark.parametrize("name", OPERATORS)
def test_the_names_of_the_backends_are_those_of_the_settings(name: str) -> None:
    assert {backend.name for backend in OPERATORS[name]} == set(settings.BACKENDS) - {"auto"}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_has_an_oracle(name: str) -> None:
    tree = ast.parse((REPOSITORY / "tests" / "oracles.py").read_text(encoding="utf-8"))
    assert f"{name}_oracle" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
