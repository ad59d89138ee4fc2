"""``hgmm train``."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from hgmm.cli.backend import check_backend
from hgmm.cli.completion import dataset_names, model_names
from hgmm.cli.console import make_console, waiting
from hgmm.cli.live import make_view
from hgmm.cli.plots import leave_plots
from hgmm.cli.results import Announcement, describe_run, print_config, print_result
from hgmm.cli.wording import remember_given
from hgmm.errors import near_names
from hgmm.settings import BACKENDS

if TYPE_CHECKING:
    from hgmm.training import RunConfig, RunRecord

__all__ = ["train"]

_LOSS_ABLATIONS = {"L_att": "train.missing_attention_weight", "L_ind": "train.branch_weight"}


class _Command(click.Command):
    """A command whose unknown options are looked for among the settings, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from hgmm.training.config import keys_called

            options = [option for param in self.params for option in param.opts]
            name = error.option_name.strip("-").replace("-", "_")
            near = near_names(name, options) or [f"--set {key}=VALUE" for key in keys_called(name)[:3]]
            hint = f" Did you mean {' or '.join(near)}?" if near else " hgmm train --help lists them."
            raise click.NoSuchOption(
                error.option_name, message=f"No such option {error.option_name!r}.{hint}", ctx=ctx
            ) from error


def _overrides(values: dict[str, Any], ablate: tuple[str, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """Turn the options that were given into configuration keys; a named option wins over ``--set``."""
    given = settings | values
    given |= {_LOSS_ABLATIONS[name]: 0.0 for name in ablate if name in _LOSS_ABLATIONS}
    parts = [name for name in ablate if name not in _LOSS_ABLATIONS]
    return given | ({"model.ablate": parts} if parts else {})


def _remember(
    file: Path | None, settings: dict[str, Any], values: dict[str, Any], ablate: tuple[str, ...], backend: str | None
) -> None:
    """Remember by configuration key where a setting stands, for the error that finds it wrong."""
    from hgmm.training import RunConfig, read_config

    params = click.get_current_context().command.params
    options = {str(param.name).replace("_", ".", 1): param.opts[0] for param in params}
    words = {"run folder": "--run-dir", "configuration": "--set" if settings else f"--config {file}"}
    words |= {"HGMM_BACKEND": "--backend"} if backend else {}
    remember_given(words)
    words |= {key: f"{key} in {file}" for key in (RunConfig.merge(read_config(file)) if file else {})}
    words |= {key: f"--set {key}" for key in settings}
    words |= {key: options[key] for key in values}
    remember_given(words | ({"model.ablate": "--ablate"} if ablate else {}))


@click.command(cls=_Command, short_help="Train a model on a data set.")
@click.option(
    "--dataset",
    "data_dataset",
    shell_complete=dataset_names,
    help="Name or ./folder.  [default: emoji, or emoji-kg for models of triples]",
)
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
@click.option("--sampler", "link_sampler", help="Negatives of triples: normal, mans-v, mans-t, mans-h or mans-a.")
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
    The exit code is 2 for a wrong setting or broken data, 130 or 143 for a run that was stopped and can be resumed. A
    run that fails before its first epoch leaves nothing behind under a default name.
    """
    if resume and run_dir is None:
        raise click.UsageError("--resume needs --run-dir, the folder of the run to go on with.")
    console = make_console()
    with waiting(console, "Loading torch and DGL"):
        from hgmm.training import configure, default_run_dir, parse_setting

        chosen = dict(map(parse_setting, settings))
        # Neither 0 nor 0.0 counts as not given, and both equal False.
        values = {
            key.replace("_", ".", 1): value
            for key, value in options.items()
            if value is not None and value is not False and value != ()
        }
        _remember(file, chosen, values, ablate, backend)
        overrides = _overrides(values, ablate, chosen)
        stored = _stored(run_dir) if resume and run_dir is not None else None
        changed = stored is None or overrides or file is not None
        config = configure(file=file, overrides=overrides) if changed else None
        shown = config or stored
        assert shown is not None
        check_backend(backend, device=shown.train.device)
    print_config(console, shown)
    with nullcontext(run_dir) if run_dir is not None else default_run_dir(shown) as folder:
        record = _run(console, config, shown, folder, runs=runs, resume=resume)
    print_result(console, record, folder)
    leave_plots(console, record, folder)


def _stored(run_dir: Path) -> RunConfig:
    """Return the configuration of a run to go on with."""
    from hgmm.errors import ConfigError
    from hgmm.training import RunConfig, read_config
    from hgmm.training.run_record import near_runs
    from hgmm.training.trained_run import CONFIG

    if not (run_dir / CONFIG).exists():
        text = f"--resume: {run_dir} has no {CONFIG}, so no run to go on with; start it without."
        raise ConfigError(text + near_runs(run_dir))
    return RunConfig.from_dict(read_config(run_dir / CONFIG))


def _run(
    console: Console, config: RunConfig | None, shown: RunConfig, run_dir: Path, *, runs: int, resume: bool
) -> RunRecord:
    from hgmm.training import Interrupted, train_run, train_runs

    view = make_view(console, title=describe_run(shown), runs=runs)
    callbacks = (Announcement(console), view)
    before = _written_at(run_dir)
    view.wait(f"Reading {shown.data.dataset} and building the model")
    try:
        if runs == 1:
            return train_run(config, run_dir=run_dir, resume=resume, callbacks=callbacks)
        return train_runs(config, runs=runs, run_dir=run_dir, resume=resume, callbacks=callbacks)
    except Interrupted as stop:
        view.close()
        several = f" --runs {runs}" if runs > 1 else ""
        message = f"Stopped by {stop.signal.name}; the state is saved. Go on with:"
        click.echo(f"{message}\n  hgmm train --run-dir {shlex.quote(str(run_dir))}{several} --resume", err=True)
        raise SystemExit(128 + stop.signal) from stop
    except Exception:
        view.close()
        # A folder that was refused has the record of another run.
        if _written_at(run_dir) != before:
            _say_where(run_dir)
        raise
    finally:
        view.close()


def _written_at(run_dir: Path) -> int | None:
    from hgmm.training.run_record import RECORD

    record = run_dir / RECORD
    return record.stat().st_mtime_ns if record.is_file() else None


def _say_where(run_dir: Path) -> None:
    """Say where the record of a failed run is, if there are epochs in it."""
    from hgmm.training.run_folder import epochs_done

    epochs = epochs_done(run_dir)
    if epochs:
        plural = "" if epochs == 1 else "s"
        click.echo(f"The run failed after {epochs} epoch{plural}; its record is in {run_dir}", err=True)
