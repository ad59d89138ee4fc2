"""What a negative sampler returns, and the checks that all of them share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels._checks import check_axes
from hgmm.kernels.negative_sampling import MAX_ENTITIES, MAX_STEP

__all__ = ["HEAD", "TAIL", "NegativeBatch", "check_count", "check_entities", "check_step", "check_triples"]

HEAD, TAIL = 0, 1


class NegativeBatch(NamedTuple):
    """K negatives for each of B positives.

    Attributes
    ----------
    entity : Tensor
        ``(B, K)`` int64: what takes the place of the head or the tail.
    side : Tensor
        ``(B, K)`` int8: 0 if the head is corrupted, 1 if the tail is.
    modality : Tensor
        ``(B, K, M)`` bool, True where a modality of the corrupted end is that of `entity`; in the others it stays the
        positive's. Modality 0 is the structure. It may be a view with stride 0: clone it before writing.
    eligible : Tensor or None
        ``(B, K, L)`` bool: which of the modalities that a `ModalityAwareNegativeSampler` corrupts alone it can corrupt
        here. Only where its `choose` has yet to choose.
    shared : Tensor or None
        ``(C, K)`` int64: what `entity` holds in the rows of a chunk, row c from ``c ceil(B / C)`` on, but for those
        negatives that had to be drawn for their positive alone. None if candidates are not shared.
    """

    entity: Tensor
    side: Tensor
    modality: Tensor
    eligible: Tensor | None = None
    shared: Tensor | None = None

    def triples(self, positives: Tensor) -> Tensor:
        """Return ``(B, K, 3)`` int64 negatives; where only some modalities are corrupted, these modalities' triples.

        Parameters
        ----------
        positives : Tensor
            The ``(B, 3)`` that were sampled for.
        """
        head, relation, tail = positives.unsqueeze(1).expand(*self.entity.shape, 3).unbind(2)
        is_tail = self.side == TAIL
        return torch.stack([head.where(is_tail, self.entity), relation, self.entity.where(is_tail, tail)], 2)


def check_triples(where: str, name: str, triples: Tensor, *, num_entities: int, num_relations: int) -> None:
    """Check form and ranges of triples.

    Raises
    ------
    ShapeError
        If they are not ``(n, 3)`` int64.
    ConfigError
        Naming the first row with an id out of range.
    """
    if not isinstance(triples, Tensor):
        raise ShapeError(
            f"{where}, {name}: expected a torch.Tensor, got {type(triples).__name__}; torch.as_tensor makes one"
        )
    check_axes(where, name, triples, ("n", 3), dtype=torch.int64, hint="rows are (head, relation, tail)")
    ends = triples.new_tensor([num_entities, num_relations, num_entities])
    outside = (triples < 0) | (triples >= ends)
    if not bool(outside.any()):
        return
    row, column = outside.nonzero()[0].tolist()
    what, count = ("relations", num_relations) if column == 1 else ("entities", num_entities)
    raise ConfigError(
        f"{where}, {name}: {what} lie in [0, {count}), got {int(triples[row, column])} in row {row}, "
        f"{tuple(triples[row].tolist())}; rows are (head, relation, tail)"
    )


def check_count(where: str, name: str, value: int, *, low: int = 1, below: int = MAX_ENTITIES) -> None:
    """Check a whole number.

    Raises
    ------
    ConfigError
        If it is not one, or outside [low, below).
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < below:
        raise ConfigError(f"{where}, {name}: must be a whole number in [{low}, {below}), got {value!r}")


def check_entities(where: str, num_entities: int, num_relations: int) -> None:
    """Check the sizes of a knowledge graph; an error as of `check_count`."""
    check_count(where, "num_entities", num_entities)
    check_count(where, "num_relations", num_relations, below=2**30)


def check_step(where: str, seed: int, step: int) -> None:
    """Check what random numbers depend on; an error as of `check_count`."""
    check_count(where, "seed", seed, low=-(2**63), below=2**63)
    check_count(where, "step", step, low=0, below=MAX_STEP)
