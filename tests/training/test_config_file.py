from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hgmm.errors import ConfigError, DataError
from hgmm.training import parse_setting, read_config
from hgmm.training.config_file import write_config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.learning_rate=1e-3", 1e-3),
        ("train.learning_rate=5.e-4", 5e-4),
        ("train.learning_rate=-.5E+2", -50.0),
        ("train.epochs=10", 10),
        ("train.fanouts=[10, -1]", [10, -1]),
        ("data.require_official=true", True),
        ("data.root=", None),
        ("model.note=a=b", "a=b"),
        ("model.note=1e", "1e"),
        ("model.note=e5", "e5"),
    ],
)
def test_settings_are_read_as_yaml(text: str, value: Any) -> None:
    key, read = parse_setting(text)
    assert key == text.split("=")[0]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("train.epochs", r"setting 'train.epochs': must be written key=value"),
        ("=5", r"setting '=5': must be written key=value"),
        ("model.note=[1", r"setting 'model.note=\[1', value, line 1, column 3: expected ',' or '\]'"),
    ],
)
def test_wrong_settings(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_setting(text)


def test_yaml_and_json_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train:\n  learning_rate: 1e-4\n")
    (tmp_path / "a.json").write_text('{"train": {"learning_rate": 1e-4}}')
    assert read_config(tmp_path / "a.yaml") == read_config(tmp_path / "a.json") == {"train": {"learning_rate": 1e-4}}
    (tmp_path / "empty.yaml").write_text("")
    assert read_config(tmp_path / "empty.yaml") == {}


def test_written_configuration_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    data = {"train": {"learning_rate": 0.1 + 0.2, "weight_decay": 1e-07, "fanouts": [1, -1]}, "data": {"root": None}}
    write_config(tmp_path / "c.yaml", data)
    assert read_config(tmp_path / "c.yaml") == data


@pytest.mark.parametrize(
    ("name", "text", "error", "match"),
    [
        (
            "a.yaml",
            "train: [",
            DataError,
            r"file .*a.yaml, line 1, column 9: expected a value before the end.* no valid YAML",
        ),
        ("a.json", "{train}", DataError, r"file .*a.json, line 1, column 2: expected property name .* no valid JSON"),
        ("a.yaml", "- 1", ConfigError, r"a.yaml: must be a mapping of settings, got list"),
        ("a.yaml", None, DataError, r"a.yaml: it cannot be read \(No such file or directory\)"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, text: str | None, error: type[Exception], match: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=match):
        read_config(tmp_path / name)
