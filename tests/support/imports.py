"""Which module of the package imports which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import hpsearch

PACKAGE = Path(hpsearch.__file__).parent

TEST_IMAGES = "training.data.held_out"
"""The module that loads the test images."""
MAY_READ_TEST_IMAGES = {"workflows.final_training", TEST_IMAGES}


@cache
def modules() -> tuple[str, ...]:
    """All modules by their names below `hpsearch`."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "studies":
            names.append(".".join(parts))
    return tuple(names)


def file_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """What a module imports, those inside functions included and those for types alone left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node, module)


@cache
def imported(module: str) -> frozenset[str]:
    """The package's modules that a module imports, by their names below `hpsearch`."""
    known = set(modules())
    found = set()
    for name in imports(ast.parse(file_of(module).read_text(encoding="utf-8")), module):
        inner = name.removeprefix("hpsearch.")
        if inner != name:
            found.add(next((part for part in (inner, inner.rpartition(".")[0]) if part in known), inner.partition(".")[0]))
    return frozenset(found - {"__version__"})
