"""What a run is told: frozen dataclasses, resolved from flags, a file, the dataset's settings and defaults."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hgmm.errors import ConfigError, near_names, unknown_name
from hgmm.registry import MODELS
from hgmm.training._fields import check_types, check_value
from hgmm.training.data_config import DataConfig
from hgmm.training.link_config import LinkConfig
from hgmm.training.negative_config import NegativeConfig
from hgmm.training.schedule import SCHEDULERS

__all__ = [
    "LINK_MONITORS",
    "MONITORS",
    "NODE_MONITORS",
    "OPTIMIZERS",
    "ModelConfig",
    "RunConfig",
    "TrainConfig",
    "keys_called",
    "model_options",
    "model_settings",
]

NODE_MONITORS = {"micro_f1": "max", "macro_f1": "max", "accuracy": "max", "loss": "min"}
"""Validation figures of a node classifier that a run can be steered by, and in which direction they improve."""

OPTIMIZERS = ("adamw", "adamw-fused", "adamw-rows")

LINK_MONITORS = {"mrr": "max", "mean_rank": "min", "hits_at_1": "max", "hits_at_3": "max", "hits_at_10": "max"}
"""Those of a model of triples."""

MONITORS = NODE_MONITORS | LINK_MONITORS


@dataclass(frozen=True)
class ModelConfig:
    """Which model a run trains.

    Parameters
    ----------
    name : str, optional
        A registered model.
    options : mapping, optional
        Keyword arguments of its constructor besides the schema; as configuration keys ``model.<option>``.

    Raises
    ------
    ConfigError
        If `name` is not a string.
    """

    name: str = "hgnn-ima"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"model.name: must be a string, got {self.name!r}")
        object.__setattr__(self, "options", _plain(self.options))

    def complete(self) -> ModelConfig:
        """Return the same with the constructor's defaults for all options that are not given.

        Raises
        ------
        ConfigError
            If the model is unknown, or its constructor does not take one of the options or its type.
        """
        known, options = _option_parameters(self.name), model_options(self.name)
        for option, value in self.options.items():
            if option not in known:
                raise _unknown_key(f"model.{option}", f"option of model {self.name!r}", known)
            options[option] = check_value(f"model.{option}", known[option].annotation, value)
        return ModelConfig(self.name, options)


@dataclass(frozen=True)
class TrainConfig:
    """How a run trains.

    Parameters
    ----------
    epochs : int, optional
        Passes over the training nodes, at least 1.
    learning_rate : float, optional
        Peak learning rate of AdamW, above 0.
    weight_decay : float, optional
        Decoupled weight decay, at least 0.
    optimizer : str, optional
        ``adamw``; ``adamw-fused``, the same in one pass over each parameter, equal up to rounding; or ``adamw-rows``
        for models with tables of rows: only those of the batch are touched (`hgmm.training.optimizers.RowAdamW`).
    scheduler : str, optional
        ``none``, ``one-cycle`` or ``cosine``; see `hgmm.training.schedule`.
    scheduler_steps : int, optional
        Optimiser steps that the schedule spans; a run may be shorter. 0 = as many as the run has.
    scheduler_warmup : float, optional
        Share of these steps in which the rate rises, in [0, 1).
    patience : int, optional
        Stop at a validation this many epochs or more after the one with the best `patience_monitor`; 0 = never.
    monitor : str, optional
        Validation figure that chooses the weights to keep: ``micro_f1``, ``macro_f1``, ``accuracy`` or ``loss``; for
        triples ``mrr``, ``mean_rank`` or ``hits_at_1``, ``_3``, ``_10``. Among equal values the later epoch wins, as in
        the published HGNN-IMA code.
    patience_monitor : str, optional
        Validation figure that `patience` watches. Default: `monitor`.
    seed : int, optional
        Seed of Python, NumPy, torch and DGL, in [0, 2**31).
    device : str, optional
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    batch_size : int, optional
        Target nodes a step; 0 = the whole graph in one step an epoch.
    fanouts : sequence of int, optional
        In-neighbours sampled for a node and relation, one number a layer, -1 = all; needed with a batch size.
    gradient_clip : float, optional
        Largest norm of the gradient; 0 = not clipped.
    branch_weight : float, optional
        Weight of each branch's own cross-entropy beside the fused one.
    missing_attention_weight : float, optional
        Weight of the missing-modality attention loss.
    label_smoothing : float, optional
        In [0, 1).
    num_threads : int, optional
        Threads of torch during training; 0 = as torch has it. Results are equal only for equal numbers.
    eval_every : int, optional
        Epochs between validations; the last epoch is always validated.
    checkpoint_every : int, optional
        Epochs between checkpoints.
    checkpoint_seconds : float, optional
        Least time between two checkpoints, so that fast epochs are not spent on writing. The last one is always
        written, and a resumed run repeats the epochs since its checkpoint bit for bit.

    Raises
    ------
    ConfigError
        If a value has the wrong type or is out of range.
    """

    epochs: int = 100
    learning_rate: float = 5e-3
    weight_decay: float = 0.05
    optimizer: str = "adamw"
    scheduler: str = "one-cycle"
    scheduler_steps: int = 0
    scheduler_warmup: float = 0.1
    patience: int = 50
    monitor: str = "micro_f1"
    patience_monitor: str | None = None
    seed: int = 0
    device: str = "auto"
    batch_size: int = 0
    fanouts: tuple[int, ...] = ()
    gradient_clip: float = 1.0
    branch_weight: float = 0.2
    missing_attention_weight: float = 1.0
    label_smoothing: float = 0.1
    num_threads: int = 0
    eval_every: int = 1
    checkpoint_every: int = 1
    checkpoint_seconds: float = 5.0

    def __post_init__(self) -> None:
        check_types(self, "train")
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"train.{name}: must be at least {least}, got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"train.learning_rate: must be above 0, got {self.learning_rate!r}")
        for name in ("scheduler_warmup", "label_smoothing"):
            if not getattr(self, name) < 1:
                raise ConfigError(f"train.{name}: must be below 1, got {getattr(self, name)!r}")
        if self.seed >= 2**31:
            raise ConfigError(f"train.seed: must be below 2**31, got {self.seed!r}")
        self._check_choices()

    def _check_choices(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"train.optimizer: {unknown_name('optimizer', self.optimizer, OPTIMIZERS)}")
        if self.optimizer == "adamw-rows" and self.gradient_clip:
            raise ConfigError(
                f"train.gradient_clip: adamw-rows has none, for its gradients are sparse, got {self.gradient_clip!r}; "
                "set it to 0"
            )
        if self.scheduler not in SCHEDULERS:
            raise ConfigError(f"train.scheduler: {unknown_name('scheduler', self.scheduler, SCHEDULERS)}")
        for name in ("monitor", "patience_monitor"):
            value = getattr(self, name)
            if value is not None and value not in MONITORS:
                raise ConfigError(f"train.{name}: {unknown_name('monitor', value, MONITORS)}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"train.device: must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if self.batch_size and not self.fanouts:
            raise ConfigError(
                f"train.fanouts: a batch size ({self.batch_size}) needs one number a layer, for example [10, 10]"
            )
        for fanout in self.fanouts:
            if fanout < 1 and fanout != -1:
                raise ConfigError(f"train.fanouts: each must be at least 1, or -1 for all neighbours, got {fanout!r}")


_AT_LEAST: dict[str, float] = {
    "epochs": 1,
    "weight_decay": 0,
    "scheduler_steps": 0,
    "scheduler_warmup": 0,
    "patience": 0,
    "seed": 0,
    "batch_size": 0,
    "gradient_clip": 0,
    "branch_weight": 0,
    "missing_attention_weight": 0,
    "label_smoothing": 0,
    "num_threads": 0,
    "eval_every": 1,
    "checkpoint_every": 1,
    "checkpoint_seconds": 0,
}


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration of a run.

    Parameters
    ----------
    data : DataConfig, optional
        Which data.
    model : ModelConfig, optional
        Which model.
    train : TrainConfig, optional
        How to train.
    negative : NegativeConfig, optional
        How branches learn from each other.
    link : LinkConfig, optional
        How a model of triples is trained and ranked.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    negative: NegativeConfig = field(default_factory=NegativeConfig)
    link: LinkConfig = field(default_factory=LinkConfig)

    @classmethod
    def resolve(
        cls,
        dataset_settings: Mapping[str, Any] | None = None,
        file: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> RunConfig:
        """Merge the sources of settings: overrides > file > the dataset's settings > defaults, the model's included.

        Parameters
        ----------
        dataset_settings, overrides : mapping, optional
            Dotted keys such as ``train.epochs`` or ``model.hidden_size``.
        file : mapping, optional
            What a configuration file holds: sections ``data``, ``model``, ``train``, ``negative``, ``link``, or dotted
            keys.

        Raises
        ------
        ConfigError
            If a key is unknown or a value wrong; the message lists the known keys.
        """
        asked = cls.merge(dataset_settings, file, overrides)
        config = cls.from_dict(model_settings(cls.from_dict(asked).model.name) | asked)
        return dataclasses.replace(config, model=config.model.complete())

    @staticmethod
    def merge(*sources: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the settings of all sources by dotted key; a later source wins.

        Raises
        ------
        ConfigError
            If a section is unknown or no mapping.
        """
        merged: dict[str, Any] = {}
        for source in sources:
            merged |= _dotted(source or {})
        return merged

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """Build a configuration from what `to_dict` returned; the model's options are taken as they are.

        Raises
        ------
        ConfigError
            If a key is unknown or a value wrong.
        """
        sections: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
        for key, value in _dotted(data).items():
            section, _, name = key.partition(".")
            sections[section][name] = value
        model = sections.pop("model")
        for section, entries in sections.items():
            known = [entry.name for entry in dataclasses.fields(_SECTIONS[section])]
            for name in entries:
                if name not in known:
                    raise _unknown_key(f"{section}.{name}", "key", known)
        built = {section: _SECTIONS[section](**entries) for section, entries in sections.items()}
        return cls(model=ModelConfig(model.pop("name", ModelConfig.name), model), **built)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON or YAML, valid as a configuration file."""
        return {
            "data": _plain(dataclasses.asdict(self.data)),
            "model": {"name": self.model.name, **self.model.options},
            "train": _plain(dataclasses.asdict(self.train)),
            "negative": dataclasses.asdict(self.negative),
            "link": _plain(dataclasses.asdict(self.link)),
        }


_SECTIONS: dict[str, Any] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "negative": NegativeConfig,
    "link": LinkConfig,
}


def model_options(name: str) -> dict[str, Any]:
    """Return the configurable arguments of a registered model with their defaults.

    Raises
    ------
    ConfigError
        If there is no such model.
    """
    return {option: parameter.default for option, parameter in _option_parameters(name).items()}


def model_settings(name: str) -> dict[str, Any]:
    """Return what a registered model would have otherwise than by default: its attribute ``settings``, by dotted key.

    Raises
    ------
    ConfigError
        If there is no such model.
    """
    return dict(getattr(MODELS.get(name), "settings", {}))


def _option_parameters(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(MODELS.get(name)).parameters
    return {option: entry for option, entry in parameters.items() if entry.kind is entry.KEYWORD_ONLY}


def _dotted(data: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        section, dot, _ = str(key).partition(".")
        if section not in _SECTIONS:
            hint = ""
            if not dot and not near_names(section, _SECTIONS):
                hint = f" A key begins with its section, as in {[*keys_called(section), 'train.epochs'][0]}"
            raise ConfigError(f"configuration: {unknown_name('section', section, _SECTIONS)}{hint}")
        if dot:
            flat[key] = value
        elif isinstance(value, Mapping):
            flat |= {f"{section}.{name}": entry for name, entry in value.items()}
        elif value is not None:
            raise ConfigError(f"configuration section {section!r}: must be a mapping, got {value!r}")
    return flat


def _unknown_key(key: str, what: str, known: Iterable[str]) -> ConfigError:
    section, _, name = key.partition(".")
    names = list(known)
    own = [f"{section}.{entry}" for entry in near_names(name, names)]
    near = [*own, *(entry for entry in keys_called(name, exactly=bool(own)) if entry not in own)]
    return ConfigError(f"{key}: {unknown_name(what, name, names, near=near)}")


def keys_called(name: str, *, exactly: bool = False) -> list[str]:
    """Return the dotted keys of all sections and models that are called `name`; if there are none, nearly so."""
    keys = {("model", option) for model in MODELS for option in ("name", *_option_parameters(model))}
    for section, config in _SECTIONS.items():
        keys |= {(section, entry.name) for entry in dataclasses.fields(config) if section != "model"}
    wanted = [name] if exactly or any(key == name for _, key in keys) else near_names(name, {key for _, key in keys})
    return sorted(f"{section}.{key}" for section, key in keys if key in wanted)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
