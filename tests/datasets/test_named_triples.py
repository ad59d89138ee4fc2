from __future__ import annotations

from pathlib import Path

import pytest

from hgmm.datasets.named_triples import mmkg_triples, tsv_triples
from hgmm.errors import DataError


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    (tmp_path / "train.tsv").write_text('b c\tr\ta "x\nb c\ts\td\n')
    (tmp_path / "valid.tsv").write_text("d\tr\tb c\n")
    (tmp_path / "test.tsv").write_text('a "x\ts\td\r\n')
    return tmp_path


def test_names_are_numbered_alphabetically_or_as_listed(tsv: Path) -> None:
    triples = tsv_triples(tsv)
    assert triples.entity_vocab == ('a "x', "b c", "d")
    assert triples.relation_vocab == ("r", "s")
    assert triples.train.tolist() == [[1, 0, 0], [1, 1, 2]]
    assert triples.val.tolist() == [[2, 0, 1]]
    assert triples.test.tolist() == [[0, 1, 2]]
    (tsv / "entities.txt").write_text('d\nunused\nb c\na "x\n')
    triples = tsv_triples(tsv)
    assert triples.entity_vocab[1] == "unused"
    assert triples.train.tolist() == [[2, 0, 3], [2, 1, 0]]
    (tsv / "entities.txt").write_text("d\nb c\n")
    with pytest.raises(DataError, match=r"unknown entity \(2\):\n    - entities\.txt: lacks an end of 'b c r a \"x'"):
        tsv_triples(tsv)


def test_a_validation_file_may_be_called_val(tsv: Path) -> None:
    for name in ("train", "valid", "test"):
        (tsv / f"{name}.tsv").rename(tsv / f"{name.removesuffix('id')}.txt")
    assert len(tsv_triples(tsv, "train.txt").val) == 1


def test_relations_that_are_heads_too_are_right_if_entities_are_listed(tsv: Path) -> None:
    (tsv / "train.tsv").write_text("a\tb\tr\nb\tc\tr\n")
    (tsv / "entities.txt").write_text('a\nb\nr\nd\nb c\na "x\n')
    assert tsv_triples(tsv).train.tolist() == [[0, 0, 2], [1, 1, 2]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.tsv", "a r b\n", r"train\.tsv row 1: must be 'head<TAB>relation<TAB>tail', got 'a r b'"),
        ("test.tsv", "a\tr\tb\nc\td\n", r"test\.tsv row 2: .*, got 'c\\td'"),
        ("test.tsv", "a\tr\tb\tc\n", r"test\.tsv row 1: .*, got 'a\\tr\\tb\\tc'"),
        ("test.tsv", "a\t\tb\n", r"test\.tsv row 1: .*, got 'a\\t\\tb'"),
        ("entities.txt", 'b c\n\na "x\nd\n', r"entities\.txt row 2: every row needs a name"),
        ("entities.txt", 'b c\na "x\nb c\nd\n', r"entities\.txt row 3: 'b c' stands in an earlier row"),
        (
            "train.tsv",
            "Head\tRelation\tTail\na\tr\tb\n",
            r"train\.tsv row 1: 'head relation tail' is no triple",
        ),
        (
            "train.tsv",
            "b\tc\tr\na\tb\tr\n",
            r"wrong column order .*\n.* train\.tsv row 2: 'b' is both a relation and a head",
        ),
        (
            "train.tsv",
            "r\ta\tb\nr\tb\tc\n",
            r"wrong column order .*\n.* train\.tsv row 2: 'b' is both a relation and a tail.*'relation head tail'",
        ),
        ("valid.tsv", "h\tr\tt\na\tr\tb\n", r"heading .*\n.* valid\.tsv row 1: 'h r t' is no triple"),
        (
            "test.tsv",
            "a\tb\tr\n",
            r"wrong column order .*\n.* test\.tsv row 1: 'r' is a relation in training.* like 'head tail relation'",
        ),
        (
            "test.tsv",
            "r\ta\tb\n",
            r"wrong column order .*\n.* test\.tsv row 1: 'r' is a relation in training.* like 'relation head tail'",
        ),
        ("val.tsv", "a\tr\tb\n", r"two files of one split .*\n.* val\.tsv: must not stand beside valid\.tsv; keep one"),
        ("valid.tsv", "", r"valid\.tsv: has no row"),
        ("valid.tsv", None, r"valid\.tsv: there is no such file"),
    ],
)
def test_broken_tables_of_names_are_named(tsv: Path, name: str, content: str | None, message: str) -> None:
    if content is None:
        (tsv / name).unlink()
    else:
        (tsv / name).write_text(content)
    with pytest.raises(DataError, match=message):
        tsv_triples(tsv)


def test_a_byte_order_mark_is_no_part_of_a_name(tsv: Path) -> None:
    path = tsv / "train.tsv"
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert tsv_triples(tsv).entity_vocab == ('a "x', "b c", "d")


def test_a_file_that_cannot_be_read_is_named(tsv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"train\.tsv: cannot be read \(Permission denied\)"):
        tsv_triples(tsv)


def test_text_must_be_utf_8(tsv: Path) -> None:
    (tsv / "test.tsv").write_bytes(b"\xff\tr\ta\n")
    with pytest.raises(DataError, match=r"test\.tsv: must be UTF-8 text .*0xff"):
        tsv_triples(tsv)


def test_the_one_file_of_mmkg_is_split_without_leaks(tmp_path: Path) -> None:
    rows = [f"</m/{head}> <r{(head + tail) % 3}> </m/{tail}> ." for head in range(20) for tail in range(20)]
    (tmp_path / "DB15K_EntityTriples.txt").write_text("\n".join([*rows, rows[0]]) + "\n")
    triples, note = mmkg_triples(tmp_path)
    assert note == "split 80/10/10 at random (seed 0), 1 repeated triples left out"
    assert {split: len(part) for split, part in triples.splits.items()} == {"train": 320, "val": 40, "test": 40}
    assert (triples.num_entities, triples.relation_vocab) == (20, ("<r0>", "<r1>", "<r2>"))
    assert not triples.report().has_leaks
    assert triples.report().unseen() == []
    names = [
        f"{triples.entity_vocab[head]} {triples.relation_vocab[relation]} {triples.entity_vocab[tail]} ."
        for head, relation, tail in triples.known.tolist()
    ]
    assert sorted(names) == sorted(rows)


@pytest.mark.parametrize("row", ["<a> <r> <b>", "<a> <r> .", "<a> <r> <b> <c>", "<a> <r> <b> . ."])
def test_a_row_of_mmkg_has_three_names_and_a_full_stop(tmp_path: Path, row: str) -> None:
    (tmp_path / "FB15K_EntityTriples.txt").write_text(f"<a> <r> <b> .\n{row}\n")
    with pytest.raises(DataError, match=rf"Triples\.txt row 2: must be 'head relation tail \.', got '{row}'"):
        mmkg_triples(tmp_path)


def test_mmkg_has_one_file_of_triples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold one file \*EntityTriples\.txt, found none"):
        mmkg_triples(tmp_path)
    for name in ("A_EntityTriples.txt", "B_EntityTriples.txt"):
        (tmp_path / name).write_text("<a> <r> <b> .\n")
    with pytest.raises(DataError, match=r"found A_EntityTriples\.txt, B_EntityTriples\.txt; move the others away"):
        mmkg_triples(tmp_path)
