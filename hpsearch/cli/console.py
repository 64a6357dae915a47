"""Where output goes: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask: a log keeps its lines whole."""


def stdout() -> Console:
    """The console for results."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def stderr() -> Console:
    """The console for progress and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else PLAIN_WIDTH, highlight=False)


def say(text: str = "") -> None:
    """A line of a result."""
    stdout().print(Text(text), soft_wrap=True)


def note(text: str, *, style: str = "") -> None:
    """A line of progress."""
    stderr().print(Text(text, style=style), soft_wrap=True)


def print_json(data: Any) -> None:
    """Data as JSON on stdout; numbers that are not finite become null."""
    sys.stdout.write(json.dumps(_finite(data), indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Mapping[str, str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table on stdout.

    Args:
        columns: heading to justification, `left` or `right`.
    """
    if title:
        say(title)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in columns.items():
        table.add_column(heading, justify=justify, no_wrap=justify == "right", overflow="fold")  # type: ignore[arg-type]  # one of the two words
    for row in rows:
        table.add_row(*map(Text, row))
    stdout().print(table)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))) else data
