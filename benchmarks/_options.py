"""Types of command line options that several benchmarks have."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["Numbers"]


class Numbers(click.ParamType):  # type: ignore[type-arg]  # takes one in newer releases only
    """Numbers of at least 1, separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        words = str(value).split(",")
        if not all(word.strip().isdigit() and int(word) for word in words):
            self.fail(f"expected numbers of at least 1, separated by commas, got {value!r}", param, ctx)
        return list(map(int, words))
