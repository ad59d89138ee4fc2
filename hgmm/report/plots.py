"""Curves of a run: loss and validation, what was transferred between branches, how good each branch is.

matplotlib, from the extra ``plots``, is imported when something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from hgmm.training.run_record import RunRecord

__all__ = ["draw_plots", "plots_installed"]

FORMATS = ("png", "svg")

# The palette of Okabe and Ito, told apart with any colour vision; yellow is left out for it fades on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
# Other strides than the colours, so that a line beyond the seventh is another pair, and grey print tells them apart.
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX"

_STYLE: Any = {
    # Names of data sets and branches are the user's, and may have a dollar sign.
    "text.parse_math": False,
    "svg.hashsalt": "hgmm",
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
    "figure.facecolor": "white",
}
_TITLES = {
    "transfer": ("Transfer between branches", "share, training nodes"),
    "branch_accuracy": ("Each branch by itself", "validation accuracy"),
}

Curve = tuple[list[int], list[float]]


def plots_installed() -> bool:
    """Say whether matplotlib is there; this does not import it."""
    return find_spec("matplotlib") is not None


def draw_plots(record: RunRecord) -> dict[str, bytes]:
    """Draw the curves of a run.

    Parameters
    ----------
    record : RunRecord
        Of a single run.

    Returns
    -------
    dict of str to bytes
        PNG and SVG by file name: ``loss`` with loss and validation, and ``<group>`` for each group of figures that the
        epochs have, as ``transfer`` and ``branch_accuracy`` of negative learning. Empty for a run without an epoch.
        Equal records give equal SVG.

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install 'hgmm[plots]'``.
    """
    import matplotlib

    if not record.epochs:
        return {}
    files: dict[str, bytes] = {}
    with matplotlib.rc_context(_STYLE):
        files |= _files("loss", _loss_figure(record))
        groups = dict.fromkeys(name for epoch in record.epochs for name in epoch.get("figures", {}))
        for group in groups:
            title, label = _TITLES.get(group, (group.replace("_", " "), ""))
            figure, axes = _figure(record, title, 1)
            rows = [(epoch["epoch"], epoch.get("figures", {}).get(group, {})) for epoch in record.epochs]
            _lines(axes[0], _curves(rows), label)
            _mark_best(axes[0], record)
            files |= _files(group, figure)
    return files


def _loss_figure(record: RunRecord) -> Any:
    figure, (upper, lower) = _figure(record, "Loss and validation", 2)
    validated = [(epoch["epoch"], epoch["val"]) for epoch in record.epochs]
    loss = {"training": ([epoch["epoch"] for epoch in record.epochs], [epoch["loss"] for epoch in record.epochs])}
    scores = _curves(validated)
    if "loss" in scores:
        loss["validation"] = scores.pop("loss")
    # The accuracy of nodes with one label is their micro-F1, and would be drawn twice.
    if scores.get("accuracy") == scores.get("micro_f1"):
        scores.pop("accuracy", None)
    _lines(upper, loss, "loss")
    _lines(lower, scores, "validation score")
    for axis in (upper, lower):
        _mark_best(axis, record)
    return figure


def _figure(record: RunRecord, title: str, rows: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.2 + 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    model = " ".join(filter(None, (record.model, record.variant)))
    synthetic = ", SYNTHETIC data" if record.data.get("source") == "synthetic" else ""
    figure.suptitle(f"{title}: {record.dataset}, {model}, seed {record.seed}{synthetic}")
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    epochs = [epoch["epoch"] for epoch in record.epochs]
    if max(epochs) - min(epochs) < 2:
        # Between limits that close the locator finds no whole number to mark, or marks halves.
        axes[-1].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes[-1].set_xticks(sorted(set(epochs)))
    return figure, axes


def _curves(rows: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, Curve]:
    """Turn figures by epoch into curves by name; an epoch without the figure is skipped."""
    names = dict.fromkeys(name for _, figures in rows for name in figures)
    return {
        name: ([epoch for epoch, f in rows if name in f], [f[name] for _, f in rows if name in f]) for name in names
    }


def _lines(axis: Any, curves: Mapping[str, Curve], label: str) -> None:
    for number, (name, (epochs, values)) in enumerate(curves.items()):
        axis.plot(
            epochs,
            values,
            label=name.replace("_", " "),
            color=COLOURS[number % len(COLOURS)],
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markevery=max(1, len(epochs) // 10),
            markersize=4,
            linewidth=1.8,
        )
    axis.set_ylabel(label)
    if curves:
        # Beside the curves, where it cannot hide any.
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _mark_best(axis: Any, record: RunRecord) -> None:
    if record.best_epoch:
        axis.axvline(record.best_epoch, color="#808080", linewidth=1, linestyle=(0, (2, 3)))
        place = (record.best_epoch, 1.0)
        axis.annotate(
            "best epoch",
            place,
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=9,
            color="#606060",
        )


def _files(name: str, figure: Any) -> dict[str, bytes]:
    files = {}
    for form in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=120, metadata={"Date": None} if form == "svg" else None)
        files[f"{name}.{form}"] = buffer.getvalue()
    return files
