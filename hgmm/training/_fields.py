"""Types of configuration fields and of a model's options, checked when a configuration is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from hgmm.errors import ConfigError, unknown_name

__all__ = ["check_choices", "check_range", "check_types", "check_value"]


def check_types(config: Any, section: str) -> None:
    """Convert lists to tuples and whole numbers to floats where the field says so; refuse everything else."""
    for entry in dataclasses.fields(config):
        converted = check_value(f"{section}.{entry.name}", entry.type, getattr(config, entry.name))
        object.__setattr__(config, entry.name, converted)


def check_choices(config: Any, section: str, choices: Mapping[str, Collection[str]]) -> None:
    """Refuse a field whose value is none of its choices."""
    for name, known in choices.items():
        value = getattr(config, name)
        if value not in known:
            raise ConfigError(f"{section}.{name}: {unknown_name(name, value, known)}")


def check_range(where: str, value: float, *, low: float = 0, high: float = math.inf, open_low: bool = False) -> None:
    """Refuse a number that is not finite or outside [low, high], or with `open_low` (low, high]."""
    if math.isfinite(value) and low <= value <= high and not (open_low and value == low):
        return
    rule = f"above {low}" if open_low else f"at least {low}"
    rule += f" and at most {high}" if high < math.inf else " and finite"
    raise ConfigError(f"{where}: must be {rule}, got {value!r}")


def check_value(where: str, annotation: Any, value: Any) -> Any:
    """Return a value converted to its annotation; one that is not among the simple ones here allows everything."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if name not in _TYPES:
        return value
    what, convert = _TYPES[name]
    converted = convert(value)
    if converted is _WRONG:
        raise ConfigError(f"{where}: must be {what}, got {value!r}")
    return converted


_WRONG = object()


def _integer(value: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _WRONG


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else _WRONG


def _or_nothing(convert: Any) -> Any:
    return lambda value: value if value is None else convert(value)


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
    "int | None": ("a whole number or nothing", _or_nothing(_integer)),
    "float | None": ("a number or nothing", _or_nothing(_number)),
    "str | None": ("a string or nothing", _or_nothing(_text)),
    "Sequence[str]": ("a list of strings", lambda value: _list_of(_text, value)),
    "tuple[int, ...]": ("a list of whole numbers", lambda value: _list_of(_integer, value)),
    "tuple[str, ...]": ("a list of strings", lambda value: _list_of(_text, value)),
}
