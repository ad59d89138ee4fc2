"""Who may import whom, read from the syntax trees; imports inside functions and under TYPE_CHECKING count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "hgmm"
MAX_LINES = 400
LONGER_MODULES: frozenset[str] = frozenset()

BASE = frozenset({"errors", "typing", "settings", "registry"})
TENSORS = BASE | {"kernels"}
GRAPHS = BASE | {"dgl_compat", "files", "syntax", "graph", "triples"}
LAYERS = TENSORS | GRAPHS | {"nn"}
TRAINING = GRAPHS | {"losses", "negative_learning", "sampling", "kg", "datasets", "training"}

ALLOWED: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "typing": BASE,
    "settings": BASE,
    "registry": BASE,
    "files": BASE,
    "syntax": BASE,
    "triples": BASE,
    "dgl_compat": BASE,
    "kernels": TENSORS,
    "graph": GRAPHS,
    "nn": LAYERS,
    "losses": TENSORS | {"losses"},
    "negative_learning": TENSORS | {"negative_learning"},
    "sampling": TENSORS | GRAPHS | {"sampling"},
    "kg": TENSORS | GRAPHS | {"losses", "kg"},
    "datasets": GRAPHS | {"kg", "datasets"},
    # kg, which models may import, rests on losses.
    "models": LAYERS | {"kg", "losses", "negative_learning", "models"},
    "training": TRAINING,
    "report": BASE | {"training", "report"},
    "diagnostics": TRAINING | {"kernels", "diagnostics"},
    "testing": LAYERS,
    # The package re-exports names on first use; that is the way in for users, not for its parts.
    "__init__": LAYERS | TRAINING | {"models", "report"},
    "__main__": frozenset({"cli"}),
}
"""What each part may import; ``cli`` is not listed because it may import everything, and nobody may import it."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def called(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a module imports, relative imports resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) == "import_module" and isinstance(node.args[0], ast.Constant):
            yield node.lineno, str(node.args[0].value)


def imports_of(path: Path) -> list[tuple[int, str]]:
    package = ("hgmm", *path.relative_to(PACKAGE).parent.parts)
    return list(imported(ast.parse(path.read_text(encoding="utf-8")), package))


def parts_imported(names: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield line and part of hgmm; a name of the package itself counts as ``__init__``."""
    for line, name in names:
        words = name.split(".")
        if words[0] != "hgmm":
            continue
        part = words[1] if len(words) > 1 else "__init__"
        is_part = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()
        yield line, part if is_part else "__init__"


def forbidden(part: str, names: list[tuple[int, str]]) -> list[str]:
    if part == "cli":
        return []
    # The version is the one name of the package itself that its parts may use.
    found = parts_imported([(line, name) for line, name in names if name != "hgmm.__version__"])
    return [f"line {line}: {part} imports {other}" for line, other in found if other not in ALLOWED[part]]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_only_what_its_part_may(path: Path) -> None:
    assert part_of(path) in ALLOWED or part_of(path) == "cli", f"say in ALLOWED what {part_of(path)!r} may import"
    assert forbidden(part_of(path), imports_of(path)) == []


@pytest.mark.parametrize("path", [path for path in modules() if path.stem != "dgl_compat"], ids=name_of)
def test_only_dgl_compat_imports_dgl(path: Path) -> None:
    assert [name for _, name in imports_of(path) if name.split(".")[0] == "dgl"] == []


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_modules_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES or name_of(path) in LONGER_MODULES, f"{lines} lines; split it"


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("kernels", "from hgmm.dgl_compat import dgl"),
        ("kernels", "from hgmm.graph import relation_csc"),
        ("kernels", "from ..graph import csc"),
        ("graph", "from hgmm import kernels"),
        ("training", "import hgmm.models"),
        ("training", "def build():\n    from hgmm.models import HGNNIMA"),
        ("training", "import importlib\nimportlib.import_module('hgmm.models')"),
        ("diagnostics", "from hgmm.cli import main"),
        ("nn", "from hgmm import MultimodalGraph"),
    ],
)
def test_rule_finds_a_breach(part: str, line: str) -> None:
    names = list(imported(ast.parse(line), ("hgmm", part)))
    assert len(forbidden(part, names)) == 1


def test_rule_accepts_what_is_allowed() -> None:
    names = list(imported(ast.parse("from hgmm import __version__\nfrom hgmm.kernels import _checks"), ("hgmm", "nn")))
    assert forbidden("nn", names) == []


def test_importing_the_package_loads_no_heavy_part() -> None:
    code = "import sys, hgmm; print(sorted({'torch', 'dgl', 'pandas', 'triton'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
