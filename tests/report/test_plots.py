from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from typing import Any

import pytest

from hgmm.report import draw_plots, plots_installed
from hgmm.training import RunRecord

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed: pip install 'hgmm[plots]'"
)


def record(epochs: list[dict[str, Any]], **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "status": "done",
        "task": "node-classification",
        "model": "graph-mnl",
        "variant": None,
        "dataset": "shop",
        "seed": 3,
        "data": {"source": "local"},
        "config": {},
        "best_epoch": 2,
        "epochs": epochs,
    }
    return RunRecord(**{**fields, **changes})


def epoch(number: int, *, validated: bool = True, branches: int = 2) -> dict[str, Any]:
    val = {"loss": 1.0, "micro_f1": 0.5, "macro_f1": 0.4, "accuracy": 0.5} if validated else {}
    accuracy = {f"branch {n}": n / branches for n in range(branches)}
    transfer = {"inferior": 0.5, "gate": number / 10, "dominant_accuracy": 0.9}
    groups = {"transfer": transfer, **({"branch_accuracy": accuracy} if validated else {})}
    return {"epoch": number, "loss": 2.0 / number, "val": val, "figures": groups}


@needs_matplotlib
def test_every_group_of_figures_has_its_files() -> None:
    files = draw_plots(record([epoch(1), epoch(2, validated=False), epoch(3)]))
    stems = ("loss", "transfer", "branch_accuracy")
    assert set(files) == {f"{stem}.{form}" for stem in stems for form in ("png", "svg")}
    for name, content in files.items():
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml"), name


@needs_matplotlib
def test_what_is_written_can_be_read() -> None:
    files = draw_plots(record([epoch(1), epoch(2)]))
    loss = files["loss.svg"].decode()
    for words in ("Loss and validation: shop, graph-mnl, seed 3", ">epoch<", ">micro f1<", ">training<", "best epoch"):
        assert words in loss
    # It is the micro-F1 where each node has one label.
    assert ">accuracy<" not in loss
    assert ">dominant accuracy<" in files["transfer.svg"].decode()
    assert ">branch 1<" in files["branch_accuracy.svg"].decode()


@needs_matplotlib
def test_curves_without_validation_variant_or_best_epoch() -> None:
    bare = [{"epoch": number, "loss": 1.0, "val": {}} for number in (1, 2)]
    files = draw_plots(record(bare, best_epoch=None, variant="sharp", data={"source": "synthetic"}))
    assert set(files) == {"loss.png", "loss.svg"}
    loss = files["loss.svg"].decode()
    assert "graph-mnl sharp, seed 3, SYNTHETIC data" in loss
    assert "best epoch" not in loss


@needs_matplotlib
def test_names_are_no_formulas() -> None:
    files = draw_plots(record([epoch(1)], dataset="$shop_$"))
    assert "Loss and validation: $shop_$, graph-mnl" in files["loss.svg"].decode()


@needs_matplotlib
def test_many_branches_are_told_apart() -> None:
    from hgmm.report.plots import COLOURS, DASHES, MARKERS

    looks = [(COLOURS[n % len(COLOURS)], DASHES[n % len(DASHES)], MARKERS[n % len(MARKERS)]) for n in range(28)]
    assert len(set(looks)) == 28
    assert draw_plots(record([epoch(1, branches=9)]))["branch_accuracy.svg"].count(b">branch ") == 9


@needs_matplotlib
def test_equal_records_give_equal_files() -> None:
    first, second = (draw_plots(record([epoch(1), epoch(2)])) for _ in range(2))
    assert first == second


@needs_matplotlib
def test_a_run_without_an_epoch_has_no_curves() -> None:
    assert draw_plots(record([])) == {}


def test_looking_for_matplotlib_does_not_import_it() -> None:
    code = "import sys; from hgmm.report import plots_installed; plots_installed(); print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "False"
    assert plots_installed() is (importlib.util.find_spec("matplotlib") is not None)


def ticks(svg: bytes) -> list[str]:
    """Return the labels below the last axes of a figure."""
    axis = svg.decode().split('id="matplotlib.axis_')[-2]
    return [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", axis) if text != "epoch"]


@needs_matplotlib
@pytest.mark.parametrize(("numbers", "expected"), [([1], ["1"]), ([1, 2], ["1", "2"]), ([7, 8], ["7", "8"])])
def test_a_short_run_has_whole_epochs_only(numbers: list[int], expected: list[str]) -> None:
    for content in draw_plots(record([epoch(number) for number in numbers], best_epoch=numbers[0])).values():
        if content.startswith(b"<?xml"):
            assert ticks(content) == expected
    longer = ticks(draw_plots(record([epoch(number) for number in range(1, 31)]))["loss.svg"])
    assert longer
    assert all(label.isdigit() for label in longer)
