"""What is said before and after a run: its settings, where its data comes from, its scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hgmm.cli.console import format_score, make_table, print_note, print_table

if TYPE_CHECKING:
    from hgmm.graph import MultimodalGraph
    from hgmm.training import FitResult, RunConfig, RunRecord, Trainer
    from hgmm.training.progress import EpochRecord

__all__ = ["Announcement", "data_words", "describe_run", "print_config", "print_result", "print_scores"]

METRICS = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "mrr": "MRR",
    "hits_at_1": "Hits@1",
    "hits_at_3": "Hits@3",
    "hits_at_10": "Hits@10",
    "mean_rank": "mean rank",
    "adjusted_mean_rank_index": "adjusted mean rank index",
}

_DATA_WORDS = {
    "official": "published data",
    "local": "local data",
    "embedded": "embedded data",
    "synthetic": "SYNTHETIC data",
}


def data_words(data: dict[str, Any]) -> str:
    """Say in a few words what scores were reached on, from the ``data`` of a record."""
    words = _DATA_WORDS.get(str(data.get("source")), "unknown data")
    absent = list(data.get("absent", ()))
    if data.get("source") != "synthetic" and absent:
        words += f" without {', '.join(absent)}"
    damage = list(data.get("corrupted", ()))
    return f"{words} corrupted by {', '.join(damage)}" if damage else words


def describe_run(config: RunConfig) -> str:
    """Name data set, what was dropped or corrupted, model and variant in one line."""
    dropped = f" without {', '.join(config.data.drop_modalities)}" if config.data.drop_modalities else ""
    damage = f" with {', '.join(config.data.corrupt)}" if config.data.corrupt else ""
    variant = config.model.options.get("variant")
    return f"{config.data.dataset}{dropped}{damage} · {config.model.name}{f' {variant}' if variant else ''}"


def print_config(console: Console, config: RunConfig) -> None:
    """Show the resolved configuration, a line a section that the data's task reads.

    Of negative learning that is off, only that it is.
    """
    from hgmm import datasets

    of_other_tasks = "negative" if datasets.info(config.data.dataset).task == "link-prediction" else "link"
    for section, entries in config.to_dict().items():
        if section == of_other_tasks:
            continue
        if section == "negative" and not entries["weight"]:
            entries = {"weight": entries["weight"]}
        settings = "  ".join(f"{key}={value}" for key, value in entries.items() if value not in (None, []))
        # A terminal breaks a long line inside a word, a log keeps it whole.
        console.print(f"{section}: {settings}", style="dim", soft_wrap=not console.is_terminal)


class Announcement:
    """Says once, before the first epoch, what the reader must know about the data."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = False

    def on_fit_start(self, trainer: Trainer, graph: MultimodalGraph) -> None:
        """Show the note about the data, if there is one."""
        source = graph.source
        if not self._said and graph.triples is not None:
            self._console.print(f"graph: {_in_graph(graph)}", soft_wrap=True)
        if not self._said and (source.note or source.source == "synthetic"):
            title = "This is synthetic data" if source.source == "synthetic" else "About the data"
            print_note(self._console, source.note or "The graph was generated; it is not real data.", title=title)
        self._said = True

    def on_step(self, step: int, num_steps: int) -> None:
        """Say nothing."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Say nothing."""

    def on_fit_end(self, result: FitResult) -> None:
        """Say nothing."""


def _in_graph(graph: MultimodalGraph) -> str:
    """Say what there is to train on, and who has which modality."""
    from hgmm.graph.schema import STRUCTURE

    assert graph.triples is not None
    triples, ntype = graph.triples, graph.schema.ntypes[0]
    has = zip(graph.schema.modality_names, graph.present(ntype).sum(0).tolist(), strict=True)
    modalities = [f"{count:,} with {name}" for name, count in has if name != STRUCTURE] or ["no modality"]
    sizes = [f"{len(rows):,} {split}" for split, rows in triples.splits.items()]
    return (
        f"{triples.num_entities:,} entities ({', '.join(modalities)}), {triples.num_relations:,} relations, "
        f"{', '.join(sizes)} triples"
    )


def print_result(console: Console, record: RunRecord, run_dir: Path) -> None:
    """Show the test scores of a run, what it cost, where it is, and what one can do with it."""
    console.print()
    print_scores(console, record)
    epochs = _num_epochs(record, run_dir)
    costs = [f"{record.seconds / epochs:.3f} s an epoch"] if epochs else []
    costs.append(f"{record.peak_memory_mib:,.0f} MiB peak memory")
    if record.throughput:
        costs.append(f"{record.throughput['value']:,.0f} {record.throughput['unit']}")
    if record.best_epoch:
        costs.append(f"best epoch {record.best_epoch} of {epochs}")
    console.print(", ".join(costs), soft_wrap=True)
    console.print(f"run folder: {run_dir}", soft_wrap=True)
    run = run_dir / record.runs[0]["path"] if record.runs else run_dir
    console.print(f"next: hgmm predict {run} -o predictions.csv", soft_wrap=True)
    if record.task == "link-prediction":
        console.print(f"      hgmm predict {run} --head NAME --relation NAME", soft_wrap=True)
    console.print(f"      hgmm embed {run} -o embeddings.npz", soft_wrap=True)
    console.print("      hgmm runs", soft_wrap=True)


def print_scores(console: Console, record: RunRecord) -> None:
    """Show the test scores, beside the published ones where the data is the published data."""
    runs = f", {len(record.runs)} runs" if record.runs else ""
    where = f"Test scores on {record.dataset} ({data_words(record.data)}{runs})"
    if not record.test:
        console.print(f"{where}: none, for there are no test nodes.")
        return
    published, variant = _published(record)
    ours = "mean ± std" if record.test_std else "this run"
    theirs = f"published ({variant})" if variant else "published"
    table = make_table("", ours, *([theirs] if published else []), right=(ours, theirs))
    for key, name in METRICS.items():
        if key in record.test:
            std = record.test_std[key] if record.test_std else None
            beside = [format_score(published.get(key))] if published else []
            table.add_row(name, format_score(record.test[key], std), *beside)
    print_table(console, table, title=where)


def _published(record: RunRecord) -> tuple[dict[str, float], str | None]:
    """Return published scores and their variant; nothing for data that is not the published data, whole and intact."""
    from hgmm import datasets

    data = record.config.get("data", {})
    changed = data.get("drop_modalities") or data.get("corrupt")
    if record.data.get("source") != "official" or changed or record.dataset not in datasets.available():
        return {}, None
    info = datasets.info(record.dataset)
    return dict(info.published_scores), info.published_variant


def _num_epochs(record: RunRecord, run_dir: Path) -> int:
    from hgmm.training import RunRecord

    if not record.runs:
        return len(record.epochs)
    return sum(len(RunRecord.load(run_dir / entry["path"]).epochs) for entry in record.runs)
