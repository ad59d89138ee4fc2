"""The command line: each command parses, calls the library and shows the result; it holds no logic of its own."""

from __future__ import annotations

from hgmm.cli.app import main

__all__ = ["main"]
