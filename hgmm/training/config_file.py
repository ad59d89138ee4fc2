"""Configuration from files and from ``key=value`` on a command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from hgmm.errors import ConfigError, DataError
from hgmm.files import write_bytes
from hgmm.syntax import syntax_error

__all__ = ["parse_setting", "read_config", "write_config"]


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration file: YAML, or JSON if its name ends in ``.json``.

    Raises
    ------
    DataError
        If the file is missing or cannot be parsed.
    ConfigError
        If it is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else _load_yaml(text)
    except OSError as error:
        raise DataError(f"configuration file {path}: it cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise DataError(
            f"configuration file {path}, {syntax_error(error)}; the file is no valid {kind} until that is repaired"
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"configuration file {path}: must be a mapping of settings, got {type(data).__name__}")
    return data


def parse_setting(text: str) -> tuple[str, Any]:
    """Split ``key=value`` as given on a command line; the value is read as YAML, so ``[10, 5]`` is a list.

    Raises
    ------
    ConfigError
        If there is no ``=``, no key, or the value is not valid YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"setting {text!r}: must be written key=value, for example train.epochs=50")
    try:
        return key.strip(), _load_yaml(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"setting {text!r}, value, {syntax_error(error)}") from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml may be without stubs
    """YAML 1.1 reads 1e-3 as a string, because it lacks the dot; people write it all the same."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def write_config(path: Path, data: Any) -> None:
    """Write plain data as YAML that `read_config` reads back unchanged."""
    write_bytes(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())
