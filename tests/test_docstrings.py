"""Public functions describe their parameters and their result."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpsearch

PACKAGE = Path(hpsearch.__file__).parent

EXEMPT = {"cli"}
"""Packages whose functions are commands: their docstrings are help texts."""

SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Example|Attributes):$", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*):", re.MULTILINE)


def modules() -> list[str]:
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.py"))]
    return [name for name in names if not name.endswith("__init__") and name.split(".")[0] not in {*EXEMPT, "__main__", "studies"}]


def functions(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions of a module and the public methods of its public classes, but for overrides."""
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        if isinstance(member, type):
            for inner, method in vars(member).items():
                plain = inspect.unwrap(getattr(method, "__func__", method)) if callable(getattr(method, "__func__", method)) else None
                is_override = any(hasattr(base, inner) for base in member.__mro__[1:])
                # The default of a field may be a lambda; the class describes the field.
                is_field = inner in getattr(member, "__dataclass_fields__", {})
                if not inner.startswith("_") and inspect.isfunction(plain) and not is_override and not is_field:
                    yield f"{name}.{inner}", plain
        elif inspect.isfunction(inspect.unwrap(member)):
            yield name, inspect.unwrap(member)


def sections(text: str) -> dict[str, str]:
    """A docstring's sections by their names."""
    parts = SECTION.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def missing(function: Callable[..., Any]) -> list[str]:
    """What the docstring of a function leaves out."""
    found = sections(inspect.getdoc(function) or "")
    parameters = set(inspect.signature(function).parameters) - {"self", "cls"}
    described = {name.lstrip("*") for entry in ENTRY.findall(found.get("Args", "")) for name in entry.split(", ")}
    lacks = sorted(parameters - described)
    returns = inspect.signature(function).return_annotation
    if returns not in (None, "None", "Never", "NoReturn", inspect.Signature.empty) and not found.keys() & {"Returns", "Yields"}:
        lacks.append("Returns")
    return lacks


@pytest.mark.parametrize("name", modules())
def test_docstring_describes_parameters_and_result(name: str) -> None:
    module = importlib.import_module(f"hpsearch.{name}")
    assert {function: lacks for function, member in functions(module) if (lacks := missing(member))} == {}
