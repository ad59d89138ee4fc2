"""The triples of a knowledge graph, and what of them leaks from one split into another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hgmm.errors import Problem, SchemaError, first_problems, raise_problems

__all__ = ["TRIPLE_SPLITS", "LeakReport", "TripleSet"]

TRIPLE_SPLITS = ("train", "val", "test")
EARLIER: Mapping[str, tuple[str, ...]] = {"train": (), "val": ("train",), "test": ("train", "val")}
"""Splits that a triple of the split must not be in, for a score on it to say something."""


@dataclass(frozen=True)
class LeakReport:
    """Repetitions, triples in two splits, and what occurs in no training triple.

    Parameters
    ----------
    sizes : mapping of str to int
        Triples of ``train``, ``val`` and ``test``, repetitions included.
    duplicates : mapping of str to int
        By split: triples that stand in an earlier row of the same split.
    overlaps : mapping of str to mapping of str to int
        ``overlaps["test"]["train"]`` counts the test triples, repetitions included, that are also training triples;
        ``["val"]["train"]`` and ``["test"]["val"]`` likewise.
    unseen_entities, unseen_relations : mapping of str to int
        Of ``val`` and ``test``: distinct ones that occur in no training triple.
    unseen_triples : mapping of str to int
        Of ``val`` and ``test``: triples, repetitions included, with such an entity or relation.
    untrained_entities, untrained_relations : int
        Of the vocabulary: those that occur in no training triple.
    """

    sizes: Mapping[str, int]
    duplicates: Mapping[str, int]
    overlaps: Mapping[str, Mapping[str, int]]
    unseen_entities: Mapping[str, int]
    unseen_relations: Mapping[str, int]
    unseen_triples: Mapping[str, int]
    untrained_entities: int
    untrained_relations: int

    @property
    def has_leaks(self) -> bool:
        """Whether `TripleSet.drop_leaks` would drop anything."""
        return any(self.duplicates.values()) or any(n for row in self.overlaps.values() for n in row.values())

    def share(self, split: str, other: str) -> float:
        """Return which share of a split's triples, from 0 to 1, is also in an earlier split."""
        return self.overlaps[split][other] / max(self.sizes[split], 1)

    def leaks(self) -> list[str]:
        """Say in words what is repeated or stands in two splits, one finding an entry.

        Notes
        -----
        A test triple that is also a training triple makes a score look better than the model is.
        """
        found = [
            f"{count:,} of {self.sizes[split]:,} {split} triples are repetitions"
            for split, count in self.duplicates.items()
            if count
        ]
        for split, row in self.overlaps.items():
            found += [
                f"{count:,} of {self.sizes[split]:,} {split} triples ({self.share(split, other):.1%}) are also "
                f"{other} triples"
                for other, count in row.items()
                if count
            ]
        return found

    def unseen(self) -> list[str]:
        """Say in words what a model cannot know because no training triple tells it, one finding an entry."""
        found = []
        for split, triples in self.unseen_triples.items():
            if triples:
                found.append(
                    f"{triples:,} of {self.sizes[split]:,} {split} triples have one of "
                    f"{self.unseen_entities[split]:,} entities or {self.unseen_relations[split]:,} relations "
                    "that are in no training triple"
                )
        if self.untrained_entities or self.untrained_relations:
            found.append(
                f"{self.untrained_entities:,} entities and {self.untrained_relations:,} relations of the vocabularies "
                "are in no training triple"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class TripleSet:
    """The triples of a knowledge graph with their vocabularies; checked when it is made.

    Parameters
    ----------
    train, val, test : Tensor
        ``(n, 3)`` int64 rows (head, relation, tail), on one device.
    entity_vocab, relation_vocab : sequence of str
        Names by id.

    Raises
    ------
    SchemaError
        If a tensor is no such thing, an id is beyond its vocabulary, or a name stands twice; all problems are listed.

    Examples
    --------
    >>> row = torch.tensor([[0, 0, 1]])
    >>> triples = TripleSet(row, row[:0], row, ("Ada", "London"), ("born in",))
    >>> triples.report().leaks()
    ['1 of 1 test triples (100.0%) are also train triples']
    >>> len(triples.drop_leaks().test)
    0
    """

    train: Tensor
    val: Tensor
    test: Tensor
    entity_vocab: tuple[str, ...]
    relation_vocab: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entity_vocab", tuple(self.entity_vocab))
        object.__setattr__(self, "relation_vocab", tuple(self.relation_vocab))
        raise_problems([*_name_problems(self), *_row_problems(self)], where="TripleSet", error=SchemaError)

    @property
    def num_entities(self) -> int:
        """Size of the vocabulary of entities."""
        return len(self.entity_vocab)

    @property
    def num_relations(self) -> int:
        """Size of the vocabulary of relations."""
        return len(self.relation_vocab)

    @property
    def splits(self) -> dict[str, Tensor]:
        """The triples as ``{"train": …, "val": …, "test": …}``."""
        return {split: getattr(self, split) for split in TRIPLE_SPLITS}

    @property
    def known(self) -> Tensor:
        """``(n, 3)`` int64: the triples of all splits, each once, in the order of their first appearance."""
        rows = torch.cat(list(self.splits.values()))
        return rows[_first_rows(torch.cat(list(self._keys().values())))]

    def report(self) -> LeakReport:
        """Count repetitions, overlaps between the splits, and what no training triple tells."""
        keys, rows = self._keys(), self.splits
        later = {split: rows[split] for split in ("val", "test")}
        trained = _occurring(self.train[:, [0, 2]], self.num_entities)
        trained_relation = _occurring(self.train[:, 1], self.num_relations)
        return LeakReport(
            sizes={split: len(part) for split, part in rows.items()},
            duplicates={split: len(key) - len(_first_rows(key)) for split, key in keys.items()},
            overlaps={
                split: {other: int(torch.isin(keys[split], keys[other]).sum()) for other in EARLIER[split]}
                for split in later
            },
            unseen_entities={
                split: int((_occurring(part[:, [0, 2]], self.num_entities) & ~trained).sum())
                for split, part in later.items()
            },
            unseen_relations={
                split: int((_occurring(part[:, 1], self.num_relations) & ~trained_relation).sum())
                for split, part in later.items()
            },
            unseen_triples={
                split: int((~trained[part[:, [0, 2]]].all(1) | ~trained_relation[part[:, 1]]).sum())
                for split, part in later.items()
            },
            untrained_entities=int((~trained).sum()),
            untrained_relations=int((~trained_relation).sum()),
        )

    def drop_leaks(self) -> TripleSet:
        """Return the triples without repetitions, and without those of val and test that an earlier split has.

        Returns
        -------
        TripleSet
            Training triples lose their repetitions only; val loses what is in train, test what is in train or val. The
            order stays.
        """
        keys = self._keys()
        kept = {}
        for split, key in keys.items():
            first = _first_rows(key)
            for other in EARLIER[split]:
                first = first[~torch.isin(key[first], keys[other])]
            kept[split] = self.splits[split][first]
        return TripleSet(kept["train"], kept["val"], kept["test"], self.entity_vocab, self.relation_vocab)

    def _keys(self) -> dict[str, Tensor]:
        """Return ``(n,)`` int64 by split: equal numbers for equal triples, also of different splits."""
        parts = list(self.splits.values())
        head, relation, tail = torch.cat(parts).unbind(1)
        # Pairs are numbered first, for the product of all three sizes may be beyond int64.
        pair = torch.unique(head * max(self.num_entities, 1) + tail, return_inverse=True)[1]
        keys = pair * max(self.num_relations, 1) + relation
        return dict(zip(TRIPLE_SPLITS, keys.split([len(part) for part in parts]), strict=True))


def _first_rows(keys: Tensor) -> Tensor:
    """Return in ascending order the rows whose key stands in no earlier row."""
    order = keys.argsort(stable=True)
    ordered = keys[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first].sort().values


def _occurring(ids: Tensor, count: int) -> Tensor:
    """Return ``(count,)`` bool: which ids occur."""
    return torch.zeros(count, dtype=torch.bool, device=ids.device).index_fill(0, ids.flatten(), True)


def _name_problems(triples: TripleSet) -> Iterator[Problem]:
    for what, names in (("entity_vocab", triples.entity_vocab), ("relation_vocab", triples.relation_vocab)):
        strange = [name for name in names if not isinstance(name, str)]
        if strange:
            yield Problem("not text", what, f"must hold text, got {strange[0]!r}", count=len(strange))
        elif len(set(names)) < len(names):
            repeated = [(what, name) for name, count in Counter(names).items() if count > 1]
            yield from first_problems("duplicate name", repeated, _stands_twice)


def _stands_twice(found: tuple[str, str]) -> tuple[str, str]:
    return found[0], f"{found[1]!r} stands twice"


def _row_problems(triples: TripleSet) -> Iterator[Problem]:
    for split, rows in triples.splits.items():
        if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype != torch.int64:
            text = f"must be (n, 3) int64, got {tuple(rows.shape)} {rows.dtype}"
            yield Problem("wrong triples", split, text)
            continue
        if rows.device != triples.train.device:
            text = f"must be on one device, got {rows.device} and {triples.train.device} of train"
            yield Problem("two devices", split, text)
        counts = (triples.num_entities, triples.num_relations, triples.num_entities)
        for column, (what, count) in enumerate(zip(("head", "relation", "tail"), counts, strict=True)):
            ids = rows[:, column]
            if len(rows) and not 0 <= int(ids.min()) <= int(ids.max()) < count:
                text = f"ids go from {int(ids.min())} to {int(ids.max())}, known are {count}"
                yield Problem("out of range", f"{split} {what}", text)
