"""``hgmm predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hgmm.cli.backend import check_backend
from hgmm.cli.completion import dataset_names, run_folders
from hgmm.cli.console import format_score, make_console, make_table, print_table
from hgmm.cli.export import TABLE_FORMATS, check_format, write_table
from hgmm.cli.wording import remember_given

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict"]


@click.command(short_help="Predict the class of every node, or complete triples.")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .csv or .parquet file. May be left out for one question, whose answers are then shown.",
)
@click.option("--dataset", shell_complete=dataset_names, help="Name or ./folder.  [default: the run's]")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the published files.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: the run's]")
@click.option("--head", help="Of a knowledge graph: the head of the question; its tails are asked for.")
@click.option("--relation", help="Of a knowledge graph: the relation of the question.")
@click.option("--tail", help="Of a knowledge graph: the tail of the question; its heads are asked for.")
@click.option("--top", type=click.IntRange(min=1), default=10, help="Answers to the question.  [default: 10]")
def predict(
    run: Path,
    output: Path | None,
    dataset: str | None,
    data_root: str | None,
    device: str | None,
    head: str | None,
    relation: str | None,
    tail: str | None,
    top: int,
) -> None:
    """Predict the class of every target node, or complete triples, with the trained model in the folder RUN.

    The table holds ids, predicted class, the probability of each class and the weight of each modality or branch. A
    folder given with --dataset is read with what was fitted in training; it may have new nodes, and need not have
    labels.

    Of a knowledge graph the table holds the best answers by name to the questions of the test triples, or to the one
    question of --relation with --head or --tail, such as --head Ada --relation "born in"; what the training triples
    say already is left out.
    """
    from hgmm.cli.results import data_words
    from hgmm.training import load_run

    if relation is None and (head, tail) != (None, None):
        raise click.UsageError("--head and --tail need --relation.")
    if output is not None:
        check_format(output, TABLE_FORMATS)
    elif relation is None:
        raise click.UsageError("-o FILE is needed; only the answers to one question, --relation, are shown without.")
    remember_given({"data.dataset": "--dataset", "train.device": "--device"})
    check_backend()
    trained = load_run(run, device=device)
    graph = trained.load_graph(dataset, root=data_root)
    if relation is None:
        table = trained.predict(graph).table()
    else:
        table = trained.complete(graph, [(head, relation, tail)], top=top).table()
    where = f"{graph.name} ({data_words(graph.source.to_dict())})"
    if output is None:
        _show(table, f"Answers for {where}, known ones left out")
        return
    write_table(table, output)
    make_console().print(f"{len(table):,} predictions for {where} in {output}", soft_wrap=True)


def _show(table: pd.DataFrame, title: str) -> None:
    columns = ("position", "head", "relation", "tail", "score")
    shown = make_table(*columns, right=("position", "score"))
    for row in table[list(columns)].itertuples(index=False):
        shown.add_row(*(format_score(cell) if isinstance(cell, float) else str(cell) for cell in row))
    print_table(make_console(), shown, title=title)
