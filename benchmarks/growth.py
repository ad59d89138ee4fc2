"""Draw how seconds and memory of an epoch grow with the number of edges, from rows of `benchmarks.epoch`.

python -m benchmarks.growth benchmarks/results/growth.jsonl docs/img/growth.svg
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks.compare import read_rows
from benchmarks.epoch import OP

__all__ = ["Curves", "curves", "draw", "main"]

# By provider its (edges, seconds, MiB), ascending.
Curves = Mapping[str, Sequence[tuple[float, float, float]]]

# Readable on white and on black alike.
INK = "#808080"
COLOURS = ("#2a8fd0", "#e0861a", "#c2558f", "#3aa076")
MARKERS = "osD^"
PANELS = (("seconds an epoch", 1), ("peak memory an epoch, MiB", 2))


def curves(path: Path) -> dict[str, list[tuple[float, float, float]]]:
    """Read the rows that are whole epochs.

    Raises
    ------
    click.ClickException
        If a provider has not at least two sizes, or rows of one provider differ in more than the number of edges.
    """
    rows = [row for row in read_rows(path).values() if row.get("op") == OP and row.get("peak_mib") is not None]
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in sorted(rows, key=lambda row: row["num_edges"]):
        point = (float(row["num_edges"]), row["median_ms"] / 1e3, float(row["peak_mib"]))
        found.setdefault(row["provider"], []).append(point)
    numbers = [[edges for edges, *_ in points] for points in found.values()]
    if not any(len(edges) > 1 for edges in numbers) or any(len(edges) > len(set(edges)) for edges in numbers):
        raise click.ClickException(
            f"{path}: expected rows of {OP} with at least two numbers of edges and each once a provider, got "
            f"{dict(zip(found, numbers, strict=True))}; write them with benchmarks.epoch --edges 1e4,1e5 --json FILE"
        )
    return found


def draw(found: Curves, path: Path) -> None:
    """Draw both panels; the format is that of the file's ending. Equal rows give equal SVG files."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "svg.hashsalt": "hgmm",
        "font.size": 11,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        axes = figure.subplots(1, len(PANELS))
        for axis, (title, place) in zip(axes, PANELS, strict=True):
            _panel(axis, found, lambda point, place=place: point[place])
            axis.set_title(title, fontsize=11)
        axes[0].legend(frameon=False, fontsize=10)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, transparent=True, metadata=metadata)


def _panel(axis: Any, found: Curves, value: Callable[[tuple[float, float, float]], float]) -> None:
    for number, (provider, points) in enumerate(found.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axis.plot([p[0] for p in points], [value(p) for p in points], color=colour, marker=marker, label=provider)
    # Through the last point of the longest curve.
    longest = max(found.values(), key=lambda points: points[-1][0] / points[0][0])
    ends = [longest[0][0], longest[-1][0]]
    slope = value(longest[-1]) / ends[1]
    axis.plot(ends, [slope * edges for edges in ends], color=INK, linestyle="--", linewidth=1, label="∝ edges")
    axis.set(xscale="log", yscale="log", xlabel="edges")
    axis.set_facecolor("none")
    axis.grid(color=INK, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


@click.command(help=__doc__)
@click.argument("rows", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
def main(rows: Path, picture: Path) -> None:
    if find_spec("matplotlib") is None:
        raise click.UsageError("drawing needs matplotlib, which is not installed: pip install 'hgmm[plots]'")
    if picture.suffix not in (".svg", ".png"):
        raise click.BadParameter(
            f"expected a name that ends in .svg or .png, got {picture.name!r}", param_hint="PICTURE"
        )
    if not picture.parent.is_dir():
        raise click.BadParameter(f"folder {str(picture.parent)!r} does not exist; create it", param_hint="PICTURE")
    draw(curves(rows), picture)


if __name__ == "__main__":
    main()
