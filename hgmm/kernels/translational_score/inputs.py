"""What the implementations of `translational_score` receive."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hgmm.kernels._checks import check_below, describe_tensor

__all__ = ["NORMS", "TranslationalInputs", "check_ids", "sign_words"]

NORMS = ("1", "2", "complex")
# Bits that do not stay in a processor's last cache gain nothing, and they are memory.
_MOST_SIGN_BYTES = 1 << 25


class TranslationalInputs(NamedTuple):
    """The arguments of `translational_score`, checked but for the values of `entity`, `side` and `pairs`."""

    query: Tensor
    table: Tensor
    entity: Tensor
    side: Tensor
    pairs: Tensor
    norm: str

    def __str__(self) -> str:
        return (
            f"query {describe_tensor(self.query)}, table {describe_tensor(self.table)}, "
            f"entity {describe_tensor(self.entity)}, pairs {describe_tensor(self.pairs)}, norm {self.norm}"
        )


def sign_words(inputs: TranslationalInputs) -> int:
    """Return how many int32 the signs of all differences take; 0 where they are not kept.

    The slopes of norm 1 are signs, so the compiled backward pass needs no vectors if it has a bit for each coordinate
    of each distance, and a byte that says whether some difference is 0 or NaN, which has no sign.
    """
    distances = inputs.entity.numel() * inputs.pairs.shape[1]
    words = distances * -(-inputs.query.shape[-1] // 32) + -(-distances // 4)
    return words if inputs.norm == "1" and 4 * words <= _MOST_SIGN_BYTES else 0


def check_ids(
    query: Tensor, table: Tensor, entity: Tensor, side: Tensor, pairs: Tensor, *, where: str = "translational_score"
) -> None:
    """Check that everything that is looked up exists.

    Raises
    ------
    ConfigError
        Naming the argument and the first entry out of range.
    """
    _, S, A, _ = query.shape
    N, M, _ = table.shape
    check_below(f"{where}, argument entity", entity, N, "table.shape[0]; draw ids of rows of table")
    check_below(
        f"{where}, argument side", side, S, "query.shape[1]; 0 stands for a corrupted head, 1 for a corrupted tail"
    )
    check_below(
        f"{where}, argument pairs[..., 0]",
        pairs[..., 0],
        A,
        "query.shape[2]; a pair is (place in query, place in table)",
    )
    check_below(
        f"{where}, argument pairs[..., 1]",
        pairs[..., 1],
        M,
        "table.shape[1]; a pair is (place in query, place in table)",
    )
