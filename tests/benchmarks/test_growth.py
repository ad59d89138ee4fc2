from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from benchmarks import growth
from benchmarks.epoch import OP

ROW = {"op": OP, "provider": "hgmm", "mode": "both", "dtype": "float32", "layers": 1}


def write(path: Path, *edges: int, **changes: object) -> Path:
    rows = [{**ROW, "num_edges": e, "median_ms": e / 100, "peak_mib": e / 1000, **changes} for e in edges]
    parts = [{**row, "mode": mode, "peak_mib": None} for row in rows for mode in ("forward", "backward")]
    others = [{**row, "op": "neighbor_mean"} for row in rows]
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*rows[::-1], *parts, *others])
    return path


def call(rows: Path, picture: Path) -> Result:
    return CliRunner().invoke(growth.main, [str(rows), str(picture)])


def test_curves_are_whole_epochs_by_provider_ascending(tmp_path: Path) -> None:
    path = write(tmp_path / "rows", 1000, 10_000, 100_000)
    write(path, 1000, 10_000, provider="other")
    assert growth.curves(path) == {
        "hgmm": [(1000, 0.01, 1), (10_000, 0.1, 10), (100_000, 1, 100)],
        "other": [(1000, 0.01, 1), (10_000, 0.1, 10)],
    }


def test_equal_rows_give_equal_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hgmm[plots]'")
    path = write(tmp_path / "rows", 1000, 10_000, 100_000)
    pictures = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for picture in pictures:
        result = call(path, picture)
        assert result.exit_code == 0, result.output
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second
    assert ElementTree.fromstring(first).tag.endswith("svg")
    assert b"<dc:date>" not in first


@pytest.mark.parametrize(
    ("edges", "again", "message"),
    [((1000,), 1, "at least two numbers of edges"), ((1000, 2000), 2, "'hgmm': [1000.0, 1000.0, 2000.0, 2000.0]")],
)
def test_rows_that_are_no_growth(edges: tuple[int, ...], again: int, message: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hgmm[plots]'")
    path = tmp_path / "rows"
    for layers in range(again):
        write(path, *edges, layers=layers)
    result = call(path, tmp_path / "a.svg")
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.parametrize(("picture", "message"), [("a.pdf", "got 'a.pdf'"), ("absent/a.svg", "absent' does not exist")])
def test_where_no_picture_goes(picture: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hgmm[plots]'")
    result = call(write(tmp_path / "rows", 1000, 2000), tmp_path / picture)
    assert result.exit_code == 2
    assert message in result.output


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "find_spec", lambda name: None)
    result = call(write(tmp_path / "rows", 1000, 2000), tmp_path / "a.svg")
    assert result.exit_code == 2
    assert "pip install 'hgmm[plots]'" in result.output
