from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
import torch

from hgmm.errors import SchemaError
from hgmm.kg import LeakReport, TripleSet
from hgmm.triples import TRIPLE_SPLITS

EARLIER = {"train": (), "val": ("train",), "test": ("train", "val")}


def drawn(*, entities: int = 12, relations: int = 3, sizes: tuple[int, int, int] = (60, 30, 30)) -> TripleSet:
    """Return triples so few of which are possible that many stand twice."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([torch.randint(n, (sum(sizes),), generator=generator) for n in (6, relations, 6)], 1)
    rows[sizes[0] :, 0] += torch.randint(3, (sum(sizes[1:]),), generator=generator)
    train, val, test = rows.split(list(sizes))
    return TripleSet(train, val, test, tuple(map(str, range(entities))), tuple(map(str, range(relations))))


def lists(triples: TripleSet) -> dict[str, list[tuple[int, ...]]]:
    return {split: [tuple(row) for row in rows.tolist()] for split, rows in triples.splits.items()}


def test_report_agrees_with_counting_row_by_row() -> None:
    triples = drawn()
    rows, report = lists(triples), triples.report()
    seen = {end for head, _, tail in rows["train"] for end in (head, tail)}
    used = {relation for _, relation, _ in rows["train"]}
    assert report.sizes == {"train": 60, "val": 30, "test": 30}
    assert report.duplicates == {split: len(part) - len(set(part)) for split, part in rows.items()}
    for split in ("val", "test"):
        for other in EARLIER[split]:
            assert report.overlaps[split][other] == sum(row in rows[other] for row in rows[split])
        ends = {end for head, _, tail in rows[split] for end in (head, tail)}
        assert report.unseen_entities[split] == len(ends - seen)
        assert report.unseen_relations[split] == len({row[1] for row in rows[split]} - used)
        assert report.unseen_triples[split] == sum(
            head not in seen or tail not in seen or relation not in used for head, relation, tail in rows[split]
        )
    assert report.untrained_entities == 12 - len(seen) > 0
    assert report.untrained_relations == 3 - len(used)
    assert report.has_leaks


def test_known_triples_stand_once_in_their_order() -> None:
    triples = drawn()
    assert [tuple(row) for row in triples.known.tolist()] == list(dict.fromkeys(chain(*lists(triples).values())))


def test_what_leaks_is_dropped_and_nothing_else() -> None:
    triples = drawn()
    rows, clean = lists(triples), triples.drop_leaks()
    for split, part in lists(clean).items():
        earlier = {row for other in EARLIER[split] for row in rows[other]}
        assert part == list(dict.fromkeys(row for row in rows[split] if row not in earlier))
        assert part
    report = clean.report()
    assert not report.has_leaks
    assert report.leaks() == []
    assert clean.entity_vocab == triples.entity_vocab
    assert lists(clean.drop_leaks()) == lists(clean)


def test_findings_in_words() -> None:
    rows = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 1], [2, 1, 0]])
    triples = TripleSet(rows[:1], rows[:2], rows[:0], ("a", "b", "c"), ("r", "s"))
    assert triples.report().leaks() == ["1 of 2 val triples (50.0%) are also train triples"]
    report = replace(triples, test=rows[1:], val=rows[:3]).report()
    assert report.leaks() == [
        "1 of 3 val triples are repetitions",
        "2 of 3 val triples (66.7%) are also train triples",
        "1 of 3 test triples (33.3%) are also train triples",
        "2 of 3 test triples (66.7%) are also val triples",
    ]
    assert report.unseen() == [
        "1 of 3 test triples have one of 1 entities or 1 relations that are in no training triple",
        "1 entities and 1 relations of the vocabularies are in no training triple",
    ]
    assert report.share("test", "val") == pytest.approx(2 / 3)
    assert LeakReport(**report.to_dict()) == report


@pytest.mark.parametrize("split", TRIPLE_SPLITS)
def test_a_split_may_be_empty(split: str) -> None:
    triples = replace(drawn(), **{split: torch.empty(0, 3, dtype=torch.int64)})
    assert len(triples.drop_leaks().splits[split]) == 0
    assert triples.report().sizes[split] == 0


def test_nothing_at_all() -> None:
    rows = torch.empty(0, 3, dtype=torch.int64)
    triples = TripleSet(rows, rows, rows, (), ())
    assert not triples.report().has_leaks
    assert triples.report().unseen() == []
    assert triples.report().share("test", "train") == 0
    assert triples.known.shape == (0, 3)
    assert (triples.num_entities, triples.num_relations) == (0, 0)


def test_ids_whose_product_is_beyond_int64_stay_apart() -> None:
    triples = drawn(entities=12, relations=3)
    size = 3_000_000
    # Names are only counted, so that this needs no memory for them.
    object.__setattr__(triples, "entity_vocab", range(size))
    object.__setattr__(triples, "relation_vocab", range(size))
    last = torch.tensor([[size - 1, size - 1, size - 1], [0, 0, size - 1], [size - 1, 0, 0]])
    object.__setattr__(triples, "train", last)
    object.__setattr__(triples, "test", last[1:])
    report = triples.report()
    assert report.duplicates["train"] == 0
    assert report.overlaps["test"] == {"train": 2, "val": 0}


@pytest.mark.parametrize("split", TRIPLE_SPLITS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([[0, 0, 12]]), "tail: ids go from 12 to 12, known are 12"),
        (torch.tensor([[-1, 0, 0]]), "head: ids go from -1 to -1, known are 12"),
        (torch.tensor([[0, 3, 0]]), "relation: ids go from 3 to 3, known are 3"),
        (torch.zeros(4), r"must be \(n, 3\) int64, got \(4,\) torch.float32"),
        (torch.zeros(1, 3).int(), r"must be \(n, 3\) int64, got \(1, 3\) torch.int32"),
    ],
)
def test_triples_that_break_a_rule(split: str, rows: torch.Tensor, message: str) -> None:
    with pytest.raises(SchemaError, match=f"{split}.*{message}"):
        replace(drawn(), **{split: rows})


def test_tensors_on_two_devices() -> None:
    with pytest.raises(SchemaError, match="val: must be on one device, got meta and cpu of train"):
        replace(drawn(), val=torch.empty(0, 3, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize(
    ("what", "names", "message"),
    [
        ("entity_vocab", [*"abcdefghijk", "a"], "entity_vocab: 'a' stands twice"),
        ("relation_vocab", ["r", "s", "r"], "relation_vocab: 'r' stands twice"),
        ("relation_vocab", ["r", "s", 2], "relation_vocab: must hold text, got 2"),
    ],
)
def test_names_that_break_a_rule(what: str, names: list[str], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        replace(drawn(), **{what: names})
