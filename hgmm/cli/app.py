"""The command group ``hgmm`` and how it ends: exit codes and messages."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from hgmm import __version__
from hgmm.cli.datasets import datasets
from hgmm.cli.doctor import doctor
from hgmm.cli.embed import embed
from hgmm.cli.evaluate import evaluate
from hgmm.cli.import_folder import import_folder
from hgmm.cli.predict import predict
from hgmm.cli.runs import runs
from hgmm.cli.train import train
from hgmm.cli.wording import for_command_line, given_as
from hgmm.errors import HgmmError
from hgmm.settings import keep_freed_memory, prefer_large_pages

__all__ = ["USER_ERROR", "main"]

USER_ERROR = 2
KEYBOARD_INTERRUPT = 130


def _print_error(message: str) -> None:
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)


def _system_words(error: OSError) -> str:
    """Say what the system refused; its own text starts with a number that helps nobody."""
    reason = error.strerror or str(error) or type(error).__name__
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}the system refuses ({reason}); hgmm --debug shows where it was asked"


@contextmanager
def _plain_errors(ctx: click.Context) -> Iterator[None]:
    debug = bool(ctx.params.get("debug"))
    try:
        yield
    except HgmmError as error:
        if debug:
            raise
        _print_error(for_command_line(str(error), given_as(ctx)))
        raise SystemExit(USER_ERROR) from error
    except OSError as error:
        # Click ends quietly when whoever read the output has closed it.
        if debug or error.errno == errno.EPIPE:
            raise
        _print_error(_system_words(error))
        raise SystemExit(USER_ERROR) from error
    except KeyboardInterrupt as error:
        click.echo("Stopped.", err=True)
        raise SystemExit(KEYBOARD_INTERRUPT) from error


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    click.echo("Stopped.", err=True)
    raise SystemExit(128 + number)


@contextmanager
def _orderly_termination() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that no temporary file is left; one that is ignored or handled stays so."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Group(click.Group):
    """A group that shows an error of hgmm or of the system as a message and exits with code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        with _orderly_termination(), _plain_errors(ctx):
            return super().invoke(ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hgmm")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, as in: hgmm --debug train.")
def main(debug: bool) -> None:
    """Train graph networks on items that have text, images and numbers, some of them missing.

    Start with: hgmm train --dataset emoji
    """
    prefer_large_pages()
    keep_freed_memory()


for _command in (train, evaluate, predict, embed, runs, datasets, import_folder, doctor):
    main.add_command(_command)
