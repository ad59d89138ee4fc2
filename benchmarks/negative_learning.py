"""Does negative learning help? Train GraphMNL with each form of the loss on the same seeds, and compare seed by seed.

    python -m benchmarks.negative_learning --data-root DIR --json rows.jsonl

Every arm shares data, split, starting weights and schedule with the arm `ce`, cross-entropy only; only the loss
differs. A seed draws the starting weights, dropout, and where the data are generated or damaged these too.

Runs that the file already holds with the same settings are not repeated, so a long series can be stopped and goes on.
Choose settings with ``--seeds 0-4 --select``, which shows validation figures only; the default seeds are then fresh.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, NamedTuple

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks._measure import check_folder
from benchmarks._series import (
    Comparison,
    Rows,
    chosen_names,
    chosen_options,
    chosen_seeds,
    compare,
    run_key,
    run_missing,
)
from benchmarks._table import figure, make_console, make_table, print_table
from hgmm import datasets
from hgmm.datasets.synthetic import synthetic
from hgmm.errors import DataError, HgmmError
from hgmm.graph import Corruption, MultimodalGraph, corrupt
from hgmm.negative_learning import arbitrate, transfer_shares
from hgmm.training import NegativeLearningTask, NodeClassificationTask, Trainer, configure
from hgmm.training.session import build_model

__all__ = [
    "ARMS",
    "DATA",
    "Claim",
    "Comparison",
    "Job",
    "calibration_error",
    "claims",
    "compare",
    "holm",
    "main",
    "train",
]

BASE, IMITATION, DEFAULT = "ce", "imitation", "nckd-soft"


def _arm(variant: str, gate: str, weight: float, temperature: float) -> dict[str, Any]:
    return {
        "negative.variant": variant,
        "negative.gate": gate,
        "negative.weight": weight,
        "negative.temperature": temperature,
    }


# Weights and temperatures are the best of those tried for each arm, by validation on seeds 0 to 4.
ARMS: dict[str, dict[str, Any]] = {
    BASE: {"negative.weight": 0.0},
    IMITATION: _arm("kl", "off", 0.3, 1.0),
    "mnl": _arm("mnl", "off", 1.0, 1.0),
    "nl": _arm("nl", "off", 0.3, 1.0),
    "nckd": _arm("nckd", "off", 0.3, 4.0),
    DEFAULT: _arm("nckd", "soft", 0.3, 4.0),
    "graph-mnl+": _arm("nckd", "hard", 0.3, 4.0),
}
# Short enough for five hundred runs on two cores; validation every few epochs, because it costs half a step.
SCHEDULE = {"train.epochs": 80, "train.eval_every": 4, "train.patience": 0, "train.num_threads": 1}
ALPHA = 0.05
BINS = 15


class Data(NamedTuple):
    """A graph for each seed, the dataset whose settings it is trained with, and what differs from `SCHEDULE`."""

    dataset: str
    make: Callable[[str | None, int], MultimodalGraph]
    schedule: Mapping[str, Any] = MappingProxyType({})


def _named(name: str, root: str | None, seed: int) -> MultimodalGraph:
    graph: MultimodalGraph = datasets.load(name, root=root)
    return graph


def _imdb(root: str | None, seed: int) -> MultimodalGraph:
    graph = _named("imdb", root, seed)
    if graph.source.source == "synthetic":
        raise DataError("imdb: its published files are not here, and the stand-in would say nothing; see --data-root")
    # The features of the posters are not published; with copies of the text in their place two branches are one.
    return graph.drop_modalities(["image"]) if "image" in graph.schema.modality_names else graph


def _planted(strength: float, root: str | None, seed: int) -> MultimodalGraph:
    return synthetic(
        {"item": 1200},
        {("item", "similar", "item"): 9600},
        {"item": {"text": 32, "image": 32}},
        classes=8,
        reliability=1.0,
        imbalance=0.7,
        imbalance_strength=strength,
        homophily=0.4,
        split=(180, 180, 840),
        seed=seed,
        name=f"planted-{strength:g}",
    )


def _emoji_without(share: float, root: str | None, seed: int) -> MultimodalGraph:
    return corrupt(_named("emoji", root, seed), [Corruption("missing", share, "image")], seed=seed)


DATA: dict[str, Data] = {
    "emoji": Data("emoji", partial(_named, "emoji")),
    "emoji-image-30": Data("emoji", partial(_emoji_without, 0.3)),
    "emoji-image-60": Data("emoji", partial(_emoji_without, 0.6)),
    # An epoch takes five times as long, with word counts of width 3,066 at 11,616 nodes.
    "imdb": Data("imdb", _imdb, MappingProxyType({"train.epochs": 40})),
    "planted-0.7": Data("planted-imbalance", partial(_planted, 0.7)),
    "planted-0.85": Data("planted-imbalance", partial(_planted, 0.85)),
    "planted-1": Data("planted-imbalance", partial(_planted, 1.0)),
}
PLANTED = tuple(name for name in DATA if name.startswith("planted"))


@dataclass(frozen=True)
class Job:
    """One run: which data, which arm, which seed, and what else is set."""

    data: str
    arm: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    root: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All that the run is told beside the defaults of model and dataset."""
        # Without negative learning its options have no meaning, and the run need not be repeated for them.
        heard = {key: x for key, x in self.options.items() if self.arm != BASE or not key.startswith("negative.")}
        return {**SCHEDULE, **DATA[self.data].schedule, **ARMS[self.arm], **heard}

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells runs apart; a row of the file has the same."""
        return run_key(self.data, self.arm, self.seed, self.settings)


def train(job: Job) -> dict[str, Any]:
    """Run a job and return its row; test figures are those of the weights with the best validation accuracy."""
    torch.set_num_threads(1)
    data = DATA[job.data]
    graph = data.make(job.root, job.seed)
    own = {"data.dataset": data.dataset, "model.name": "graph-mnl", "train.seed": job.seed, "train.monitor": "accuracy"}
    config = configure(overrides={**own, **job.settings})
    model = build_model(config, graph)
    task = NegativeLearningTask(config.negative, NodeClassificationTask.from_config(config.train))
    result = Trainer(model, task, config.train).fit(graph)
    best = next(entry for entry in result.epochs if entry.epoch == result.best_epoch)
    target = graph.labels[graph.test_idx]
    with torch.no_grad():
        output = model.eval()(graph, graph.test_idx)
    # As at a node whose label is unknown, which is what the test nodes are.
    decision = arbitrate(output.branch_logits, output.logits, available=output.available)
    held_out = transfer_shares(
        decision, decision.pairs.float(), output.branch_logits, target, available=output.available
    )
    learned = best.figures.get("transfer", {})
    return {
        "data": job.data,
        "arm": job.arm,
        "seed": job.seed,
        "settings": job.settings,
        "best_epoch": result.best_epoch,
        "val": best.val["accuracy"],
        **{f"test_{name}": value for name, value in task.metrics(output.logits, target).items()},
        "test_calibration_error": calibration_error(output.logits, target),
        "test_dominant_accuracy": held_out["dominant_accuracy"],
        "test_harmful": held_out["harmful"],
        "train_dominant_accuracy": learned.get("dominant_accuracy"),
        "train_harmful": learned.get("harmful"),
    }


def calibration_error(logits: Tensor, target: Tensor) -> float:
    """Return the expected calibration error in [0, 1]: confidence against accuracy in bins of equal width.

    Parameters
    ----------
    logits, target
        ``(n, C)``, and ``(n,)`` int64.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    right = (predicted == target).double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gap = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, confidence - right)
    return float(gap.abs().sum() / max(1, len(target)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that may be compared with one level although there are several (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


class Claim(NamedTuple):
    """What is tested: whether the default arm differs from another one."""

    data: str
    base: str
    comparison: Comparison
    p_value: float


def claims(rows: Rows) -> list[Claim]:
    """Test the default against cross-entropy everywhere, and against imitation where the dominant branch misleads."""
    pairs = [(data, BASE) for data in DATA] + [(data, IMITATION) for data in PLANTED]
    found = [(data, base, compare(rows, data, DEFAULT, base, "test_accuracy")) for data, base in pairs]
    found = [(data, base, each) for data, base, each in found if len(each.differences) > 1]
    adjusted = holm([each.p_value for *_, each in found])
    return [Claim(*each, p) for each, p in zip(found, adjusted, strict=True)]


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def _mean(rows: Iterable[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return fmean(values) if values else None


def _signed(comparison: Comparison) -> str:
    if math.isnan(comparison.mean):
        return ""
    return f"{100 * comparison.mean:+.2f} ± {_percent(comparison.standard_error, 2)}"


def show(console: Console, rows: Rows, data: str, arms: Sequence[str], *, select: bool) -> None:
    """Print the arms on one set of data; all in percent, differences from cross-entropy with their standard error."""
    shown = ["val", "val diff"] if select else ["val", "test", "test diff", "cal.\nerror", "domin.\nright", "harm\nful"]
    table = make_table(["arm"], shown)
    seeds: set[int] = set()
    for arm in arms:
        runs = rows.get((data, arm), {})
        if not runs:
            continue
        seeds |= runs.keys()
        each = list(runs.values())
        cells = [_percent(_mean(each, "val"))]
        if select:
            cells.append(_signed(compare(rows, data, arm, BASE, "val")))
        else:
            tests = [row["test_accuracy"] for row in each]
            spread = _percent(stdev(tests)) if len(tests) > 1 else ""
            cells += [f"{_percent(fmean(tests))} ± {spread}", _signed(compare(rows, data, arm, BASE, "test_accuracy"))]
            cells += [_percent(_mean(each, "test_calibration_error"))]
            cells += [_percent(_mean(each, f"test_{name}")) for name in ("dominant_accuracy", "harmful")]
        table.add_row(arm, *cells)
    numbers = ", ".join(map(str, sorted(seeds)))
    print_table(console, table, title=f"{data}, seeds {numbers}", caption="percent; ± standard deviation or error")


def show_claims(console: Console, found: Sequence[Claim]) -> None:
    """Print what is claimed, with p-values after Holm's correction."""
    table = make_table(["data", f"{DEFAULT} against"], ["difference", "p"])
    for claim in found:
        table.add_row(claim.data, claim.base, _signed(claim.comparison), figure(claim.p_value))
    caption = f"paired t-tests, corrected for {len(found)} comparisons (Holm); significant below {ALPHA}"
    print_table(console, table, title="Claims", caption=caption)


@click.command(help=__doc__)
@click.option("--seeds", default="5-14", show_default=True, help="FIRST-LAST.")
@click.option("--data", "data_names", help=f"Comma-separated, of {', '.join(DATA)}; default: all whose files are here.")
@click.option("--arms", "arm_names", help=f"Comma-separated, of {', '.join(ARMS)}; default: all.")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of published files, for imdb.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of all arms.")
@click.option("--select", is_flag=True, help="Show validation figures only.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes of one thread.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="JSON Lines: kept and added to."
)
def main(
    seeds: str,
    data_names: str | None,
    arm_names: str | None,
    data_root: str | None,
    pairs: tuple[str, ...],
    select: bool,
    workers: int,
    json_path: Path | None,
) -> None:
    check_folder(json_path)
    console = make_console()
    arms, options = chosen_names(arm_names, ARMS, "arms"), chosen_options(pairs)
    names = chosen_names(data_names, DATA, "data")
    arms += [BASE] if BASE not in arms else []
    try:
        for name in list(names):
            try:
                DATA[name].make(data_root, 0)
            except DataError as error:
                if data_names is not None:
                    raise
                console.print(f"skipped: {name}, {error}")
                names.remove(name)
        jobs = [Job(*each, options, data_root) for each in product(names, arms, chosen_seeds(seeds))]
        rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for row in run_missing(train, jobs, json_path, workers):
            rows.setdefault((row["data"], row["arm"]), {})[row["seed"]] = row
    except HgmmError as error:
        raise click.ClickException(str(error)) from error
    for name in names:
        show(console, rows, name, arms, select=select)
    if not select:
        show_claims(console, claims(rows))


if __name__ == "__main__":
    main()
