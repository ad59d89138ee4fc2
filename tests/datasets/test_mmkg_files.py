from __future__ import annotations

import math
from pathlib import Path

import pytest

from hgmm.datasets.mmkg_files import numeric_vectors, read_image_index
from hgmm.errors import DataError


def test_numbers_become_standardised_logarithms_and_marks(tmp_path: Path) -> None:
    file = tmp_path / "literals.txt"
    file.write_text("b\tyear\t10\na\tarea\t-3\nb\tarea\t7\nb\tarea\t3\nc\tyear\t10\nnobody\tyear\t1\n")
    table, present, note = numeric_vectors(file, ["a", "b", "c", "d"])
    area = [-math.log(4), (math.log(8) + math.log(4)) / 2]
    centre, spread = sum(area) / 2, abs(area[0] - area[1]) / 2
    assert table[:, 0].tolist() == pytest.approx([(area[0] - centre) / spread, (area[1] - centre) / spread, 0, 0])
    assert table[:, 1].tolist() == [0, 0, 0, 0]
    assert table[:, 2:].tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    assert present.tolist() == [True, True, True, False]
    assert note == "1 of 6 rows of literals.txt are about no entity of the graph"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tyear\tlong ago\n", r"literals\.txt row 1: must be a finite number, got 'long ago'"),
        ("a\tyear\t1\na\tyear\tinf\n", r"literals\.txt row 2: must be a finite number, got 'inf'"),
        ("a\tyear\n", r"literals\.txt row 1: must be 'entity<TAB>attribute<TAB>number', got 'a\\tyear'"),
        ("b\tyear\t1\n", r"literals\.txt: no row is about one of the 1 entities, the first is about 'b'"),
    ],
)
def test_broken_numbers_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "literals.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        numeric_vectors(tmp_path / "literals.txt", ["a"])


def test_pictures_of_entities(tmp_path: Path) -> None:
    file = tmp_path / "X_ImageIndex.txt"
    file.write_text("<a b>\t1\n<c>\t2\n<a b>\t3\n")
    assert read_image_index(file) == {"1": "<a b>", "2": "<c>", "3": "<a b>"}
    file.write_text("<a>\t1\n<b>\n")
    with pytest.raises(DataError, match=r"X_ImageIndex\.txt row 2: must be 'entity<TAB>picture', got '<b>'"):
        read_image_index(file)
    file.write_text("<a>\t1\n<b>\t1\n")
    with pytest.raises(DataError, match="1 pictures stand twice"):
        read_image_index(file)


def test_a_real_image_index(real_data: Path) -> None:
    index = read_image_index(real_data / "kg" / "DB15K" / "ImageIndex.txt")
    assert len(index) == 12_841
    assert len(set(index.values())) == 12_837
    assert index["DBIMG00001"] == "<http://dbpedia.org/resource/Andy_Griffith>"
