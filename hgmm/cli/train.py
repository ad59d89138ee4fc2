"""``hgmm train``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hgmm.cli.completion import dataset_names, model_names
from hgmm.cli.console import make_console
from hgmm.settings import BACKENDS

if TYPE_CHECKING:
    from hgmm.training import RunConfig

__all__ = ["train"]

_LOSS_ABLATIONS = {"L_att": "train.missing_attention_weight", "L_ind": "train.branch_weight"}


def _overrides(values: dict[str, Any], ablate: tuple[str, ...], settings: tuple[str, ...]) -> dict[str, Any]:
    """Turn the options that were given into configuration keys; a named option wins over ``--set``."""
    from hgmm.training import parse_setting

    given = dict(map(parse_setting, settings))
    # Neither 0 nor 0.0 counts as not given, and both equal False.
    given |= {key: value for key, value in values.items() if value is not None and value is not False and value != ()}
    given |= {_LOSS_ABLATIONS[name]: 0.0 for name in ablate if name in _LOSS_ABLATIONS}
    parts = [name for name in ablate if name not in _LOSS_ABLATIONS]
    return given | ({"model.ablate": parts} if parts else {})


@click.command(short_help="Train a model on a data set.")
@click.option("--dataset", "data_dataset", shell_complete=dataset_names, help="Name or ./folder.  [default: emoji]")
@click.option("--model", "model_name", shell_complete=model_names, help="Registered model.  [default: the data set's]")
@click.option("--variant", "model_variant", help="Variant of the model.  [default: the data set's]")
@click.option("--ablate", multiple=True, help="Take a part out: a part of the model, L_att or L_ind; may be repeated.")
@click.option("--config", "file", type=click.Path(dir_okay=False, path_type=Path), help="Settings in YAML or JSON.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")
@click.option("--seed", "train_seed", type=int, help="Seed of the (first) run.")
@click.option("--runs", type=click.IntRange(min=1), default=1, help="Runs with consecutive seeds.  [default: 1]")
@click.option("--epochs", "train_epochs", type=int, help="Most epochs.")
@click.option("--device", "train_device", help="auto, cpu, cuda or cuda:N.")
@click.option("--data-root", "data_root", type=click.Path(file_okay=False), help="Folder of the published files.")
@click.option("--run-dir", type=click.Path(file_okay=False, path_type=Path), help="Run folder.  [default: runs/…]")
@click.option("--resume", is_flag=True, help="Go on with the run in --run-dir, with its configuration.")
@click.option("--require-official", "data_require_official", is_flag=True, help="Refuse stand-ins and absent files.")
@click.option("--drop-modality", "data_drop_modalities", multiple=True, help="Leave one out; may be repeated.")
@click.option("--drop-leaks", "data_drop_leaks", is_flag=True, help="Leave out triples that repeat or leak.")
@click.option(
    "--feature",
    "data_features",
    multiple=True,
    metavar="PART=NAME",
    help="Feature file of text, image or joined, by a part of its name; may be repeated.",
)
@click.option("--split-at", "data_split_at", type=int, help="Columns of a joined file that are text.  [default: half]")
@click.option("--shots", "data_shots", type=int, help="Training nodes of each class, where the split is drawn.")
@click.option(
    "--corrupt",
    "data_corrupt",
    multiple=True,
    metavar="WHAT=AMOUNT",
    help="Damage the data: MODALITY=, noise:MODALITY=, labels= or edges=; may be repeated.",
)
@click.option("--backend", type=click.Choice(BACKENDS), help="Kernels to use.  [default: $HGMM_BACKEND or auto]")
def train(
    ablate: tuple[str, ...],
    file: Path | None,
    settings: tuple[str, ...],
    runs: int,
    run_dir: Path | None,
    resume: bool,
    backend: str | None,
    **options: Any,
) -> None:
    """Train a model on a data set, show how it goes, and leave a run folder.

    Settings: an option wins over --config, which wins over the data set's own settings, which win over the defaults.
    The exit code is 2 for a wrong setting or broken data, 130 or 143 for a run that was stopped and can be resumed.
    """
    from hgmm.errors import ConfigError
    from hgmm.training import configure, new_run_dir
    from hgmm.training.trained_run import CONFIG

    if resume and run_dir is None:
        raise click.UsageError("--resume needs --run-dir, the folder of the run to go on with.")
    if resume and run_dir is not None and not (run_dir / CONFIG).exists():
        raise ConfigError(f"--resume: {run_dir} has no {CONFIG}, so no run to go on with; start it without.")
    if backend is not None:
        os.environ["HGMM_BACKEND"] = backend
    values = {key.replace("_", ".", 1): value for key, value in options.items()}
    overrides = _overrides(values, ablate, settings)
    config = None if resume and not overrides and file is None else configure(file=file, overrides=overrides)
    folder = run_dir if run_dir is not None or config is None else new_run_dir(config)
    assert folder is not None
    _run(config, folder, runs=runs, resume=resume)


def _run(config: RunConfig | None, run_dir: Path, *, runs: int, resume: bool) -> None:
    from hgmm.cli.live import make_view
    from hgmm.cli.plots import leave_plots
    from hgmm.cli.results import Announcement, describe_run, print_config, print_result
    from hgmm.training import Interrupted, RunConfig, read_config, train_run, train_runs
    from hgmm.training.trained_run import CONFIG

    console = make_console()
    shown = RunConfig.from_dict(read_config(run_dir / CONFIG)) if config is None else config
    print_config(console, shown)
    view = make_view(console, title=describe_run(shown), runs=runs)
    callbacks = (Announcement(console), view)
    try:
        if runs == 1:
            record = train_run(config, run_dir=run_dir, resume=resume, callbacks=callbacks)
        else:
            record = train_runs(config, runs=runs, run_dir=run_dir, resume=resume, callbacks=callbacks)
    except Interrupted as stop:
        view.close()
        several = f" --runs {runs}" if runs > 1 else ""
        message = f"Stopped by {stop.signal.name}; the state is saved. Go on with:"
        click.echo(f"{message}\n  hgmm train --run-dir {shlex.quote(str(run_dir))}{several} --resume", err=True)
        raise SystemExit(128 + stop.signal) from stop
    finally:
        view.close()
    print_result(console, record, run_dir)
    leave_plots(console, record, run_dir)
