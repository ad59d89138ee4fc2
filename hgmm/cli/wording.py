"""Errors of the library in the words of the command line: what was typed there, instead of names in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click

__all__ = ["for_command_line", "given_as", "remember_given"]

_GIVEN = "hgmm.cli.given"

# Beginnings of messages, which name an argument in Python, and the configuration key that sets it.
_PLACES = (
    (r"datasets\.load name_or_path", "data.dataset"),
    (r"datasets\.load require_official", "data.require_official"),
    (r"(?=unknown dataset )", "data.dataset: "),
    (r"(?=unknown model )", "model.name: "),
    (r"MultimodalGraph\.drop_modalities names", "data.drop_modalities"),
    (r"corrupt corruptions|Corruption (kind|modality|amount)|corruption(?= ')", "data.corrupt"),
    (r"[A-Z]\w+, (graph|schema)", "data.dataset"),
    (r"[A-Z]\w+, (\w+)", r"model.\1"),
    (r"(Trainer\.fit|TrainedRun\.\w+) graph", "data.dataset"),
    (r"Trainer\.fit(?=:)", "training"),
    (r"TrainedRun\.(\w+)(?=:)", r"hgmm \1"),
    (r"questions(?=: unknown relation)", "--relation"),
    (r"questions(?=: )", "--head or --tail"),
    (r"save_graph path", "--output"),
    (r"setting (?=')", "--set "),
)
# What to do, where Python and the command line have different ways.
_PHRASES = (
    (r" with train_runs?(\(run_dir=\.\.\., resume=True\))?, or", ""),
    (r"run\.load_graph\(FOLDER\), or ", ""),
    (r"require_official is set \(on the command line (--\S+)\)", r"\1 is given"),
    (r"choose another, or resume that run$", "choose another, or go on with that run by --resume"),
)
_KEY = re.compile(r"\b(data|model|train|negative|link)\.\w+\b|^configuration(?=:)|^run folder\b|\bHGMM_BACKEND(?==)")


def remember_given(given: Mapping[str, str]) -> None:
    """Note for the errors of the running command how its settings were given, by configuration key."""
    click.get_current_context().meta[_GIVEN] = dict(given)


def given_as(ctx: click.Context) -> Mapping[str, str]:
    """Return what `remember_given` has noted in a context or in one below it."""
    given: Mapping[str, str] = ctx.meta.get(_GIVEN, {})
    return given


def for_command_line(message: str, given: Mapping[str, str]) -> str:
    """Reword an error so that it names options.

    Parameters
    ----------
    message : str
        As the library says it; begins with where and which argument.
    given : mapping of str to str
        By configuration key how it was given; a key that was not stays as it is, for ``--set`` takes it.

    Examples
    --------
    >>> for_command_line("train.epochs: must be at least 1, got 0", {"train.epochs": "--epochs"})
    '--epochs: must be at least 1, got 0'
    >>> for_command_line("HGNNIMA, num_layers: must be at least 1, got 0", {})
    'model.num_layers: must be at least 1, got 0'
    """
    for pattern, key in _PLACES:
        message, changed = re.subn(f"^(?:{pattern})", key, message)
        if changed:
            break
    for pattern, words in _PHRASES:
        message = re.sub(pattern, words, message)
    return _KEY.sub(lambda found: given.get(found[0], found[0]), message)
