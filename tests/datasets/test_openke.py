from __future__ import annotations

from pathlib import Path

import pytest

from hgmm.datasets.openke import openke_triples
from hgmm.errors import DataError


@pytest.fixture
def openke(tmp_path: Path) -> Path:
    (tmp_path / "entity2id.txt").write_text("3\n<b c> 1\n<a> 0\nd\u2028e\t2\n", encoding="utf-8")
    (tmp_path / "relation2id.txt").write_text("2\nr\t0\ns\t1\n")
    (tmp_path / "train2id.txt").write_text("3\n0 1 1\n1 2 0\n0 1 1\n")
    (tmp_path / "valid2id.txt").write_text("1\n2\t0\t1\n")
    (tmp_path / "test2id.txt").write_text("2\n1 2 0\n2 1 0\n")
    return tmp_path


def test_rows_are_head_tail_relation_and_names_end_at_the_last_blank(openke: Path) -> None:
    triples = openke_triples(openke)
    assert triples.entity_vocab == ("<a>", "<b c>", "d\u2028e")
    assert triples.relation_vocab == ("r", "s")
    assert triples.train.tolist() == [[0, 1, 1], [1, 0, 2], [0, 1, 1]]
    assert triples.val.tolist() == [[2, 1, 0]]
    assert triples.test.tolist() == [[1, 0, 2], [2, 0, 1]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "entity2id.txt",
            "4\na 0\nb 1\nc 2\n",
            r"wrong count \(1\):\n    - entity2id\.txt: row 1 says 4 rows, 3 follow",
        ),
        ("entity2id.txt", "a 0\nb 1\n", r"entity2id\.txt row 1: must be the number of rows, got 'a 0'"),
        ("entity2id.txt", "", r"entity2id\.txt row 1: must be the number of rows, got ''"),
        ("entity2id.txt", "3\na 0\nb x\nc 2\n", r"entity2id\.txt row 3: must be 'name id', got 'b x'"),
        ("entity2id.txt", "3\na 0\nb 0\nc 2\n", r"must be 0 to 2, each once; they go from 0 to 2"),
        ("train2id.txt", "1\n0 1\n", r"train2id\.txt row 2: must be 'head tail relation', got '0 1'"),
        ("train2id.txt", "1\n0 1 1 1\n", r"train2id\.txt row 2: must be 'head tail relation', got '0 1 1 1'"),
        ("entity2id.txt", "²\na 0\n", r"entity2id\.txt row 1: must be the number of rows, got '²'"),
        ("entity2id.txt", "1\na 1e30\n", r"entity2id\.txt row 2: must be 'name id', got 'a 1e30'"),
        (
            "train2id.txt",
            "1\n0 1 99999999999999999999\n",
            r"train2id\.txt row 2: must be 'head tail relation', got '0 1 9",
        ),
        ("entity2id.txt", "0\n", r"train2id\.txt row 2: head 0; none is known"),
        ("train2id.txt", "1\n0 3 1\n", r"train2id\.txt row 2: tail 3; known are 0 to 2"),
        ("test2id.txt", "2\n0 2 1\n0 2 2\n", r"test2id\.txt row 3: relation 2; known are 0 to 1"),
        (
            "train2id.txt",
            "1\n0 1 2\n",
            r"order \(1\):\n    - train2id\.txt row 2: ids in the middle go to 1, in the last column to 2",
        ),
        (
            "test2id.txt",
            "2\n2 0 1\n0 1 2\n",
            "row 3: .* 3 entities and 2 relations: these rows are 'head relation tail'",
        ),
        (
            "entity2id.txt",
            "3\na 0\nb 1\na 2\n",
            r"entity2id\.txt row 4: 'a' stands in an earlier row",
        ),
        ("relation2id.txt", "2\nr\t0\nr\t1\n", r"relation2id\.txt row 3: 'r' stands in an earlier row"),
        ("valid2id.txt", None, r"missing file \(1\):\n    - valid2id\.txt: there is no such file"),
    ],
)
def test_broken_openke_files_are_named(openke: Path, name: str, content: str | None, message: str) -> None:
    if content is None:
        (openke / name).unlink()
    else:
        (openke / name).write_text(content)
    with pytest.raises(DataError, match=message):
        openke_triples(openke)


def test_column_order_is_told_whichever_vocabulary_is_larger(openke: Path) -> None:
    (openke / "relation2id.txt").write_text("4\nr 0\ns 1\nt 2\nu 3\n")
    (openke / "train2id.txt").write_text("1\n0 3 2\n")
    with pytest.raises(DataError, match=r"middle go to 3, in the last column to 2, and there are 3 entities and 4"):
        openke_triples(openke)
    (openke / "train2id.txt").write_text("1\n0 3 4\n")
    with pytest.raises(DataError, match=r"row 2: relation 4; known are 0 to 3\n.*row 2: tail 3; known are 0 to 2"):
        openke_triples(openke)


def test_a_byte_order_mark_is_no_part_of_a_name(openke: Path) -> None:
    path = openke / "entity2id.txt"
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert openke_triples(openke).entity_vocab == ("<a>", "<b c>", "d\u2028e")


def test_a_broken_vocabulary_makes_no_id_unknown(openke: Path) -> None:
    (openke / "entity2id.txt").write_text("many\n")
    with pytest.raises(DataError, match="1 problem found"):
        openke_triples(openke)


def test_an_empty_split(openke: Path) -> None:
    (openke / "valid2id.txt").write_text("0\n")
    assert openke_triples(openke).val.shape == (0, 3)


def test_real_files(real_data: Path) -> None:
    triples = openke_triples(real_data / "kg" / "DB15K")
    assert (triples.num_entities, triples.num_relations) == (12_842, 279)
    report = triples.report()
    assert report.sizes == {"train": 79_222, "val": 9_903, "test": 9_903}
    distinct = {split: report.sizes[split] - count for split, count in report.duplicates.items()}
    assert distinct == {"train": 72_618, "val": 9_756, "test": 9_767}
    assert report.overlaps == {"val": {"train": 1_482}, "test": {"train": 1_466, "val": 268}}
    assert f"{report.share('test', 'train'):.1%}" == "14.8%"
    assert (report.untrained_entities, report.untrained_relations) == (102, 5)
    assert report.unseen_entities["test"] == 60
    clean = triples.drop_leaks()
    assert len(clean.train) == 72_618
    assert not clean.report().has_leaks
    report = openke_triples(real_data / "kg" / "MKG-W").report()
    assert report.sizes == {"train": 34_196, "val": 4_276, "test": 4_274}
    assert not report.has_leaks
