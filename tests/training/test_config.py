from __future__ import annotations

from typing import Any

import pytest

from hgmm.datasets import SourceOptions
from hgmm.errors import ConfigError
from hgmm.registry import MODELS
from hgmm.training import (
    DataConfig,
    ModelConfig,
    NegativeConfig,
    RunConfig,
    TrainConfig,
    model_options,
    model_settings,
)

pytestmark = pytest.mark.usefixtures("_tiny_model")
TINY = {"model.name": "tiny"}


def test_overrides_win_over_the_file_and_the_file_over_the_dataset() -> None:
    dataset = {"train.epochs": 1, "train.patience": 1, "train.seed": 1}
    file = {"train": {"epochs": 2, "patience": 2}, "model": {"name": "tiny"}}
    config = RunConfig.resolve(dataset, file, {"train.epochs": 3})
    assert (config.train.epochs, config.train.patience, config.train.seed) == (3, 2, 1)
    assert config.train.learning_rate == TrainConfig().learning_rate


def test_dotted_keys_and_empty_sections_in_a_file() -> None:
    config = RunConfig.resolve(None, {"train.epochs": 7, "data": None, "model": {"name": "tiny"}})
    assert config.train.epochs == 7
    assert config.data == DataConfig()


def test_resolved_options_of_the_model_are_complete() -> None:
    config = RunConfig.resolve(None, None, {**TINY, "model.hidden_size": 3})
    assert config.model.options == {"hidden_size": 3, "dropout": 0.5, "note": ""}
    assert model_options("tiny") == {"hidden_size": 8, "dropout": 0.5, "note": ""}


def test_plain_data_and_back() -> None:
    settings = {**TINY, "model.note": ["a"], "train.fanouts": [2, 3], "data.drop_modalities": ["text"]}
    config = RunConfig.resolve(None, None, settings)
    assert config.train.fanouts == (2, 3)
    assert config.to_dict()["train"]["fanouts"] == [2, 3]
    assert config.to_dict()["model"] == {"name": "tiny", "hidden_size": 8, "dropout": 0.5, "note": ["a"]}
    assert RunConfig.from_dict(config.to_dict()) == config


def test_lists_and_tuples_in_options_are_the_same() -> None:
    assert ModelConfig("tiny", {"note": ("a", "b")}) == ModelConfig("tiny", {"note": ["a", "b"]})


def test_whole_numbers_are_taken_for_floats() -> None:
    assert isinstance(TrainConfig(learning_rate=1).learning_rate, float)
    assert isinstance(ModelConfig("tiny", {"dropout": 0}).complete().options["dropout"], float)


def test_options_of_types_that_are_not_simple_are_the_models_business() -> None:
    assert ModelConfig("tiny", {"note": ["a", 3]}).complete().options["note"] == ["a", 3]


def test_a_models_own_settings_are_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS.get("tiny"), "settings", {"train.epochs": 9, "negative.weight": 0.5}, raising=False)
    config = RunConfig.resolve({"train.epochs": 3}, None, TINY)
    assert (config.train.epochs, config.negative.weight) == (3, 0.5)
    assert model_settings("tiny") == {"train.epochs": 9, "negative.weight": 0.5}
    assert RunConfig.resolve(None, None, {**TINY, "negative.weight": 0}).negative.weight == 0


def test_a_configuration_from_before_there_was_negative_learning_has_none() -> None:
    old = {"data": {"dataset": "emoji"}, "model": {"name": "graph-mnl"}, "train": {"epochs": 3}}
    assert RunConfig.from_dict(old).negative == NegativeConfig()
    assert NegativeConfig().weight == 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"hidden_size": 1}, r"unknown section 'hidden_size'; known: .* A key begins with its section"),
        ({"trian.epochs": 1}, r"unknown section 'trian'; known: data, .*, train. Did you mean 'train'"),
        ({"train.epoch": 1}, r"train.epoch: unknown key 'epoch'. Did you mean 'train.epochs'"),
        ({"negative.wieght": 1}, r"negative.wieght: unknown key 'wieght'.*Did you mean 'negative.weight'"),
        ({"data.data_set": "x"}, r"data.data_set: unknown key 'data_set'; known: corrupt, .*dataset"),
        (
            {"model.hiden_size": 1},
            r"model.hiden_size: unknown option of model 'tiny' 'hiden_size'; known: dropout, hid",
        ),
        ({"model.name": "tinny"}, r"unknown model 'tinny'.*tiny"),
        ({"model.hidden_size": "wide"}, r"model.hidden_size: must be a whole number, got 'wide'"),
        ({"model.dropout": "x"}, r"model.dropout: must be a number, got 'x'"),
        ({"model.name": "hgnn-ima", "model.ablate": "inf"}, r"model.ablate: must be a list of strings, got 'inf'"),
        ({"model.name": "hgnn-ima", "model.temperature": [1]}, r"model.temperature: must be a number or nothing, got"),
        ({"model.name": "hgnn-ima", "model.use_norm": "no"}, r"model.use_norm: must be true or false, got 'no'"),
        ({"model.name": 3}, r"model.name: must be a string, got 3"),
        ({"train": 5}, r"section 'train': must be a mapping, got 5"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        RunConfig.resolve(None, None, {**TINY, **settings})


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("epochs", 0, r"train.epochs: must be at least 1, got 0"),
        ("epochs", 1.5, r"train.epochs: must be a whole number, got 1.5"),
        ("epochs", True, r"train.epochs: must be a whole number, got True"),
        ("epochs", "many", r"train.epochs: must be a whole number, got 'many'"),
        ("learning_rate", 0, r"train.learning_rate: must be above 0, got 0.0"),
        ("learning_rate", float("nan"), r"train.learning_rate: must be above 0, got nan"),
        ("learning_rate", "1e-3x", r"train.learning_rate: must be a number, got '1e-3x'"),
        ("weight_decay", -1.0, r"train.weight_decay: must be at least 0, got -1.0"),
        ("weight_decay", float("nan"), r"train.weight_decay: must be at least 0, got nan"),
        ("optimizer", "sgd", r"train.optimizer: unknown optimizer 'sgd'; known: adamw, adamw-fused, adamw-rows"),
        ("optimizer", "adamw-rows", r"train.gradient_clip: adamw-rows has none, .* got 1.0; set it to 0"),
        ("scheduler", "onecycle", r"train.scheduler: unknown scheduler 'onecycle'; known: cosine, none, one-cycle"),
        ("scheduler", 1, r"train.scheduler: must be a string, got 1"),
        ("scheduler_warmup", 1.0, r"train.scheduler_warmup: must be below 1, got 1.0"),
        ("label_smoothing", 1.5, r"train.label_smoothing: must be below 1, got 1.5"),
        ("monitor", "f1", r"train.monitor: unknown monitor 'f1'; known: accuracy, hits_at_1, .*, mrr"),
        ("patience_monitor", "f2", r"train.patience_monitor: unknown monitor 'f2'"),
        ("patience_monitor", 2, r"train.patience_monitor: must be a string or nothing, got 2"),
        ("seed", 2**31, r"train.seed: must be below 2\*\*31, got 2147483648"),
        ("seed", -1, r"train.seed: must be at least 0, got -1"),
        ("device", "gpu", r"train.device: must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("fanouts", [0], r"train.fanouts: each must be at least 1, or -1 for all neighbours, got 0"),
        ("fanouts", [2.5], r"train.fanouts: must be a list of whole numbers, got \[2.5\]"),
        ("fanouts", 5, r"train.fanouts: must be a list of whole numbers, got 5"),
        ("batch_size", 8, r"train.fanouts: a batch size \(8\) needs one number a layer"),
    ],
)
def test_wrong_values(field: str, value: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("dataset", "", r"data.dataset: must name a dataset or a folder, got ''"),
        ("dataset", 5, r"data.dataset: must be a string, got 5"),
        ("root", 5, r"data.root: must be a string or nothing, got 5"),
        ("require_official", "yes", r"data.require_official: must be true or false, got 'yes'"),
        ("drop_modalities", "text", r"data.drop_modalities: must be a list of strings, got 'text'"),
        ("corrupt", "text=0.1", r"data.corrupt: must be a list of strings, got 'text=0.1'"),
        ("corrupt", ["text=2"], r"amount of 'missing:text': a share is from 0 to 1, got 2.0"),
        ("features", ["txet=a"], r"data.features: unknown part 'txet'; known: image, joined, split, text"),
        ("split_at", 0, r"data.split_at: must be at least 1, got 0"),
        ("shots", "3", r"data.shots: must be a whole number or nothing, got '3'"),
        ("corrupt_seed", -1, r"data.corrupt_seed: must be at least 0, got -1"),
    ],
)
def test_wrong_data(field: str, value: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        DataConfig(**{field: value})


def test_a_choice_of_files_is_handed_on_only_if_there_is_one() -> None:
    assert DataConfig().source_options is None
    assert DataConfig(features=("text=a",), split_at=3).source_options == SourceOptions({"text": "a"}, split_at=3)
