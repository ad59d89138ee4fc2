"""Broken files of a knowledge graph end a command with one error that names place and rule, and leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Invoke

Break = Callable[[Path], object]
VECTORS = np.ones((3, 4), dtype=np.float32)


def write_openke(folder: Path) -> None:
    folder.mkdir()
    (folder / "entity2id.txt").write_text("3\na 0\nb 1\nc 2\n")
    (folder / "relation2id.txt").write_text("2\nr 0\ns 1\n")
    (folder / "train2id.txt").write_text("3\n0 1 1\n1 2 0\n0 2 1\n")
    (folder / "valid2id.txt").write_text("1\n2 0 1\n")
    (folder / "test2id.txt").write_text("1\n2 1 0\n")


def write_names(folder: Path) -> None:
    folder.mkdir()
    (folder / "train.tsv").write_text("a\tr\tb\nb\ts\tc\na\ts\tc\n")
    (folder / "valid.tsv").write_text("c\ts\ta\n")
    (folder / "test.tsv").write_text("c\tr\tb\n")


def text(name: str, content: str) -> Break:
    return lambda folder: (folder / name).write_text(content)


def array(values: np.ndarray) -> Break:
    return lambda folder: np.save(folder / "image.npy", values)


def named_rows(folder: Path) -> None:
    np.save(folder / "image.npy", VECTORS[:2])
    (folder / "image_ids.txt").write_text("c\nnobody\n")


NAN = np.where(np.arange(12).reshape(3, 4) == 6, np.float32(np.nan), VECTORS)
CASES: dict[str, tuple[Callable[[Path], None], Break, tuple[str, ...]]] = {
    "unknown id": (
        write_openke,
        text("train2id.txt", "3\n0 1 1\n1 7 0\n0 2 1\n"),
        ("unknown id (1)", "train2id.txt row 3: tail 7; known are 0 to 2", "Nothing was read; correct the files."),
    ),
    "unknown name": (
        write_names,
        text("entities.txt", "a\nb\n"),
        ("unknown entity (4)", "entities.txt: lacks an end of 'b s c'", "Nothing was read; correct the files."),
    ),
    "column order of ids": (
        write_openke,
        text("test2id.txt", "2\n2 1 0\n2 1 2\n"),
        (
            "wrong column order (1)",
            "test2id.txt row 3: ids in the middle go to 1",
            "3 entities and 2 relations",
            "swap",
        ),
    ),
    "column order of names": (
        write_names,
        text("train.tsv", "a\tb\tr\nb\tc\tr\na\tc\tr\n"),
        (
            "wrong column order (1)",
            "train.tsv row 1: 'b' is both a relation and a head",
            "must be 'head relation tail'",
        ),
    ),
    "columns without tabs": (
        write_names,
        text("test.tsv", "c r b\n"),
        ("wrong row (1)", "test.tsv row 1: must be 'head<TAB>relation<TAB>tail', got 'c r b'", "correct the files"),
    ),
    "count": (
        write_openke,
        text("valid2id.txt", "5\n2 0 1\n"),
        ("wrong count (1)", "valid2id.txt: row 1 says 5 rows, 1 follow", "Nothing was read; correct the files."),
    ),
    "length of the vectors": (
        write_openke,
        array(VECTORS[:2]),
        ("image.npy: must have one row for each of the 3 entities, got 2", "or name the entities", "in image_ids.txt"),
    ),
    "unknown entity of a vector": (
        write_names,
        named_rows,
        ("image_ids.txt row 2: 'nobody' is no entity of the triples", "Name in each row of image_ids.txt the entity"),
    ),
    "NaN": (
        write_openke,
        array(NAN),
        (
            "not finite (1)",
            "image.npy entity 'b': has nan in column 2",
            "Mark entities without a vector as False in image",
        ),
    ),
}


@pytest.mark.parametrize("command", ["train", "import"])
@pytest.mark.parametrize("case", CASES)
def test_broken_files_give_one_error_and_leave_nothing(hgmm: Invoke, case: str, command: str) -> None:
    write, damage, words = CASES[case]
    folder = Path("graph")
    write(folder)
    damage(folder)
    before = sorted(Path().rglob("*"))
    options = ("--dataset", "./graph", "--epochs", "1") if command == "train" else ("./graph", "-o", "out/graph")
    result = hgmm(command, *options)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.stderr.count("Error:") == 1
    assert "problems found" not in result.stderr or case == "unknown name"
    for word in words:
        assert word in result.stderr
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("write", [write_openke, write_names])
def test_the_same_files_unbroken_are_read(hgmm: Invoke, write: Callable[[Path], None]) -> None:
    write(Path("graph"))
    np.save("graph/image.npy", VECTORS)
    result = hgmm(
        "train", "--dataset", "./graph", "--epochs", "1", "--set", "model.dim=4", "--set", "link.batch_size=2"
    )
    assert result.exit_code == 0, result.output
