"""``hgmm datasets list | info | fetch``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from hgmm.cli.completion import dataset_names
from hgmm.cli.console import format_score, make_console, print_entries, print_text
from hgmm.cli.leaks import print_leaks
from hgmm.cli.results import METRICS
from hgmm.cli.wording import remember_given

if TYPE_CHECKING:
    from hgmm.datasets import DatasetInfo

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

    found = [library.info(name) for name in library.available()]
    widest = max(len(info.name) for info in found)
    console = make_console()
    for task in dict.fromkeys(info.task for info in found):
        print_entries(
            console, [(info.name.ljust(widest), info.title) for info in found if info.task == task], title=task
        )
        console.print()
    hints = (
        ("Without published files:", ", ".join(info.name for info in found if not info.official_files)),
        ("To fetch those of another:", "hgmm datasets fetch NAME"),
        ("More about one:", "hgmm datasets info NAME"),
        ("A folder of your own:", "hgmm train --dataset ./FOLDER"),
    )
    print_entries(console, hints)


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

    remember_given({"data.dataset": "NAME"})
    found = library.info(name)
    console = make_console()
    console.print(found.title, style="bold")
    if found.description:
        console.print()
        print_text(console, found.description)
    about = {"task": found.task, "target": found.target, "licence": found.licence, "source": found.url}
    _print_section(console, "About", about | {"citation": found.citation})
    _print_counts(console, found)
    scores = {METRICS[key]: format_score(score) for key, score in found.published_scores.items()}
    _print_section(console, f"Published test scores, with {found.published_variant}", scores)
    settings = {key: str(value) for key, value in found.settings_for().items()}
    _print_section(
        console, f"Settings of hgmm train, with {found.default_model} {found.default_variant}".rstrip(), settings
    )
    if found.official_files:
        whole = _print_files(console, found, data_root)
        if not whole:
            return
    # The links of MM-Graph, of one relation, come with gigabytes of vectors that a look at them must not read.
    if found.task == "link-prediction" and (not found.official_files or "relations" in found.published):
        print_leaks(console, name, data_root, drop=drop_leaks)


def _print_section(console: Console, title: str, rows: Mapping[str, str | None]) -> None:
    """Show a title and below it what is known of its entries; nothing if nothing is."""
    known = [(f"  {label}", text) for label, text in rows.items() if text]
    if known:
        console.print()
        print_entries(console, known, title=title)


def _print_sizes(console: Console, title: str, sizes: Mapping[str, int]) -> None:
    width = max((len(f"{size:,}") for size in sizes.values()), default=0)
    _print_section(console, title, {key: f"{size:,}".rjust(width) for key, size in sizes.items()})


def _print_counts(console: Console, found: DatasetInfo) -> None:
    """Show the published sizes: of nodes, of edges, of classes and of splits each by themselves."""
    sizes = {key: value for key, value in found.published.items() if isinstance(value, int)}
    relations = sizes.pop("relations", None)
    sizes.pop("classes", None)
    _print_sizes(console, "Nodes by type", {key: size for key, size in sizes.items() if key in found.ntypes})
    _print_sizes(console, "Edges by relation", {key: size for key, size in sizes.items() if key not in found.ntypes})
    classes, counts, splits = (found.published.get(key) for key in ("classes", "class_counts", "split_sizes"))
    number = None if classes is None else str(classes)
    _print_section(console, "Relations", {"number": None if relations is None else f"{relations:,}"})
    _print_section(console, "Classes", {"number": number, f"{found.target or 'node'} nodes of each": _listed(counts)})
    _print_section(console, "Split", {"train, val, test": _listed(splits)})


def _listed(numbers: object) -> str | None:
    return "  ".join(f"{number:,}" for number in numbers) if isinstance(numbers, list) else None


def _print_files(console: Console, found: DatasetInfo, data_root: Path | None) -> bool:
    """Show which published files are there; return whether the graph can be read from them."""
    from hgmm.registry import DATASETS
    from hgmm.settings import data_root as resolve_root

    dataset = DATASETS.get(found.name)
    folder = dataset.folder(resolve_root(data_root))
    console.print("\nPublished files", style="bold")
    console.print(f"  looked for in {folder}", soft_wrap=True)
    there = [dataset.has(folder, file) for file in found.official_files]
    for file, has in zip(found.official_files, there, strict=True):
        console.print(f"  {'there  ' if has else 'missing'} {file.path}", soft_wrap=True)
    missing = [file for file, has in zip(found.official_files, there, strict=True) if not has]
    for file in missing:
        if file.url is not None:
            console.print(f"Get {file.path} by hand: {file.url}", soft_wrap=True)
    if any(file.url is None for file in missing):
        console.print(f"Download what is missing: hgmm datasets fetch {found.name}", soft_wrap=True)
    return all(file.modality is not None for file in missing)


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

    remember_given({"data.dataset": "NAME", "data.features": "--feature"})
    options = library.SourceOptions.parse(features)
    paths = library.fetch(name, root=data_root, options=options)
    console = make_console()
    if not paths:
        console.print(f"The data set {name} needs no files.")
    for path in paths:
        console.print(str(path), soft_wrap=True)
