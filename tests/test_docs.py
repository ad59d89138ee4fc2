"""The documentation is true: commands exist, pages are current, Python blocks run, examples in docstrings hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import click
import pytest

import hgmm
from hgmm import training
from hgmm.cli import main
from hgmm.errors import ConfigError
from hgmm.graph import read_folder
from hgmm.registry import DATASETS
from hgmm.training import RunConfig, configure, train_run
from scripts.write_command_reference import PAGE, reference

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("docs/*.md"), REPOSITORY / "README.md"])
# The compiled kernels lie beside the modules, but are libraries and nothing to import.
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(hgmm.__path__, "hgmm.")
    if not module.name.endswith("__main__") and not module.name.startswith("hgmm.kernels._hgmm_")
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands_of(page: Path) -> list[str]:
    """Return every call of hgmm in the shell blocks of a page, comments and chained commands cut off."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|", line.split("#")[0])]
    return [part for part in parts if part.startswith("hgmm ")]


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


def parse(words: list[str]) -> None:
    """Let Click check command, options and arguments without doing anything."""
    command: click.Command = main
    words = list(words)
    while isinstance(command, click.Group) and words:
        word = words.pop(0)
        if word.startswith("-"):
            continue
        if word not in command.commands:
            raise click.UsageError(f"no such command: {word}")
        command = command.commands[word]
    command.make_context("hgmm", words)


def check(command: str) -> None:
    words = shlex.split(command)[1:]
    parse(words)
    pairs = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    RunConfig.resolve(None, None, dict(map(training.parse_setting, pairs)))


def test_command_reference_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python scripts/write_command_reference.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_command_exists(command: str) -> None:
    check(command)


@pytest.mark.parametrize(
    "command", ["hgmm trane", "hgmm train --epoch", "hgmm train --set train.epoch=1", "hgmm predict"]
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises((click.UsageError, ConfigError)):
        check(command)


def test_readme_has_exactly_the_two_set_up_commands() -> None:
    lines = "\n".join(blocks(REPOSITORY / "README.md", "sh")).splitlines()
    set_up = [line for line in lines if line.startswith("pip ")]
    assert set_up == ["pip install . && hgmm train --dataset emoji", 'pip install -e ".[test]" && pytest -n auto']


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which ``runs/my-run`` is a trained run on emoji."""
    folder = tmp_path_factory.mktemp("docs")
    small = {"model.hidden_size": 8, "model.num_heads": 2, "train.epochs": 1}
    train_run(configure(overrides=small), run_dir=folder / "runs" / "my-run")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_folder)
    # The pages register a data set, which must not stay for other tests.
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def test_the_shop_of_the_readme_is_the_one_in_examples() -> None:
    text = (REPOSITORY / "examples" / "shop" / "graph.yaml").read_text(encoding="utf-8")
    assert text in blocks(REPOSITORY / "README.md", "yaml")
    assert text in blocks(REPOSITORY / "docs" / "own-data.md", "yaml")
    graph = read_folder(REPOSITORY / "examples" / "shop")
    assert (graph.num_nodes("item"), graph.num_nodes("user")) == (54, 20)
    assert graph.schema.num_classes == 3
    assert not bool(graph.present("item").all())


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
