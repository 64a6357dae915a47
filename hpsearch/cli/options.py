"""Arguments and options that several commands share. A command can take several options as one value."""

from __future__ import annotations

import functools
import inspect
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from hpsearch.errors import ConfigError

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="The name of a study, or a study file.", show_default=False)]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A study file.", show_default=False)]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the data set. [default: $HPSEARCH_DATA, data/, Debian's package]"),
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, max=1024, help="Worker processes. [default: by cores, memory and budget]"),
]
PerOption = Annotated[Literal["model"] | None, typer.Option("--per", help="Take the best K of each model.")]


@dataclass(frozen=True)
class Options:
    """Marks a parameter of a command whose value is made from several options.

    Attributes:
        make: a function. Its parameters are the options, and its result is the value of the parameter.
    """

    make: Callable[..., Any]


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command in the form that typer reads.

    Each parameter that is marked by `Options` is replaced by the options from which its value is made.

    Args:
        command: a function with annotated parameters.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    bundles: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        make = next((mark.make for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Options)), None)
        if make is None:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            options = inspect.signature(make, eval_str=True).parameters
            parameters += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options.values()]
            bundles[parameter.name] = make, list(options)

    @functools.wraps(command)
    def call(**values: Any) -> None:
        for name, (make, options) in bundles.items():
            values[name] = make(**{option: values.pop(option) for option in options})
        command(**values)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # `inspect` reads the signature from here
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """Return the values of assignments such as `["sgd.lr=0.1", "model=cnn"]` by name.

    Args:
        words: assignments, as `NAME=VALUE`. Numbers, true and false are written as in TOML.

    Raises:
        ConfigError: a word is not an assignment.
    """
    values: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise ConfigError(f"expected NAME=VALUE, but got '{word}'", hint="Write the name and the value with '=' and no blanks.")
        values[name] = text
        # Dates, lists and tables are no values of parameters. Thousands of brackets are too deep for the parser.
        with suppress(tomllib.TOMLDecodeError, RecursionError):
            parsed = tomllib.loads(f"value = {text}")
            if len(parsed) == 1 and isinstance(parsed["value"], bool | int | float | str):
                values[name] = parsed["value"]
    return values
