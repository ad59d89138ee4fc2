from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.against_reference import STORAGES, name_of, nan_goes_as_in_the_reference, same_when_compiled, strided
from tests.kernels.on_triton import SHARES, check, same_bits_and_inputs, share_rows, there
from tests.kernels.pairwise import pairwise
from tests.kernels.problems import BAD, DRAWS, TRANSLATIONAL_NORMS, Draws
from tests.kernels.problems import translational_call as call
from tests.kernels.problems import translational_leaves as leaves_of

pytestmark = pytest.mark.usefixtures("triton")
AXES: dict[str, Any] = {
    "norm": TRANSLATIONAL_NORMS,
    "draws": tuple(DRAWS),
    "M": (1, 2, 3),
    "D": (2, 10, 40, 260),
    "P": (1, 2, 3),
    "storage": tuple(STORAGES),
    "index": (torch.int32, torch.int64),
    "contiguous": (True, False),
    "shares": tuple(SHARES),
}


@pytest.mark.parametrize("row", pairwise(AXES), ids=name_of)
def test_equals_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    draws = DRAWS[row["draws"]]
    leaves = leaves_of(draws, row["storage"], M=row["M"], D=row["D"])
    if not row["contiguous"]:
        leaves = [strided(x) for x in leaves]
    check(call(draws, M=row["M"], P=row["P"], norm=row["norm"], index=row["index"]), leaves)


NAN_AXES: dict[str, Any] = {
    "norm": TRANSLATIONAL_NORMS,
    "bad": BAD,
    "shares": tuple(SHARES),
    "leaf": range(2),
}


# The interpreter computes with NumPy, which warns of what this is about.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("row", pairwise(NAN_AXES), ids=name_of)
def test_nan_goes_as_in_the_reference(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share_rows(row["shares"], monkeypatch)
    draws = Draws(3, 9, 4)
    leaves = there(leaves_of(draws, "float32", M=2, D=6))
    run = call(draws, M=2, P=3, norm=row["norm"])
    nan_goes_as_in_the_reference(run, leaves, row["bad"], places=[(row["leaf"], 0)], name="triton")


@pytest.mark.parametrize("norm", TRANSLATIONAL_NORMS)
def test_runs_do_not_change_a_bit_and_inputs_are_not_written(norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(3, 9, 4)
    same_bits_and_inputs(call(draws, M=2, P=3, norm=norm), leaves_of(draws, "float32", M=2, D=6), monkeypatch)


def test_a_compiled_graph_is_whole_and_gives_the_same_bits() -> None:
    leaves = there(leaves_of(DRAWS["one-side"], "float32", M=2, D=6))
    same_when_compiled(call(DRAWS["one-side"], M=2, P=2, norm=2), leaves, "triton")
