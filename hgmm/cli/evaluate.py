"""``hgmm evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from hgmm.cli.backend import check_backend
from hgmm.cli.completion import dataset_names, run_folders
from hgmm.cli.console import format_score, make_console, make_table, print_table
from hgmm.cli.wording import remember_given

__all__ = ["evaluate"]


@click.command(short_help="Score a trained model.")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.option("--dataset", shell_complete=dataset_names, help="Name or ./folder.  [default: the run's]")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the published files.")
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), help="What to score.  [default: test, else all labelled]"
)
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: the run's]")
def evaluate(run: Path, dataset: str | None, data_root: str | None, split: str | None, device: str | None) -> None:
    """Score the trained model in the folder RUN on labelled nodes, or on triples of a knowledge graph."""
    from hgmm.cli.results import METRICS, data_words
    from hgmm.training import load_run

    remember_given({"data.dataset": "--dataset", "train.device": "--device"})
    check_backend()
    trained = load_run(run, device=device)
    graph = trained.load_graph(dataset, root=data_root)
    figures = trained.evaluate(graph, split=split)
    if trained.ranks_triples:
        what = f"{split or 'test'} triples, filtered ranks of both ends"
    else:
        what = f"{split or ('test' if len(graph.test_idx) else 'all labelled')} nodes"
    title = f"Scores on {graph.name}, {what} ({data_words(graph.source.to_dict())})"
    table = make_table("", "score", right=("score",))
    for key, name in METRICS.items():
        if key in figures:
            table.add_row(name, format_score(figures[key]))
    print_table(make_console(), table, title=title)
