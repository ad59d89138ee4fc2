"""The Triton kernels in tests: on a GPU if there is one, else in Triton's interpreter on tensors of the processor.

The interpreter takes a second for a hundred edges, so graphs are small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from hgmm.kernels._checks import HALF_DTYPES
from hgmm.typing import RelationCSC
from tests.kernels.against_reference import Results, backend, equals_reference, gradients, random_case
from tests.kernels.cases import CASES, Case, relation

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Degrees around the sizes of tiles, for destinations; sources have about five each.
_DEGREES = (0, 1, 3, 4, 5, 8, 9, 17)
TILES = Case(
    tuple(range(sum(_DEGREES))),
    tuple(i for i, degree in enumerate(_DEGREES) for _ in range(degree)),
    sum(_DEGREES),
    len(_DEGREES),
)
GRAPHS = {
    **{name: CASES[name] for name in ("plain", "parallel-edges", "hub")},
    "random": random_case(12, 9, 40),
    "tiles": TILES._replace(src=tuple(i % 11 for i in TILES.src), num_src=11),
}
# Destination 1 has more edges than a part of a split row.
NAN_CASE = Case((1, 2, 0, 3, 4, 2, 3, 1, 0, 4, 1, 5, 2), (0, 0, 0, *[1] * 9, 2), 6, 4)
EMPTY = [case for name, case in CASES.items() if name.startswith("no-")]
SIZES = {"M": (1, 2, 3, 5, 8), "H": (1, 2), "D": (1, 5, 8, 40)}
# By name: edges above which a row is split, and edges of a program's run.
SHARES = {"whole": (512, 64), "split": (7, 6)}


def share_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread rows over programs as `SHARES` says."""
    from hgmm.kernels import _triton_rows

    longest, work = SHARES[name]
    monkeypatch.setattr(_triton_rows, "LONGEST_ROW", longest)
    monkeypatch.setattr(_triton_rows, "RUN_WORK", work)


def relation_there(case: Case) -> RelationCSC:
    """Return the relation on the device of the kernels."""
    return RelationCSC(*(x.to(DEVICE) for x in relation(case)))


def there(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Move leaves to the device of the kernels."""
    return [x.detach().to(DEVICE).requires_grad_(x.requires_grad) for x in leaves]


def check(run: Callable[..., Results], leaves: Sequence[Tensor], *, factor: float = 1.0) -> None:
    """Compare with the reference: results and every gradient."""
    if leaves[:2][-1].dtype in HALF_DTYPES:
        # Here some rows have one neighbour, so that <grad, out> cancels and only its rounding, times a key, is left.
        factor *= 2
    equals_reference(run, there(leaves), factor=factor, name="triton")


def same_bits_and_inputs(
    run: Callable[..., Results], leaves: Sequence[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that results and gradients do not depend on the runs of rows, and that inputs are not written."""
    from hgmm.kernels import _triton_rows

    leaves = there(leaves)
    copies = [x.detach().clone() for x in leaves]
    found = []
    for work in (1, 64):
        monkeypatch.setattr(_triton_rows, "RUN_WORK", work)
        with backend("triton"):
            result = run(*leaves)
            found.append([*(x for x in result if x is not None), *gradients(result, leaves)])
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(leaves, copies, strict=True))
