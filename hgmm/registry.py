"""Names of datasets, models and variants, and how to get the object behind one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Generic, TypeVar

from hgmm.errors import ConfigError, unknown_name

__all__ = ["DATASETS", "MODELS", "Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from name to object, filled when its module is first needed.

    Parameters
    ----------
    what : str
        Singular noun for messages, for example ``"dataset"``.
    module : str
        The module whose import fills the table. It is imported on the first look-up, so that reading a registry costs
        nothing until it is used and nobody needs to import the models to know that there are some.
    listed_by : str, optional
        The command that lists the names.

    Examples
    --------
    >>> shapes = Registry("shape", "hgmm.registry")
    >>> @shapes.register("square")
    ... def square(): return 4
    >>> shapes.get("square")()
    4
    >>> list(shapes)
    ['square']
    """

    def __init__(self, what: str, module: str, *, listed_by: str = "") -> None:
        self.what = what
        self._listed_by = listed_by
        self._module = module
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its object under `name`.

        Raises
        ------
        ConfigError
            If the name is taken by another object.
        """

        def enter(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise ConfigError(f"register: {self.what} {name!r} exists already; choose another name")
            self._entries[name] = entry
            return entry

        return enter

    def get(self, name: str) -> T:
        """Return the object called `name`.

        Raises
        ------
        ConfigError
            If there is none; the message lists the known names.
        """
        self._fill()
        if name not in self._entries:
            raise ConfigError(unknown_name(self.what, name, self._entries, listed_by=self._listed_by))
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._entries

    def _fill(self) -> None:
        import_module(self._module)


DATASETS: Registry[Any] = Registry("dataset", "hgmm.datasets", listed_by="hgmm datasets list")
MODELS: Registry[Any] = Registry("model", "hgmm.models")
