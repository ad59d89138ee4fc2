from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SHOP_YAML = """\
target: item
nodes:
  item:
    table: item.csv
    id: id
    name: title
    label: label
    split: {train: 0.5, val: 0.25, test: 0.25, seed: 0}
    modalities:
      numeric: {columns: [price, weight]}
      text: {column: title}
      categorical: [colour]
      image: {file: image.npy, ids: image_ids.txt}
      photo: {column: photo, kind: image}
  user: {table: user.parquet, id: id}
edges:
  - {type: [user, buys, item], table: buys.csv, src: user, dst: item, reverse: bought_by}
"""
ITEM_CSV = """\
id,label,title,price,weight,colour,photo
007,shoe,red shoe,10,1,red,red.png
i1,shoe,blue shoe,20,2,blue,
i2,hat,green hat,30,3,red,red.png
i3,hat,,,,,green.png
i4,shoe,a shoe,40,4,blue,
i5,hat,a hat,50,5,blue,
i6,,nobody knows,60,6,red,
i7,hat,"hat, large",70,7,red,
i8,shoe,shoe,80,8,red,
"""


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def write_shop(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(SHOP_YAML)
    (folder / "item.csv").write_text(ITEM_CSV)
    pd.DataFrame({"id": [7, 8, 9]}).to_parquet(folder / "user.parquet")
    (folder / "buys.csv").write_text("user,item\n7,007\n7,i1\n8,i2\n9,i3\n9,i3\n")
    np.save(folder / "image.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    (folder / "image_ids.txt").write_text("i2\ni1\n007\n")
    Image.new("RGB", (5, 4), "red").save(folder / "red.png")
    Image.new("RGB", (5, 4), "green").save(folder / "green.png")
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder in which every kind of modality occurs; tests break it."""
    return write_shop(tmp_path / "shop")


@pytest.fixture
def replace_in(shop: Path) -> Callable[[str, str, str], None]:
    def replace(file: str, old: str, new: str) -> None:
        text = (shop / file).read_text()
        assert old in text, f"{file} has no {old!r}"
        (shop / file).write_text(text.replace(old, new))

    return replace
