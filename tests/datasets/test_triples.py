from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hgmm.datasets import info, load
from hgmm.datasets.triples import read_openke, read_tsv
from hgmm.errors import DataError


@pytest.fixture
def openke(tmp_path: Path) -> Path:
    (tmp_path / "entity2id.txt").write_text("3\n<b c> 1\n<a> 0\nd\u2028e\t2\n", encoding="utf-8")
    (tmp_path / "relation2id.txt").write_text("2\nr\t0\ns\t1\n")
    (tmp_path / "train2id.txt").write_text("3\n0 1 1\n1 2 0\n0 1 1\n")
    (tmp_path / "valid2id.txt").write_text("1\n2\t0\t1\n")
    (tmp_path / "test2id.txt").write_text("2\n1 2 0\n2 1 0\n")
    return tmp_path


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    (tmp_path / "train.tsv").write_text('b c\tr\ta "x\nb c\ts\td\n')
    (tmp_path / "valid.tsv").write_text("d\tr\tb c\n")
    (tmp_path / "test.tsv").write_text('a "x\ts\td\r\n')
    return tmp_path


def test_openke_rows_are_head_tail_relation(openke: Path) -> None:
    graph = read_openke(openke)
    assert graph.triples is not None
    assert graph.triples.entity_vocab == ("<a>", "<b c>", "d\u2028e")
    assert graph.triples.relation_vocab == ("r", "s") == graph.schema.relations
    assert graph.triples.train.tolist() == [[0, 1, 1], [1, 0, 2], [0, 1, 1]]
    assert graph.triples.val.tolist() == [[2, 1, 0]]
    assert graph.g.num_edges() == 3
    assert graph.node_ids["entity"] == ["<a>", "<b c>", "d\u2028e"]
    assert graph.source.files == (
        "entity2id.txt",
        "relation2id.txt",
        "test2id.txt",
        "train2id.txt",
        "valid2id.txt",
    )
    assert graph.source.note == (
        "1 of 3 train triples are repetitions; 1 of 2 test triples (50.0%) are also train triples"
    )
    assert info(openke).task == "link-prediction"


def test_names_are_numbered_alphabetically_or_as_listed(tsv: Path) -> None:
    graph = load(tsv)
    assert graph.triples is not None
    assert graph.triples.entity_vocab == ('a "x', "b c", "d")
    assert graph.triples.train.tolist() == [[1, 0, 0], [1, 1, 2]]
    assert graph.triples.val.tolist() == [[2, 0, 1]]
    assert graph.triples.test.tolist() == [[0, 1, 2]]
    assert graph.source.note == ""
    (tsv / "entities.txt").write_text('d\nunused\nb c\na "x\n')
    graph = load(tsv)
    assert graph.triples is not None
    assert graph.triples.train.tolist() == [[2, 0, 3], [2, 1, 0]]
    (tsv / "entities.txt").write_text("d\nb c\n")
    with pytest.raises(DataError, match=r"entities\.txt: lacks an end of 'b c r a \"x'"):
        load(tsv)


def test_a_validation_file_may_be_called_val(tsv: Path) -> None:
    for name in ("train", "valid", "test"):
        (tsv / f"{name}.tsv").rename(tsv / f"{name.removesuffix('id')}.txt")
    graph = read_tsv(tsv, "train.txt")
    assert graph.triples is not None
    assert len(graph.triples.val) == 1


def test_vectors_belong_to_all_entities_or_to_the_named_ones(openke: Path) -> None:
    np.save(openke / "text.npy", np.arange(6.0).reshape(3, 2))
    np.savez(openke / "image.npz", feature=np.ones((2, 4)))
    (openke / "image_ids.txt").write_text("d\u2028e\n<a>\n", encoding="utf-8")
    graph = load(openke)
    assert graph.schema.modality_names == ("image", "text")
    assert graph.present("entity").tolist() == [[True, True], [False, True], [True, True]]
    assert graph.features("entity")["text"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert graph.features("entity")["image"].sum(1).tolist() == [4, 0, 4]
    assert "image.npz" in graph.source.files


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
        ("test2id.txt", "2\n0 1 1\n0 1 2\n", r"test2id\.txt row 3: relation 2; known are 0 to 1"),
        ("valid2id.txt", None, r"missing file \(1\):\n    - valid2id\.txt: there is no such file"),
    ],
)
def test_broken_openke_files_are_named(openke: Path, name: str, content: str | None, message: str) -> None:
    if content is None:
        (openke / name).unlink()
    else:
        (openke / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_openke(openke)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.tsv", "a r b\n", r"train\.tsv row 1: must be 'head<TAB>relation<TAB>tail', got 'a r b'"),
        ("test.tsv", "a\tr\tb\nc\td\n", r"test\.tsv row 2: .*, got 'c\\td'"),
        ("test.tsv", "a\tr\tb\tc\n", r"test\.tsv row 1: .*, got 'a\\tr\\tb\\tc'"),
        ("test.tsv", "a\t\tb\n", r"test\.tsv row 1: .*, got 'a\\t\\tb'"),
        ("entities.txt", 'b c\n\na "x\nd\n', r"entities\.txt row 2: an entity needs a name"),
        ("entities.txt", 'b c\na "x\nb c\nd\n', r"entities\.txt row 3: 'b c' stands in an earlier row"),
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
        read_tsv(tsv)


def test_a_byte_order_mark_is_no_part_of_a_name(openke: Path, tsv: Path) -> None:
    for name in ("train.tsv", "entity2id.txt"):
        (tsv / name).write_text("\ufeff" + (tsv / name).read_text(encoding="utf-8"), encoding="utf-8")
    assert read_tsv(tsv).node_ids == {"entity": ['a "x', "b c", "d"]}
    assert read_openke(openke).node_ids == {"entity": ["<a>", "<b c>", "d\u2028e"]}


def test_a_broken_vocabulary_makes_no_id_unknown(openke: Path) -> None:
    (openke / "entity2id.txt").write_text("many\n")
    with pytest.raises(DataError, match="1 problem found"):
        read_openke(openke)


def test_a_file_that_cannot_be_read_is_named(tsv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"train\.tsv: cannot be read \(Permission denied\)"):
        read_tsv(tsv)


def test_text_must_be_utf_8(tsv: Path) -> None:
    (tsv / "test.tsv").write_bytes(b"\xff\tr\ta\n")
    with pytest.raises(DataError, match=r"test\.tsv: must be UTF-8 text .*0xff"):
        read_tsv(tsv)


def test_vectors_that_do_not_fit_are_named(openke: Path) -> None:
    np.save(openke / "text.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match=r"one row for each of the 3 entities, got 2; or name .* in text_ids\.txt"):
        read_openke(openke)
    (openke / "text_ids.txt").write_text("<a>\nnobody\n<a>\n")
    with pytest.raises(DataError) as caught:
        read_openke(openke)
    assert str(caught.value) == (
        f"vectors {openke / 'text.npy'}: 3 problems found.\n"
        "  unknown entity (1):\n"
        "    - text_ids.txt row 2: nobody\n"
        "  wrong length (1):\n"
        "    - text_ids.txt: 3 names, text.npy 2 rows\n"
        "  duplicate id (1):\n"
        "    - text_ids.txt: 1 names are repeated"
    )
    (openke / "text.npy").rename(openke / "sound.npy")
    with pytest.raises(DataError, match=r"sound\.npy: vectors must be named after a kind of modality \(text, image"):
        read_openke(openke)


def test_real_knowledge_graphs(real_data: Path) -> None:
    graph = load(real_data / "kg" / "DB15K")
    assert graph.num_nodes("entity") == 12_842
    assert len(graph.schema.relations) == 279
    assert graph.triples is not None
    assert [len(rows) for rows in graph.triples.splits.values()] == [79_222, 9_903, 9_903]
    assert len(graph.triples.train.unique(dim=0)) == 72_618
    assert "1,466 of 9,903 test triples (14.8%) are also train triples" in graph.source.note
    graph = load(real_data / "kg" / "MKG-W")
    assert graph.num_nodes("entity") == 15_000
    assert graph.source.note == ""
    assert graph.triples is not None
    assert [len(rows) for rows in graph.triples.splits.values()] == [34_196, 4_276, 4_274]
