"""Types of configuration fields, checked when a configuration is made."""

from __future__ import annotations

import dataclasses
from typing import Any

from hgmm.errors import ConfigError

__all__ = ["check_types"]


def check_types(config: Any, section: str) -> None:
    """Convert lists to tuples and whole numbers to floats where the field says so; refuse everything else."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        what, convert = _TYPES[str(entry.type)]
        converted = convert(value)
        if converted is _WRONG:
            raise ConfigError(f"{section}.{entry.name}: must be {what}, got {value!r}")
        object.__setattr__(config, entry.name, converted)


_WRONG = object()


def _integer(value: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _WRONG


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else _WRONG


def _list_of(convert: Any, value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return _WRONG
    entries = tuple(convert(entry) for entry in value)
    return _WRONG if _WRONG in entries else entries


_TYPES: dict[str, tuple[str, Any]] = {
    "int": ("a whole number", _integer),
    "float": ("a number", _number),
    "bool": ("true or false", lambda value: value if isinstance(value, bool) else _WRONG),
    "str": ("a string", _text),
    "str | None": ("a string or nothing", lambda value: value if value is None else _text(value)),
    "tuple[int, ...]": ("a list of whole numbers", lambda value: _list_of(_integer, value)),
    "tuple[str, ...]": ("a list of strings", lambda value: _list_of(_text, value)),
}
