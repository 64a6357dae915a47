"""Commands with one hostile argument or option, for every parameter that the command line has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from hpsearch.cli.main import COMMANDS, app

VALID: dict[str, tuple[str, ...]] = {
    "init": ("new.toml",),
    "check": ("stripes.toml",),
    "data": (),
    "doctor": (),
    "run": ("stripes.toml",),
    "try": ("stripes", "0"),
    "stop": ("stripes",),
    "finalists": ("stripes", "--top", "1", "--seeds", "2"),
    "explain": ("stripes", "--seeds", "2"),
    "worker": ("stripes",),
    "show": ("stripes",),
    "ls": (),
    "report": ("stripes",),
    "dashboard": ("stripes", "--port", "0"),
    "compare": ("stripes/0", "stripes/1"),
    "reproduce": ("stripes", "0"),
    "export": ("stripes",),
    "train": ("best.toml",),
    "predict": ("best-final", "plain.png"),
    "summary": ("lenet5",),
    "rm": ("stripes", "--yes"),
}
"""Arguments of each command, in a folder that has all these files and studies."""

PLACES = (
    *("", ".", "..", "/", "/dev/null", "/dev/full", "/dev/stdout", "/nonexistent/x.png", "/proc/x.toml", "/sys/x.toml", "~", "-", "a/../b"),
    *("stripes.toml/x", "stripes.toml", "stripes.py", "runs", "plain.png", "best-final", "looped", "dangling", "not-text.toml", "x" * 300),
)
"""Paths: folders, devices, places that nobody may write to, files of another kind, links in a circle and to nothing."""
TEXTS = (
    *("a\nb", "\udcff", "\x1b[31m", "🎨", "%00", "*", "'", '"', "$(id)", "&amp;<b>", "[1]", "1979-05-27", "{a=1}", "[" * 3000, "a.b.c"),
    *("nan", "inf", "-1", "0", "1e400", "9" * 400, "0x10", "true", "stripes", "stripes.finalists", "stripes/0", "stripes/99", "a=1=2", "="),
    *("sqlite:///", "sqlite:///stripes.toml", "sqlite:///file:f.db?uri=true", "postgresql://", "http://[::1", "cpu", "cuda:99", "lenet5"),
)
"""Texts that are not what is asked for: control characters, numbers, values of TOML, URLs, names of other things."""
ASSIGNED = ("model", "lr", "sgd.lr", "epochs", "batch_size", "optimizer", "activation", "nothing", "adam")
"""Names on the left of an assignment, of which each gets every text."""


def hostile_commands() -> Iterator[list[str]]:
    """Make commands in which one parameter is hostile and everything else is valid.

    Yields:
        The arguments of each command, without the name of the program.
    """
    group = typer.main.get_command(app)
    for name in COMMANDS:
        for parameter in group.get_command(None, name).params:  # type: ignore[attr-defined,arg-type]  # the class has no public name
            if parameter.name != "help":
                for words in _hostile_words(name, parameter):
                    yield [name, *words]


def _hostile_words(command: str, parameter: Any) -> Iterator[list[str]]:
    valid = list(VALID[command])
    if parameter.param_type_name == "argument":
        takes_assignments = "=" in str(parameter.metavar)
        position = min(
            sum(not word.startswith("-") for word in valid), 1 if parameter.name in ("settings", "second", "pictures", "trial") else 0
        )
        for value in (*PLACES, *TEXTS):
            yield ["--", *valid[:position], value, *(word for word in valid[position + 1 :] if not word.startswith("-"))]
        if takes_assignments:
            for name in ASSIGNED:
                for value in TEXTS:
                    yield [*valid, f"{name}={value}"]
    elif parameter.is_flag:
        yield [*valid, parameter.opts[0]]
    else:
        for value in (*PLACES, *TEXTS):
            yield [*valid, f"{parameter.opts[0]}={value}"]
