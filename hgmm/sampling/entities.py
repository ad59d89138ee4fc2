"""Negatives that take another entity in all modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError, ShapeError
from hgmm.kernels.negative_sampling import DrawInputs, KnownTriples, Pools, draw_entities, draw_shared
from hgmm.sampling.batch import NegativeBatch, check_count, check_entities, check_step, check_triples
from hgmm.sampling.constraints import TypeConstraints

__all__ = ["BernoulliNegativeSampler", "EntityNegativeSampler", "UniformNegativeSampler"]


class _Tables(NamedTuple):
    """What draws read, on one device."""

    head_below: Tensor
    known: KnownTriples | None
    pools: Pools | None

    def to(self, device: torch.device) -> _Tables:
        pools = None if self.pools is None else Pools(*(x.to(device) for x in self.pools))
        return _Tables(self.head_below.to(device), None if self.known is None else self.known.to(device), pools)


class EntityNegativeSampler:
    """Replace the head with a probability that depends on the relation, else the tail, by another entity.

    Three specifications are kept apart: which side and which candidates are proposed (`head_share`, `constraints`),
    which triples are refused (`known`), and, in `ModalityAwareNegativeSampler`, in which modalities the entity counts.

    Parameters
    ----------
    head_share : Tensor
        ``(R,)`` probability by relation that the head is corrupted, in [0, 1].
    num_entities : int
        Candidates are ``0 … num_entities - 1``.
    num_negs_per_pos : int, optional
        K, at least 1.
    known : Tensor, optional
        ``(n, 3)`` int64 true triples that no negative may equal: training triples, or those of all splits. Default: no
        filter.
    constraints : TypeConstraints, optional
        Candidates by relation and side. Where all of them are excluded, all entities are candidates.
    num_modalities : int, optional
        M of the masks, structure included.
    relation_names : sequence of str, optional
        For error messages.
    chunk_size : int, optional
        Positives in a row that share their candidates, at least 1; a positive draws its own only where a shared one is
        refused. Scores against what is shared can be matrix products, and a step touches fewer entities.

    Raises
    ------
    ConfigError
        A number or an id is out of range, or there are `constraints`, with which nothing can be shared.
    ShapeError
        A tensor has the wrong shape or dtype.

    Notes
    -----
    The positive's own entity is never drawn, with and without a filter. Every other candidate that makes no known
    triple is equally likely, also where candidates are shared. The filter is exact, and there are always K negatives:
    what is refused is drawn again.

    Tensors may be on any device; `sample` works on that of the positives.
    """

    def __init__(
        self,
        head_share: Tensor,
        num_entities: int,
        num_negs_per_pos: int = 1,
        *,
        known: Tensor | None = None,
        constraints: TypeConstraints | None = None,
        num_modalities: int = 1,
        relation_names: Sequence[str] | None = None,
        chunk_size: int = 1,
    ) -> None:
        self._where = type(self).__name__
        self.num_entities, self.num_relations = num_entities, head_share.numel()
        self.num_negs_per_pos, self.num_modalities = num_negs_per_pos, num_modalities
        self.constraints, self.relation_names, self.chunk_size = constraints, relation_names, chunk_size
        check_entities(self._where, num_entities, self.num_relations)
        check_count(self._where, "num_negs_per_pos", num_negs_per_pos)
        check_count(self._where, "num_modalities", num_modalities)
        check_count(self._where, "chunk_size", chunk_size)
        if constraints is not None and chunk_size > 1:
            raise ConfigError(
                f"{self._where}, chunk_size: candidates by relation cannot be shared, got {chunk_size} with "
                "constraints; leave out one of the two"
            )
        if relation_names is not None and len(relation_names) != self.num_relations:
            raise ShapeError(
                f"{self._where}, relation_names: expected {self.num_relations} names, one a relation, got "
                f"{len(relation_names)}; relation i has name i"
            )
        tables = _Tables(self._thresholds(head_share), self._index(known), self._pools(constraints))
        self._tables = {head_share.device: tables.to(head_share.device)}

    def sample(self, positives: Tensor, *, seed: int, step: int = 0, progress: float = 0.0) -> NegativeBatch:
        """Draw K negatives for each positive.

        Parameters
        ----------
        positives : Tensor
            ``(B, 3)`` int64 rows (head, relation, tail).
        seed : int
            64 bits.
        step : int, optional
            Number of the batch, in [0, 2^32). Equal arguments give equal negatives, on every device and for any number
            of threads.
        progress : float, optional
            Not read here; so that all samplers can be called alike.

        Returns
        -------
        NegativeBatch
            With a mask that is True everywhere.

        Raises
        ------
        ConfigError
            An id or a number is out of range; or every entity makes a known triple, and the message names the relation.
        ShapeError
            If positives are not ``(B, 3)`` int64.
        """
        inputs = self.draw_inputs(positives, seed=seed, step=step)
        drawn = draw_entities(inputs)
        everywhere = drawn.entity.new_ones((), dtype=torch.bool).expand(*drawn.entity.shape, self.num_modalities)
        return NegativeBatch(drawn.entity, drawn.side, everywhere, shared=inputs.first)

    @property
    def pools(self) -> Pools | None:
        """Lists of candidates by side and relation; None if all entities are."""
        return next(iter(self._tables.values())).pools

    def draw_inputs(self, positives: Tensor, *, seed: int, step: int) -> DrawInputs:
        """Check the arguments of `sample` and return what the kernels take."""
        check_triples(
            self._where, "positives", positives, num_entities=self.num_entities, num_relations=self.num_relations
        )
        check_step(self._where, seed, step)
        tables = self._tables_on(positives.device)
        inputs = DrawInputs(
            positives.contiguous(),
            self.num_negs_per_pos,
            tables.head_below,
            self.num_entities,
            self.num_entities,
            tables.pools,
            tables.known,
            seed,
            step,
            relation_names=self.relation_names,
        )
        return inputs if self.chunk_size == 1 else inputs._replace(first=draw_shared(inputs, self.chunk_size))

    def _tables_on(self, device: torch.device) -> _Tables:
        if device not in self._tables:
            self._tables[device] = next(iter(self._tables.values())).to(device)
        return self._tables[device]

    def _thresholds(self, head_share: Tensor) -> Tensor:
        ok = (head_share >= 0) & (head_share <= 1)
        if not bool(ok.all()):
            first = int((~ok).nonzero()[0])
            raise ConfigError(
                f"{self._where}, head_share: probabilities lie in [0, 1], got {float(head_share[first])} for relation "
                f"{first}"
            )
        return (head_share.double() * 2**32).round().long()

    def _index(self, known: Tensor | None) -> KnownTriples | None:
        if known is None:
            return None
        sizes = {"num_entities": self.num_entities, "num_relations": self.num_relations}
        check_triples(self._where, "known", known, **sizes)
        return KnownTriples.build(known, **sizes)

    def _pools(self, constraints: TypeConstraints | None) -> Pools | None:
        if constraints is None:
            return None
        R = self.num_relations
        constraints.check(self._where, num_entities=self.num_entities, num_relations=R)
        rows = torch.arange(2 * R, device=constraints.indptr.device)
        table = torch.where(constraints.indptr.diff() > 0, rows, -1).view(1, 2, R)
        return Pools(table, *constraints)


class UniformNegativeSampler(EntityNegativeSampler):
    """Corrupt head or tail with equal probability; parameters and errors are those of `EntityNegativeSampler`.

    Parameters
    ----------
    num_entities, num_relations : int
        Of the knowledge graph.

    Examples
    --------
    >>> import torch
    >>> from hgmm.sampling import UniformNegativeSampler
    >>> train = torch.tensor([[0, 0, 1], [0, 0, 2], [3, 0, 1]])
    >>> sampler = UniformNegativeSampler(4, 1, 2, known=train)
    >>> batch = sampler.sample(train, seed=0)
    >>> batch.entity.shape, batch.modality.shape
    (torch.Size([3, 2]), torch.Size([3, 2, 1]))
    >>> negatives = batch.triples(train).flatten(0, 1)
    >>> bool((negatives[:, None] == train).all(2).any())
    False
    """

    def __init__(
        self,
        num_entities: int,
        num_relations: int,
        num_negs_per_pos: int = 1,
        *,
        known: Tensor | None = None,
        constraints: TypeConstraints | None = None,
        num_modalities: int = 1,
        relation_names: Sequence[str] | None = None,
        chunk_size: int = 1,
    ) -> None:
        check_entities(type(self).__name__, num_entities, num_relations)
        super().__init__(
            torch.full((num_relations,), 0.5),
            num_entities,
            num_negs_per_pos,
            known=known,
            constraints=constraints,
            num_modalities=num_modalities,
            relation_names=relation_names,
            chunk_size=chunk_size,
        )


class BernoulliNegativeSampler(EntityNegativeSampler):
    """Corrupt more often the side of a relation that has fewer entities by entity of the other side.

    ``P(head) = tph / (tph + hpt)``, with tph the mean number of tails by head of the relation and hpt that of heads by
    tail; 1/2 for a relation without triple. The other parameters and errors are those of `EntityNegativeSampler`.

    Parameters
    ----------
    train : Tensor
        ``(n, 3)`` int64 triples that the means are taken of; repetitions do not count.
    num_entities, num_relations : int
        Of the knowledge graph.

    References
    ----------
    Wang et al., "Knowledge graph embedding by translating on hyperplanes", AAAI 2014, section "Reducing false negative
    labels".
    """

    def __init__(
        self,
        train: Tensor,
        num_entities: int,
        num_relations: int,
        num_negs_per_pos: int = 1,
        *,
        known: Tensor | None = None,
        constraints: TypeConstraints | None = None,
        num_modalities: int = 1,
        relation_names: Sequence[str] | None = None,
        chunk_size: int = 1,
    ) -> None:
        where = type(self).__name__
        check_entities(where, num_entities, num_relations)
        check_triples(where, "train", train, num_entities=num_entities, num_relations=num_relations)
        super().__init__(
            bernoulli_head_share(train, num_entities=num_entities, num_relations=num_relations),
            num_entities,
            num_negs_per_pos,
            known=known,
            constraints=constraints,
            num_modalities=num_modalities,
            relation_names=relation_names,
            chunk_size=chunk_size,
        )


def bernoulli_head_share(train: Tensor, *, num_entities: int, num_relations: int) -> Tensor:
    """Return ``(R,)`` float64 ``tph / (tph + hpt)``, 1/2 for a relation without triple."""
    heads, tails = (
        torch.bincount(torch.unique(train[:, 1] * num_entities + end) // num_entities, minlength=num_relations).double()
        for end in (train[:, 0], train[:, 2])
    )
    # With n distinct triples tph = n / heads and hpt = n / tails.
    return torch.where(heads > 0, tails / (heads + tails).clamp(min=1), 0.5)
