"""Negatives that take the other entity in one modality only, for a share of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hgmm.errors import ConfigError
from hgmm.kernels._checks import check_axes, check_choice, check_number
from hgmm.kernels.negative_sampling import Pools, draw_entities, draw_sides
from hgmm.sampling.batch import NegativeBatch, check_count
from hgmm.sampling.entities import EntityNegativeSampler

__all__ = ["RULES", "STRATEGIES", "DeliveredShares", "ModalityAwareNegativeSampler"]

STRATEGIES = ("normal", "visual", "two-stage", "hybrid", "adaptive")
"""Which negatives are corrupted in one modality only: MANS-V, -T, -H and -A after ``normal``, which is none of them."""

RULES = ("share", "rows")
"""How ``adaptive`` uses its test: as a share of the negatives, as the released code does, or negative by negative."""


_WHERE = "ModalityAwareNegativeSampler"


class DeliveredShares(NamedTuple):
    """What a sampler has delivered since `ModalityAwareNegativeSampler.reset_delivered`.

    Attributes
    ----------
    negatives : int
        All of them.
    eligible : int
        Those that could be corrupted in one modality only.
    by_modality : tuple of int
        ``M`` counts: those that are; the first, of the structure, is 0.
    """

    negatives: int
    eligible: int
    by_modality: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of the eligible negatives those corrupted in one modality only; 0 if none was eligible."""
        return sum(self.by_modality) / self.eligible if self.eligible else 0.0


class ModalityAwareNegativeSampler:
    r"""Corrupt a share of the negatives in one modality and keep the positive's entity in all others.

    ==============  ==============================================================================
    ``normal``      none
    ``visual``      all eligible ones (MANS-V)
    ``two-stage``   all while less than `share` of the run is done, then none (MANS-T)
    ``hybrid``      `share` of the eligible ones in every batch (MANS-H)
    ``adaptive``    as many as the model's own scores say, see `choose` (MANS-A)
    ==============  ==============================================================================

    A negative is eligible if the corrupted end has one of the modalities in `modality`; the entity is then drawn among
    those that have it, too. All others are corrupted in every modality, and so are those for which every entity with
    the modality is excluded.

    Parameters
    ----------
    base : EntityNegativeSampler
        Proposes and filters: sides, candidates, known triples and K are its.
    presence : Tensor
        ``(num_entities, M)`` bool, True where an entity has a modality; modality 0 is the structure, which all have.
    strategy : str, optional
        A name of the table.
    modality : int or sequence of int, optional
        Modalities that are corrupted alone, in [1, M). With several, those that an end has take turns.
    share : float, optional
        Of ``two-stage`` and ``hybrid``, in [0, 1].
    rule : str, optional
        Of ``adaptive``: ``share`` or ``rows``.

    Raises
    ------
    ConfigError
        A name is unknown or a number out of range, or an entity has no structure.
    ShapeError
        `presence` is not ``(num_entities, M)`` bool.

    Notes
    -----
    Of n eligible negatives exactly ``round(share n)`` are chosen, spread evenly over the batch; the released code takes
    the first ones of a batch, of the same number where K = 1.

    No negative equals its positive: one that is corrupted in one modality differs in that, which both entities have.

    References
    ----------
    Zhang, Chen and Zhang, "Modality-aware negative sampling for multi-modal knowledge graph embedding", IJCNN 2023,
    arXiv 2304.11618, and https://github.com/zjukg/MANS/tree/26b1034, where a missing modality is not known and `share`
    is 0.5 in two-stage training whatever is asked for.

    Examples
    --------
    >>> import torch
    >>> from hgmm.sampling import ModalityAwareNegativeSampler, UniformNegativeSampler
    >>> train = torch.tensor([[0, 0, 1], [1, 0, 2], [2, 0, 3]])
    >>> presence = torch.tensor([[True, True]] * 4)
    >>> base = UniformNegativeSampler(4, 1, 4, known=train)
    >>> sampler = ModalityAwareNegativeSampler(base, presence, strategy="hybrid", share=0.25)
    >>> batch = sampler.sample(train, seed=0)
    >>> (~batch.modality[..., 0]).sum(), batch.modality[..., 1].all()
    (tensor(3), tensor(True))
    >>> sampler.delivered.share
    0.25
    """

    def __init__(
        self,
        base: EntityNegativeSampler,
        presence: Tensor,
        *,
        strategy: str = "hybrid",
        modality: int | Sequence[int] = 1,
        share: float = 0.3,
        rule: str = "share",
    ) -> None:
        check_choice(_WHERE, "strategy", strategy, STRATEGIES)
        check_choice(_WHERE, "rule", rule, RULES)
        check_number(_WHERE, "share", share, low=0, high=1, hint="0.3 is that of the published scripts")
        self.base, self.strategy, self.share, self.rule = base, strategy, share, rule
        self.modalities = (modality,) if isinstance(modality, int) else tuple(modality)
        self.num_negs_per_pos = base.num_negs_per_pos
        self._check_presence(presence)
        self.num_modalities = presence.shape[1]
        self._tables = {presence.device: _Tables.build(base, presence, self.modalities)}
        self.reset_delivered()

    def sample(self, positives: Tensor, *, seed: int, step: int = 0, progress: float = 0.0) -> NegativeBatch:
        """Draw K negatives for each positive.

        Parameters
        ----------
        positives, seed, step
            As of `EntityNegativeSampler.sample`.
        progress : float, optional
            Share of the run's epochs that are done, in [0, 1]; read by ``two-stage``.

        Returns
        -------
        NegativeBatch
            For ``adaptive`` all are corrupted in every modality, and `choose` decides which stay so.

        Raises
        ------
        ConfigError, ShapeError
            As `EntityNegativeSampler.sample`, or if `progress` is out of range.
        """
        check_number(_WHERE, "progress", progress, low=0, high=1, hint="pass epochs done / epochs in all")
        inputs = self.base.draw_inputs(positives, seed=seed, step=step)
        tables = self._tables_on(positives.device)
        if self.strategy == "adaptive":
            drawn = draw_entities(inputs)
            eligible = tables.of_ends(positives, drawn.side) & tables.has[drawn.entity]
            everywhere = eligible.new_ones(()).expand(*drawn.entity.shape, self.num_modalities)
            return NegativeBatch(drawn.entity, drawn.side, everywhere, eligible, inputs.first)
        eligible = tables.of_ends(positives, draw_sides(inputs))
        able = eligible.any(2)
        number = (self._share_now(progress) * able.sum().double()).round().long()
        asked = tables.deal(eligible, _evenly(able, number))
        drawn = draw_entities(inputs._replace(pools=tables.pools, level=asked))
        assert drawn.level is not None
        self._count(able, drawn.level)
        return NegativeBatch(drawn.entity, drawn.side, _mask(drawn.level, self.num_modalities), shared=inputs.first)

    def choose(self, negatives: NegativeBatch, intra: Tensor, inter: Tensor) -> NegativeBatch:
        """Decide for ``adaptive`` which negatives are corrupted in one modality only.

        A negative passes if ``inter < intra``: the model finds the other entity nearer across modalities than within
        them. With the rule ``share`` as many eligible negatives are chosen as pass, spread evenly; with ``rows`` those
        that pass. The scores are those of the negatives as drawn, so no further pass of the model is needed.

        Parameters
        ----------
        negatives : NegativeBatch
            What `sample` returned.
        intra, inter : Tensor
            ``(B, K)`` sums of the negatives' distances over pairs of equal and of different modalities.

        Returns
        -------
        NegativeBatch
            The same entities with the masks to train with.

        Raises
        ------
        ConfigError
            If the strategy is another, or the negatives were not drawn by `sample` or are chosen already.
        ShapeError
            If scores are not ``(B, K)``.
        """
        if self.strategy != "adaptive" or negatives.eligible is None:
            got = f"strategy {self.strategy!r}" if self.strategy != "adaptive" else "negatives without eligible"
            raise ConfigError(
                f"{_WHERE}.choose: only what sample of the strategy 'adaptive' returned is open to choice, got {got}; "
                "train on the negatives as they are"
            )
        for name, scores in (("intra", intra), ("inter", inter)):
            check_axes(f"{_WHERE}.choose", name, scores, tuple(negatives.entity.shape), hint="one number a negative")
        able = negatives.eligible.any(2)
        chosen = able & (inter.detach() < intra.detach())
        if self.rule == "share":
            chosen = _evenly(able, chosen.sum())
        level = self._tables_on(able.device).deal(negatives.eligible, chosen)
        self._count(able, level)
        return negatives._replace(modality=_mask(level, self.num_modalities), eligible=None)

    @property
    def delivered(self) -> DeliveredShares:
        """What was delivered since the start or `reset_delivered`; waits for the device."""
        negatives, eligible, *by_modality = self._delivered.tolist()
        return DeliveredShares(negatives, eligible, tuple(by_modality))

    def delivered_counts(self) -> Tensor:
        """Return the numbers of `delivered` in their order, ``(2 + M,)`` int64, for a checkpoint."""
        return self._delivered.clone()

    def restore_delivered(self, counts: Tensor) -> None:
        """Go on counting from what `delivered_counts` returned.

        Raises
        ------
        ShapeError
            If `counts` are those of another number of modalities.
        """
        where = f"{_WHERE}.restore_delivered"
        check_axes(where, "counts", counts, (2 + self.num_modalities,), dtype=torch.int64, hint="two, one a modality")
        self._delivered = counts.clone()

    def reset_delivered(self) -> None:
        """Count from 0 again, as at the start of an epoch."""
        self._delivered = torch.zeros(2 + self.num_modalities, dtype=torch.int64)

    def _share_now(self, progress: float) -> float:
        stages = {"normal": 0.0, "visual": 1.0, "two-stage": float(progress < self.share)}
        return stages.get(self.strategy, self.share)

    def _count(self, able: Tensor, level: Tensor) -> None:
        kinds = torch.bincount(level.flatten().long(), minlength=self.num_modalities)
        counts = torch.cat([kinds.sum().view(1), able.sum().view(1), kinds])
        counts[2] = 0
        self._delivered = self._delivered.to(counts.device) + counts

    def _tables_on(self, device: torch.device) -> _Tables:
        if device not in self._tables:
            self._tables[device] = next(iter(self._tables.values())).to(device)
        return self._tables[device]

    def _check_presence(self, presence: Tensor) -> None:
        check_axes(
            _WHERE, "presence", presence, (self.base.num_entities, "M"), dtype=torch.bool, hint="one row an entity"
        )
        lacking = (~presence[:, 0]).nonzero()
        if lacking.numel():
            raise ConfigError(
                f"{_WHERE}, presence: modality 0 is the structure, which every entity has, got False for entity "
                f"{int(lacking[0])}; put the structure before the other modalities"
            )
        if not self.modalities:
            raise ConfigError(f"{_WHERE}, modality: at least one must be corrupted, got (); strategy 'normal' is none")
        # Levels are stored as int8.
        if presence.shape[1] > 128:
            raise ConfigError(
                f"{_WHERE}, presence: at most 128 modalities, got {presence.shape[1]}; leave out those that are not "
                "corrupted alone"
            )
        for m in self.modalities:
            check_count(_WHERE, "modality", m, below=presence.shape[1])


class _Tables(NamedTuple):
    """What the choice reads, on one device: which of the modalities an entity has, their numbers, and candidates."""

    has: Tensor
    modalities: Tensor
    pools: Pools

    @classmethod
    def build(cls, base: EntityNegativeSampler, presence: Tensor, modalities: Sequence[int]) -> _Tables:
        """List the candidates of each level: 0 those of `base`, m those of `base` that have modality m."""
        R, device = base.num_relations, presence.device
        own = base.pools
        if own is None:
            none = torch.zeros(0, dtype=torch.int64)
            own = Pools(torch.full((1, 2, R), -1), none.new_zeros(1), none)
        own = Pools(*(x.to(device) for x in own))
        counts, ids, row = [own.indptr.diff()], [own.ids], _rows(own.indptr)
        table = own.table[0].new_full((presence.shape[1], 2, R), -1)
        table[0] = own.table[0]
        for m in modalities:
            first = sum(x.numel() for x in counts)
            with_m = presence[own.ids, m]
            everyone = presence[:, m].nonzero().flatten()
            counts += [torch.bincount(row[with_m], minlength=counts[0].numel()), counts[0].new_tensor([len(everyone)])]
            ids += [own.ids[with_m], everyone]
            table[m] = torch.where(table[0] < 0, first + counts[0].numel(), first + table[0])
        lengths = torch.cat(counts)
        pools = Pools(table, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), torch.cat(ids))
        return cls(presence[:, list(modalities)], torch.tensor(modalities, device=device), pools)

    def to(self, device: torch.device) -> _Tables:
        return _Tables(self.has.to(device), self.modalities.to(device), Pools(*(x.to(device) for x in self.pools)))

    def of_ends(self, positives: Tensor, side: Tensor) -> Tensor:
        """Return ``(B, K, L)``: which of the modalities the corrupted end has."""
        rows = torch.arange(len(positives), device=positives.device).unsqueeze(1)
        return self.has[positives[:, ::2]][rows, side.long()]

    def deal(self, eligible: Tensor, chosen: Tensor) -> Tensor:
        """Return ``(B, K)`` int8: the modality that each chosen negative is corrupted in, 0 for the others."""
        # Counted over the chosen ones: their places may all be even.
        turn = (chosen.flatten().cumsum(0) - 1).view(chosen.shape) % eligible.sum(2).clamp(min=1)
        taken = eligible & (eligible.cumsum(2) == turn.unsqueeze(2) + 1) & chosen.unsqueeze(2)
        return (taken * self.modalities).sum(2).to(torch.int8)


def _rows(indptr: Tensor) -> Tensor:
    return torch.arange(indptr.numel() - 1, device=indptr.device).repeat_interleave(indptr.diff())


def _evenly(eligible: Tensor, number: Tensor) -> Tensor:
    """Return ``(B, K)`` bool with `number` True entries, spread evenly over the eligible ones."""
    rank = eligible.flatten().cumsum(0)
    total = eligible.sum().clamp(min=1)
    chosen = rank * number // total > (rank - 1) * number // total
    return chosen.view(eligible.shape) & eligible


def _mask(level: Tensor, num_modalities: int) -> Tensor:
    level = level.unsqueeze(2)
    return (level == 0) | (level == torch.arange(num_modalities, device=level.device))
