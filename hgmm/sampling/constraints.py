"""Which entities a relation admits as heads and as tails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels._checks import check_axes
from hgmm.sampling.batch import check_entities, check_triples

__all__ = ["TypeConstraints"]


class TypeConstraints(NamedTuple):
    """Lists of candidates: row r holds the heads of relation r, row R + r its tails.

    Attributes
    ----------
    indptr : Tensor
        ``(2 R + 1,)`` int64.
    entities : Tensor
        int64, ascending and distinct within a row. An empty row admits every entity.
    """

    indptr: Tensor
    entities: Tensor

    @classmethod
    def from_triples(cls, triples: Tensor, *, num_entities: int, num_relations: int) -> TypeConstraints:
        """Admit what stands at that place in some triple; a relation without a triple admits every entity.

        Parameters
        ----------
        triples : Tensor
            ``(n, 3)`` int64, in general those of training.
        num_entities, num_relations : int
            Of the knowledge graph.

        Raises
        ------
        ShapeError, ConfigError
            If triples are not of this form or ids out of range.

        Examples
        --------
        >>> import torch
        >>> triples = torch.tensor([[0, 0, 1], [0, 0, 2]])
        >>> TypeConstraints.from_triples(triples, num_entities=4, num_relations=1).entities
        tensor([0, 1, 2])
        """
        where = "TypeConstraints.from_triples"
        check_entities(where, num_entities, num_relations)
        check_triples(where, "triples", triples, num_entities=num_entities, num_relations=num_relations)
        head, relation, tail = triples.unbind(1)
        row = torch.cat([relation, num_relations + relation])
        return cls._from_pairs(row, torch.cat([head, tail]), num_relations, num_entities)

    @classmethod
    def from_lists(
        cls, heads: Sequence[Sequence[int]], tails: Sequence[Sequence[int]], *, num_entities: int
    ) -> TypeConstraints:
        """Admit what is listed, as in OpenKE's ``type_constrain.txt``.

        Parameters
        ----------
        heads, tails : sequence of sequence of int
            Entities by relation; an empty list admits every entity.
        num_entities : int
            Of the knowledge graph.

        Raises
        ------
        ShapeError
            If there are not as many lists of heads as of tails.
        ConfigError
            If ids are out of range.
        """
        where = "TypeConstraints.from_lists"
        R = len(heads)
        if len(tails) != R:
            raise ShapeError(
                f"{where}, tails: expected as many lists as in heads, {R}, got {len(tails)}; give one for each relation"
            )
        check_entities(where, num_entities, R)
        lists = [torch.as_tensor(ids, dtype=torch.int64) for ids in (*heads, *tails)]
        row = torch.arange(2 * R).repeat_interleave(torch.tensor([ids.numel() for ids in lists]))
        entity = torch.cat(lists)
        rows = torch.stack([entity, row % R, entity], 1)
        check_triples(where, "heads and tails", rows, num_entities=num_entities, num_relations=R)
        return cls._from_pairs(row, entity, R, num_entities)

    @classmethod
    def _from_pairs(cls, row: Tensor, entity: Tensor, num_relations: int, num_entities: int) -> TypeConstraints:
        pairs = torch.unique(row * num_entities + entity)
        counts = torch.bincount(pairs // num_entities, minlength=2 * num_relations)
        return cls(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), pairs % num_entities)

    def check(self, where: str, *, num_entities: int, num_relations: int) -> None:
        """Check that the lists are those of a knowledge graph of this size.

        Raises
        ------
        ShapeError
            Naming the tensor.
        ConfigError
            If an entity is out of range, or the rows are not what the class says.
        """
        hint = "two rows a relation"
        check_axes(where, "constraints.indptr", self.indptr, (2 * num_relations + 1,), hint=hint, dtype=torch.int64)
        hint = "one number an entry"
        check_axes(where, "constraints.entities", self.entities, ("n",), hint=hint, dtype=torch.int64)
        lengths, n = self.indptr.diff(), self.entities.numel()
        if int(self.indptr[0]) or int(self.indptr[-1]) != n or bool((lengths < 0).any()):
            raise ConfigError(
                f"{where}, constraints.indptr: must ascend from 0 to the number of entities, {n}, got "
                f"{int(self.indptr[0])} to {int(self.indptr[-1])}; TypeConstraints.from_lists makes both tensors"
            )
        row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        descends = (row.diff() == 0) & (self.entities.diff() <= 0)
        if bool(descends.any()):
            place = int(descends.nonzero()[0]) + 1
            raise ConfigError(
                f"{where}, constraints.entities: must ascend within a row, got {int(self.entities[place - 1])} before "
                f"{int(self.entities[place])} at {place}; TypeConstraints.from_lists sorts them"
            )
        rows = self.entities.new_zeros(n, 3)
        rows[:, 0] = self.entities
        check_triples(where, "constraints.entities", rows, num_entities=num_entities, num_relations=1)
