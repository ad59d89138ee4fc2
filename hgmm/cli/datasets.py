"""``hgmm datasets list | info | fetch``."""

from __future__ import annotations

from pathlib import Path

import click

from hgmm.cli.completion import dataset_names
from hgmm.cli.console import format_score, make_console, make_table, print_table
from hgmm.cli.leaks import print_leaks

__all__ = ["datasets"]

_data_root = click.option(
    "--data-root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the published files. [default: $HGMM_DATA, else the user's data folder]",
)


@click.group()
def datasets() -> None:
    """List, describe and fetch data sets."""


@datasets.command("list")
def list_datasets() -> None:
    """List the data sets that can be named."""
    from hgmm import datasets as library

    table = make_table("name", "task", "what it is")
    for name in library.available():
        info = library.info(name)
        table.add_row(name, info.task, info.title)
    console = make_console()
    print_table(console, table)
    without = ", ".join(name for name in library.available() if not library.info(name).official_files)
    console.print(f"\nWithout published files: {without}. Those of another: hgmm datasets fetch NAME")
    console.print("More about one: hgmm datasets info NAME. A folder of your own: hgmm train --dataset ./FOLDER")


@datasets.command()
@click.argument("name", shell_complete=dataset_names)
@click.option("--drop-leaks", is_flag=True, help="Of a knowledge graph: say what is left without leaking triples.")
@_data_root
def info(name: str, drop_leaks: bool, data_root: Path | None) -> None:
    """Describe the data set NAME, or a ./folder: source, licence, statistics, files.

    Of a knowledge graph whose files are there, also which triples are repeated or stand in two splits, and what the
    training triples do not tell.
    """
    from hgmm import datasets as library
    from hgmm.registry import DATASETS
    from hgmm.settings import data_root as resolve_root

    found = library.info(name)
    console = make_console()
    console.print(found.title, style="bold")
    if found.description:
        console.print(f"\n{found.description}")
    table = make_table("", "")
    table.add_row("task", found.task)
    for label, text in (("licence", found.licence), ("source", found.url), ("citation", found.citation)):
        if text:
            table.add_row(label, text)
    for key, value in found.published.items():
        table.add_row(key, ", ".join(map(str, value)) if isinstance(value, list) else f"{value:,}")
    for key, score in found.published_scores.items():
        table.add_row(f"published {key}", f"{format_score(score)} ({found.published_variant})")
    for key, setting in found.settings.items():
        table.add_row(key, str(setting))
    console.print()
    print_table(console, table)
    if found.official_files:
        dataset = DATASETS.get(name)
        folder = dataset.folder(resolve_root(data_root))
        console.print(f"\nPublished files, looked for in {folder}:", soft_wrap=True)
        there = [dataset.has(folder, file) for file in found.official_files]
        for file, has in zip(found.official_files, there, strict=True):
            console.print(f"  {'there  ' if has else 'missing'} {file.path}", soft_wrap=True)
        missing = [file for file, has in zip(found.official_files, there, strict=True) if not has]
        for file in missing:
            if file.url is not None:
                console.print(f"Get {file.path} by hand: {file.url}", soft_wrap=True)
        if any(file.url is None for file in missing):
            console.print(f"Download what is missing: hgmm datasets fetch {name}", soft_wrap=True)
        if any(file.modality is None for file in missing):
            return
    # The links of MM-Graph, of one relation, come with gigabytes of vectors that a look at them must not read.
    if found.task == "link-prediction" and (not found.official_files or "relations" in found.published):
        print_leaks(console, name, data_root, drop=drop_leaks)


@datasets.command()
@click.argument("name", shell_complete=dataset_names)
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="PART=NAME",
    help="Feature file of text, image or joined, by a part of its name; may be repeated.",
)
@_data_root
def fetch(name: str, features: tuple[str, ...], data_root: Path | None) -> None:
    """Download the published files of the data set NAME.

    Where several feature files are published, only those of the default encoders are fetched, or the ones that are
    named. What is there already is not fetched again.
    """
    from hgmm import datasets as library

    options = library.SourceOptions.parse(features)
    paths = library.fetch(name, root=data_root, options=options)
    console = make_console()
    if not paths:
        console.print(f"The data set {name} needs no files.")
    for path in paths:
        console.print(str(path), soft_wrap=True)
