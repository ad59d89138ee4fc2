"""Write docs/commands.md from the command line itself: python scripts/write_command_reference.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from hgmm.cli import main
from hgmm.settings import BACKENDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"

HEAD = """# Commands

Every command shows its help with `--help`. The exit code is 0 for success, 1 if `hgmm doctor` finds something broken or
the reader of a pipe has left, 2 for a wrong option, a wrong setting, broken data or a file that cannot be written, 130
and 143 for SIGINT and SIGTERM; a run that they stop can be resumed. `hgmm --debug …` shows the traceback of an error.
This page is written by `scripts/write_command_reference.py`.

| environment variable | meaning |
| --- | --- |
| `HGMM_DATA` | folder of the published files; the option `--data-root` wins |
| `HGMM_BACKEND` | which kernels to use, {backends}; the option `--backend` wins |
| `XDG_DATA_HOME` | parent of the folder `hgmm` for published files, by default `~/.local/share` |
| `XDG_CACHE_HOME` | parent of the folder `hgmm` for vectors of texts and images, by default `~/.cache` |
"""


def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that is not a group, with the words that call it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in sorted(command.commands):
        yield from leaves(command.commands[name], (*path, name))


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def value(param: click.Option) -> str:
    """Say what an option takes; Click's own wording of it changes from release to release."""
    if param.is_flag:
        return ""
    if isinstance(param.type, click.Choice):
        return f" [{'|'.join(param.type.choices)}]"
    return f" {param.metavar or param.type.name.split()[0].upper()}"


def row(param: click.Option) -> str:
    required = " Required." if param.required else ""
    return f"| `{cell(', '.join(param.opts) + value(param))}` | {cell(param.help or '')}{required} |"


def section(path: tuple[str, ...], command: click.Command) -> str:
    options = [param for param in command.params if isinstance(param, click.Option)]
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    words = [name if param.required else f"[{name}]" for param in arguments if (name := str(param.name).upper())]
    usage = " ".join((*path, *(["[OPTIONS]"] if options else []), *words))
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    table = ["| option | meaning |", "| --- | --- |", *map(row, options)] if options else []
    body = "\n\n".join([f"## {' '.join(path)}", f"```text\n{usage}\n```", *paragraphs])
    return "\n".join([body, "", *table]).rstrip() + "\n"


def reference() -> str:
    head = HEAD.format(backends=" or ".join(f"`{name}`" for name in BACKENDS))
    return "\n".join([head, *(section(path, command) for path, command in leaves(main, ("hgmm",)))])


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
