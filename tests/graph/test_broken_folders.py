"""Five folders broken on purpose; the whole message is compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hgmm.errors import DataError
from hgmm.graph import read_folder

Replace = Callable[[str, str, str], None]
ROWS = (
    "Rows: in a CSV or text file the first line is row 1, as in a spreadsheet; in Parquet files, arrays and DataFrames "
    "the first row is row 0."
)


def message_of(folder: Path) -> str:
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError) as caught:
        read_folder(folder)
    assert sorted(folder.rglob("*")) == before
    return str(caught.value)


def test_ids_that_do_not_fit(shop: Path, replace_in: Replace) -> None:
    replace_in("item.csv", "i4,shoe", "i1,shoe")
    replace_in("item.csv", "i5,hat", ",hat")
    replace_in("graph.yaml", "buys, item]", "buys, itme]")
    (shop / "image_ids.txt").write_text("i2\ni2\nx\n")
    assert message_of(shop) == (
        f"{shop}/graph.yaml: 4 problems found.\n"
        "  empty id (1):\n"
        "    - item.csv row 7: column 'id' is empty\n"
        "  duplicate id (1):\n"
        "    - image_ids.txt row 2: id 'i2' stands already in image_ids.txt row 1\n"
        "  unknown id (1):\n"
        "    - image_ids.txt row 3: 'x' is no id of item.csv\n"
        "  unknown node type (1):\n"
        "    - edge type ('user', 'buys', 'itme'): unknown node type 'itme'; known: item, user. Did you mean 'item'?\n"
        f"{ROWS}"
    )


def test_edges_to_nobody(shop: Path) -> None:
    rows = "".join(f"u{number},i1\n" for number in range(12))
    (shop / "buys.csv").write_text(f"user,item\n7,i1\n\n{rows}7\n8,i2,3\n9,i99\n")
    assert message_of(shop) == (
        f"{shop}/graph.yaml: 15 problems found.\n"
        "  ragged row (2):\n"
        "    - buys.csv row 16: 1 cells under a header of 2: '7'\n"
        "    - buys.csv row 17: 3 cells under a header of 2: '8,i2,3'; "
        "put double quotes around a text with a separator\n"
        "  unknown id (13):\n"
        "    - buys.csv row 4: user 'u0' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 5: user 'u1' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 6: user 'u2' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 7: user 'u3' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 8: user 'u4' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 9: user 'u5' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 10: user 'u6' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 11: user 'u7' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 12: user 'u8' is no id of 'user' (user.parquet)\n"
        "    - buys.csv row 13: user 'u9' is no id of 'user' (user.parquet)\n"
        "    … and 3 more\n"
        f"{ROWS}"
    )


def test_features_that_are_none(shop: Path, replace_in: Replace) -> None:
    replace_in("item.csv", "20,2", "20,")
    replace_in("item.csv", "30,3", "thirty,inf")
    replace_in("item.csv", "green.png", "notes.txt")
    (shop / "notes.txt").write_text("no image")
    (shop / "red.png").unlink()
    np.save(shop / "image.npy", np.array([[0, 1], [np.nan, 3], [4, 5]], dtype=np.float32))
    assert message_of(shop) == (
        f"{shop}/graph.yaml: 7 problems found.\n"
        "  not a finite number (2):\n"
        "    - item.csv row 4: column 'price' holds 'thirty'\n"
        "    - item.csv row 4: column 'weight' holds 'inf'\n"
        "  NaN (2):\n"
        "    - item.csv row 3: 'weight' of modality 'numeric' is empty; fill it or set `missing: mean`\n"
        "    - image.npy row 1: column 0 is nan; leave the row and its id out, or set `missing: mean`\n"
        "  unreadable image (3):\n"
        "    - item.csv row 2: 'red.png': No such file or directory\n"
        "    - item.csv row 4: 'red.png': No such file or directory\n"
        "    - item.csv row 5: 'notes.txt': no image that Pillow can read\n"
        f"{ROWS}"
    )


def test_labels_and_splits_that_contradict(shop: Path, replace_in: Replace) -> None:
    replace_in("graph.yaml", "label: label", "label: {table: labels.csv, id: id, column: class}")
    replace_in("graph.yaml", "{train: 0.5, val: 0.25, test: 0.25, seed: 0}", "{train: a.txt, val: b.txt, test: c.txt}")
    (shop / "labels.csv").write_text("id,class\ni1,shoe\ni2,hat\nghost,hat\ni3,hat\ni3,shoe\n")
    (shop / "a.txt").write_text("i1\ni2\n")
    (shop / "b.txt").write_text("i2\ni9\n")
    (shop / "c.txt").write_text("i3\ni4\n")
    assert message_of(shop) == (
        f"{shop}/graph.yaml: 5 problems found.\n"
        "  label without node (1):\n"
        "    - labels.csv row 4: 'ghost' is no id of item.csv\n"
        "  two labels (1):\n"
        "    - labels.csv row 6: 'i3' has a label in an earlier row\n"
        "  unknown id (1):\n"
        "    - b.txt row 2: 'i9' is no id of item.csv\n"
        "  overlapping splits (1):\n"
        "    - item.csv row 4: id 'i2' is in train and in val\n"
        "  split without label (1):\n"
        "    - item.csv row 6: id 'i4' is in test and has no label\n"
        f"{ROWS}"
    )


def test_files_and_keys_that_are_wrong(shop: Path, replace_in: Replace) -> None:
    replace_in("graph.yaml", "reverse:", "revers:")
    replace_in("graph.yaml", "text: {column: title}", "text: {colunm: title}")
    replace_in("graph.yaml", "numeric: {columns: [price, weight]}", "numeric: {columns: [prize]}")
    replace_in("graph.yaml", "table: item.csv", "table: item.csv\n    labels: label")
    (shop / "user.parquet").write_bytes(b"")
    (shop / "image.npy").unlink()
    (shop / "buys.csv").write_text("user;item\n7;i1\n")
    assert message_of(shop) == (
        f"{shop}/graph.yaml: 7 problems found.\n"
        "  unknown key (3):\n"
        "    - graph.yaml nodes.item: unknown key 'labels'; known: id, label, modalities, name, split, table. "
        "Did you mean 'label'?\n"
        "    - graph.yaml edges[1]: unknown key 'revers'; known: dst, reverse, src, table, type. "
        "Did you mean 'reverse'?\n"
        "    - modality 'text' of 'item': unknown key 'colunm'; known: array, column, columns, encoder, file, ids, "
        "key, kind, missing, width. Did you mean 'column' or 'columns'?\n"
        "  missing column (1):\n"
        "    - item.csv: unknown column 'prize'; known: colour, id, label, photo, price, title, weight. "
        "Did you mean 'price'?\n"
        "  missing file (1):\n"
        f"    - image.npy: there is no such file in {shop}\n"
        "  empty file (1):\n"
        "    - user.parquet: it holds nothing, not even a header; export it again\n"
        "  wrong separator (1):\n"
        "    - buys.csv: its only column is 'user;item'; expected ',' between columns, found ';'; separate with commas "
        "(.csv) or tabs (.tsv)"
    )
