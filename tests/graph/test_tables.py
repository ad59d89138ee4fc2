from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from hgmm.errors import Problem
from hgmm.graph.tables import Table, as_texts, read_table


def read(path: Path, content: str | bytes) -> tuple[Table | None, list[Problem]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems: list[Problem] = []
    return read_table(path, path.name, problems), problems


def test_cells_stay_text_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    table, problems = read(tmp_path / "a.csv", '\ufeffid,text\r\n007,"two\r\nlines"\r\n\r\nNA,\r\n')
    assert table is not None
    assert not problems
    assert table.frame.to_dict("list") == {"id": ["007", "NA"], "text": ["two\r\nlines", ""]}
    assert [table.at(row) for row in range(2)] == ["a.csv row 2", "a.csv row 4"]


@pytest.mark.parametrize("content", ["id,text", "id,text\n", "\ufeffid,text\r\n"])
def test_a_header_alone_is_a_table_without_rows(tmp_path: Path, content: str) -> None:
    table, problems = read(tmp_path / "a.csv", content)
    assert table is not None
    assert (list(table.frame), len(table)) == (["id", "text"], 0)
    assert not problems


def test_a_quote_that_is_never_closed_hides_no_rows(tmp_path: Path) -> None:
    _, problems = read(tmp_path / "a.csv", 'id,text\n1,"a\n2,b\n3,c\n')
    assert [str(problem) for problem in problems] == [
        "a.csv: the last row runs over several lines, ['1', 'a\\n2,b\\n3,c\\n']; close its double quote"
    ]
    assert not read(tmp_path / "a.csv", 'id,text\n1,"a\n2,b"\n')[1]
    assert not read(tmp_path / "a.csv", 'id,text\n1,5" disk\n')[1]


def test_tabs(tmp_path: Path) -> None:
    table, problems = read(tmp_path / "a.tsv", "id\ttext\n1\ta, b\n")
    assert table is not None
    assert table.frame["text"].tolist() == ["a, b"]
    assert not problems


def test_parquet_rows_count_from_zero(tmp_path: Path) -> None:
    pd.DataFrame({"id": [5, 6]}).to_parquet(tmp_path / "a.parquet")
    problems: list[Problem] = []
    table = read_table(tmp_path / "a.parquet", "a.parquet", problems)
    assert table is not None
    assert table.at(1) == "a.parquet row 1"
    texts = table.texts("id", problems)
    assert texts is not None
    assert texts.tolist() == ["5", "6"]


def test_an_index_of_pandas_is_a_column(tmp_path: Path) -> None:
    for ids in ([5, 6], [6, 5], ["a", "b"]):
        pd.DataFrame({"id": ids, "x": [1, 2]}).set_index("id").to_parquet(tmp_path / "a.parquet")
        table = read_table(tmp_path / "a.parquet", "a.parquet", [])
        assert table is not None
        texts = table.texts("id", [])
        assert texts is not None
        assert texts.tolist() == list(map(str, ids))


def test_long_ids_beside_empty_cells_stay_exact(tmp_path: Path) -> None:
    column = pa.array([2**60 + 1, None], type=pa.int64())
    pa.parquet.write_table(pa.table({"id": column}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", "a.parquet", [])
    assert table is not None
    texts = table.texts("id", [])
    assert texts is not None
    assert texts.tolist() == [str(2**60 + 1), ""]


def test_two_columns_of_one_name_are_ambiguous() -> None:
    problems: list[Problem] = []
    table = Table(pd.DataFrame([[1, 2, 3]], columns=["a", "a", 1]), "frame")
    assert table.texts("a", problems) is None
    assert table.texts("1", problems) is not None
    assert [str(problem) for problem in problems] == ["frame: 2 columns are called 'a'"]


def test_ragged_rows_leave_the_others_where_they_are(tmp_path: Path) -> None:
    table, problems = read(tmp_path / "a.csv", "id,text\n1,a\n2\n3,b\n4,c,d\n5,e\n")
    assert table is not None
    assert table.frame["id"].tolist() == ["1", "3", "5"]
    assert table.rows.tolist() == [2, 4, 6]
    assert [problem.where for problem in problems] == ["a.csv row 3", "a.csv row 5"]


@pytest.mark.parametrize(
    ("name", "content", "kind", "text"),
    [
        ("a.csv", b"", "empty file", "not even a header"),
        ("a.csv", b"id;name\n1;a\n", "wrong separator", "found ';'"),
        ("a.tsv", b"id,name\n1,a\n", "wrong separator", r"found ','"),
        ("a.csv", b"id,id\n1,2\n", "duplicate column", "'id' stands twice"),
        ("a.csv", b"\nid,name\n1,a\n", "no header", "its first line is empty"),
        ("a.csv", b"id," + b"x" * 200_000 + b"\n1,2\n", "unreadable file", "field larger than field limit (131072)"),
        ("a.csv", b"id,n\xe4me\n1,2\n", "unreadable file", "it is not UTF-8 text"),
        ("a.csv", b"id,name\n" + b"1,name\n" * 9000 + b"1,n\xe4me\n", "unreadable file", "invalid UTF8"),
        ("a.parquet", b"PAR", "unreadable file", "it is not a Parquet file"),
        ("a.xlsx", b"PK", "unknown format", "its name ends in '.xlsx'; tables are read from .csv, .tsv, .parquet"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, kind: str, text: str) -> None:
    table, problems = read(tmp_path / name, content)
    assert table is None
    assert [problem.kind for problem in problems] == [kind]
    assert text in str(problems[0])


def test_a_missing_file(tmp_path: Path) -> None:
    problems: list[Problem] = []
    assert read_table(tmp_path / "none.csv", "none.csv", problems) is None
    assert str(problems[0]) == f"none.csv: there is no such file in {tmp_path}"


def test_texts_of_every_dtype() -> None:
    assert as_texts(pd.Series([1.0, None, 3.0])).tolist() == ["1", "", "3"]
    assert as_texts(pd.Series([1.5, None])).tolist() == ["1.5", ""]
    assert as_texts(pd.Series([2.0**53 - 1, None])).tolist() == ["9007199254740991", ""]
    assert as_texts(pd.Series([1e20])).tolist() == ["1e+20"]
    assert as_texts(pd.Series([1, 2])).tolist() == ["1", "2"]
    assert as_texts(pd.Series(["a", None])).tolist() == ["a", ""]
    assert as_texts(pd.Series(["a", 3, None], dtype=object)).tolist() == ["a", "3", ""]
    assert as_texts(pd.Series(pd.Categorical(["a", None]))).tolist() == ["a", ""]
    assert as_texts(pd.Series([True, False])).tolist() == ["True", "False"]
    assert as_texts(pd.Series([np.inf, 1.0])).tolist() == ["inf", "1.0"]
    assert as_texts(pd.Series([], dtype=float)).tolist() == []


def test_numbers_of_every_dtype() -> None:
    frame = pd.DataFrame(
        {
            "text": ["1.5", "", "nan", "1e3"],
            "int": [1, 2, 3, 4],
            "nullable": pd.array([1, None, 3, 4], dtype="Int64"),
            "bool": [True, False, True, True],
        }
    )
    problems: list[Problem] = []
    table = Table(frame, "frame")
    np.testing.assert_array_equal(table.numbers("text", problems), [1.5, np.nan, np.nan, 1000])
    np.testing.assert_array_equal(table.numbers("int", problems), [1, 2, 3, 4])
    np.testing.assert_array_equal(table.numbers("nullable", problems), [1, np.nan, 3, 4])
    np.testing.assert_array_equal(table.numbers("bool", problems), [1, 0, 1, 1])
    assert not problems
    assert table.numbers("other", problems) is None
    assert str(problems[0]) == "frame: unknown column 'other'; known: bool, int, nullable, text."


def test_numbers_that_are_none() -> None:
    problems: list[Problem] = []
    Table(pd.DataFrame({"a": ["x", "1", "-inf"]}), "frame").numbers("a", problems)
    Table(pd.DataFrame({"b": [1.0, np.inf, np.nan, 1e39]}), "frame").numbers("b", problems)
    assert [str(problem) for problem in problems] == [
        "frame row 0: column 'a' holds 'x'",
        "frame row 2: column 'a' holds '-inf'",
        "frame row 1: column 'b' holds 'inf'",
        "frame row 3: column 'b' holds '1e+39'",
    ]
