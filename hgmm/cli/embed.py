"""``hgmm embed``."""

from __future__ import annotations

from pathlib import Path

import click

from hgmm.cli.backend import check_backend
from hgmm.cli.completion import dataset_names, run_folders
from hgmm.cli.console import make_console
from hgmm.cli.export import EMBEDDING_FORMATS, check_format, write_embeddings
from hgmm.cli.wording import remember_given

__all__ = ["embed"]

_FORMATS = "A .csv, .parquet, .npz or .safetensors file."


@click.command(short_help="Write the vector of every node.")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help=_FORMATS)
@click.option("--dataset", shell_complete=dataset_names, help="Name or ./folder.  [default: the run's]")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the published files.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: the run's]")
def embed(run: Path, output: Path, dataset: str | None, data_root: str | None, device: str | None) -> None:
    """Write the vector that the trained model in the folder RUN makes of every target node."""
    from hgmm.cli.results import data_words
    from hgmm.training import load_run

    check_format(output, EMBEDDING_FORMATS)
    remember_given({"data.dataset": "--dataset", "train.device": "--device"})
    check_backend()
    trained = load_run(run, device=device)
    graph = trained.load_graph(dataset, root=data_root)
    ids, values = trained.embed(graph)
    write_embeddings(ids, values, output)
    where = f"{graph.name} ({data_words(graph.source.to_dict())})"
    make_console().print(f"{len(ids):,} vectors of width {values.shape[1]} for {where} in {output}", soft_wrap=True)
