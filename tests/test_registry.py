from __future__ import annotations

import sys

import pytest

from hgmm.errors import ConfigError
from hgmm.registry import DATASETS, MODELS, Registry


def test_objects_are_found_by_name() -> None:
    registry: Registry[object] = Registry("thing", "hgmm.registry")
    entry = object()
    assert registry.register("b")(entry) is entry
    registry.register("a")(1)
    assert registry.get("b") is entry
    assert list(registry) == ["a", "b"]
    assert "a" in registry
    assert "c" not in registry


def test_a_name_has_one_object() -> None:
    registry: Registry[object] = Registry("thing", "hgmm.registry")
    entry = object()
    registry.register("a")(entry)
    registry.register("a")(entry)
    with pytest.raises(ConfigError, match="thing 'a' exists already; choose another name"):
        registry.register("a")(object())
    assert registry.get("a") is entry


def test_unknown_names_list_the_known() -> None:
    registry: Registry[object] = Registry("thing", "hgmm.registry")
    registry.register("chair")(1)
    with pytest.raises(ConfigError, match=r"unknown thing 'chiar'; known: chair. Did you mean 'chair'\?"):
        registry.get("chiar")


def test_the_module_is_imported_on_the_first_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this_module_is_not_there", raising=False)
    registry: Registry[object] = Registry("thing", "this_module_is_not_there")
    registry.register("a")(1)
    with pytest.raises(ModuleNotFoundError, match="this_module_is_not_there"):
        registry.get("a")


def test_the_registries_of_hgmm() -> None:
    assert "emoji" in DATASETS
    assert "hgnn-ima" in MODELS
