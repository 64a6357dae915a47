"""Prints results to stdout, and progress and errors to stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from hpsearch.formatting import hide_credentials, printable
from hpsearch.report.blocks import Block
from hpsearch.report.terminal import render

PLAIN_WIDTH = 160
"""Width in characters of an output that is not a terminal. Tables in a log may be as wide as this."""
STDERR = 2
"""Number of the file of standard error."""
BROKEN_PIPE = 141
"""Exit code if the reader of a pipe has closed the pipe. It is the sum of 128 and the number of SIGPIPE."""
LEAST_WIDTH = 40
"""Minimum width in characters. A narrower terminal wraps the lines itself."""


class _StandardFile(io.FileIO):
    """Standard output or standard error. An error of writing is reported once, and the rest is discarded.

    If progress cannot be written to standard error, the command goes on, because its work matters more.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            # Python writes its buffers again when it ends. That must not fail a second time.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):  # the reader of a pipe, for example `head`, has closed the pipe
                sys.exit(BROKEN_PIPE)
            if self.fileno() == STDERR:
                return len(data)
            error.filename = "standard output"
            raise


_results: TextIO | None = None


@contextmanager
def separate_results() -> Iterator[None]:
    """Send to standard error what user code prints. Standard output then has nothing but the result, which a program may read.

    Yields:
        Nothing.
    """
    global _results
    _results = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results = None


def results() -> TextIO:
    """Return the stream for results."""
    return _results or sys.stdout


def prepare_streams() -> None:
    """Prepare standard input, output and error for a command.

    A closed stream is replaced by `/dev/null`. Otherwise the next file that this process opens, such as the database, would become
    that stream. A character that the encoding of a stream lacks is written as an escape sequence.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The system takes the lowest free number, which is the number of the stream.
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115  # for the life of the process
        elif name != "stdin" and stream is getattr(sys, f"__{name}__"):
            buffer = io.BufferedWriter(_StandardFile(number, "w", closefd=False))
            options = {"encoding": stream.encoding, "errors": "backslashreplace", "line_buffering": stream.line_buffering}
            setattr(sys, name, io.TextIOWrapper(buffer, **options))


def stdout() -> Console:
    """Return the console for results."""
    return Console(file=results(), width=None if results().isatty() else PLAIN_WIDTH, highlight=False)


def stderr() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else PLAIN_WIDTH, highlight=False)


def print_blocks(*blocks: Block) -> None:
    """Print tables and sentences on stdout, as wide as the terminal or `$COLUMNS`.

    Args:
        blocks: what to print.
    """
    known = results().isatty() or os.environ.get("COLUMNS", "").isdigit()
    width = max(LEAST_WIDTH, Console().width) if known else None
    for line in render(blocks, width, unknown_width=PLAIN_WIDTH):
        stdout().print(line, soft_wrap=True)


def say(text: str = "") -> None:
    """Print a line of a result on stdout.

    Args:
        text: the line.
    """
    stdout().print(Text(_printable_lines(text)), soft_wrap=True)


def note(text: str, *, style: str = "") -> None:
    """Print a line of progress, a warning or an error on stderr. A URL in it is printed without its user and password.

    Args:
        text: the line.
        style: rich's style of the line, for example `yellow`.
    """
    stderr().print(Text(_printable_lines(hide_credentials(text)), style=style), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr.

    Args:
        text: the warning; nothing is printed if it is empty.
    """
    if text:
        note(f"warning: {text}", style="yellow")


def print_json(data: Any) -> None:
    """Print data as JSON on stdout. Numbers that are not finite become null.

    Args:
        data: a value made of dictionaries, lists, texts and numbers.
    """
    needs_ascii = not results().encoding.lower().startswith("utf")
    results().write(json.dumps(_finite(data), indent=2, ensure_ascii=needs_ascii) + "\n")


def print_result(data: Any, blocks: Iterable[Block], *, as_json: bool) -> None:
    """Print a result on stdout, as JSON or as text.

    Args:
        data: the result for `print_json`.
        blocks: the same result for `print_blocks`.
        as_json: whether to print JSON.
    """
    if as_json:
        print_json(data)
    else:
        print_blocks(*blocks)


def _printable_lines(text: str) -> str:
    """Return a text of several lines without control characters. Names in a file may come from somebody else."""
    return "\n".join(map(printable, text.split("\n")))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))) else data
