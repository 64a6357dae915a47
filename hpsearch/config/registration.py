"""Decorators that register a user's model, optimizer, schedule or data set.

A component file is a Python file that uses these decorators. A study file lists component files in
`use = ["my_net.py"]`. A notebook needs no component file, because it can use the decorators itself.
"""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from hpsearch.config.components import BUILT_IN, SELECTORS, Catalog, Component, ComponentFile, Kind, Option, Scalar
from hpsearch.errors import ComponentError
from hpsearch.formatting import show, show_path

Factory = TypeVar("Factory", bound=Callable[..., Any])

COMPONENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

RESERVED_OPTIONS = ("help", "when", *SELECTORS)
"""Names that no option can have, because they mean something else in a decorator or in a study file."""

_registered: dict[str, Component] = {}
_loading: list[Component] | None = None


def option(
    default: Scalar,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Scalar, ...] | None = None,
    help: str = "",
) -> Option:
    """Return an option of a component. The decorator of the component sets the name of the option.

    Args:
        default: the default value. Its type is the type of the option.
        low: the smallest value that is allowed.
        high: the largest value that is allowed.
        above: an exclusive lower bound.
        below: an exclusive upper bound.
        choices: the only values that are allowed.
        help: a description of the option in one line.

    Returns:
        The option.

    Raises:
        ComponentError: the option does not allow its own default.

    Example:
        >>> import hpsearch
        >>> hpsearch.option(8, low=1, high=64).allowed
        'a whole number, >= 1 and <= 64'
    """
    if not isinstance(default, bool | int | float | str):
        raise ComponentError(f"the default of an option must be a string, a number, or true or false, but got {show(default)}")
    made = Option(name="", default=default, low=low, high=high, above=above, below=below, choices=choices, help=help)
    if rule := made.refuses(default):
        raise ComponentError(f"the default of an option {rule}")
    return made


def model(name: str, *, help: str = "", **options: Option) -> Callable[[Factory], Factory]:
    """Register a model.

    Decorate a function `factory(*, input_shape: (C, H, W), classes: int, **options) -> nn.Module`.
    The module must map normalised images, float32 [N, C, H, W], to logits [N, classes].

    Args:
        name: the name that a study file uses.
        help: a description of the model in one line. The default is the first line of the factory's docstring.
        options: the model's options by name.

    Returns:
        A decorator of the factory.

    Raises:
        ComponentError: the name or an option is not allowed.

    Example:
        >>> import hpsearch, torch
        >>> @hpsearch.model("linear", bias=hpsearch.option(True))
        ... def linear(*, input_shape, classes, bias):
        ...     channels, height, width = input_shape
        ...     return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * height * width, classes, bias=bias))
        >>> hpsearch.configure(model="linear").model.options["bias"]
        True
    """
    return _register("model", name, help, options)


def optimizer(name: str, *, help: str = "", **options: Option) -> Callable[[Factory], Factory]:
    """Register an optimizer.

    Decorate a function `factory(parameters, **options) -> torch.optim.Optimizer`.

    Args:
        name: the name that a study file uses.
        help: a description of the optimizer in one line. The default is the first line of the factory's docstring.
        options: the optimizer's options by name.

    Returns:
        A decorator of the factory.

    Raises:
        ComponentError: the name or an option is not allowed.

    Example:
        >>> import hpsearch, torch
        >>> @hpsearch.optimizer("adagrad", lr=hpsearch.option(0.01, above=0))
        ... def adagrad(parameters, *, lr):
        ...     return torch.optim.Adagrad(parameters, lr=lr)
        >>> hpsearch.configure(optimizer="adagrad", lr=0.1).optimizer.options["lr"]
        0.1
    """
    return _register("optimizer", name, help, options)


def schedule(name: str, *, help: str = "", **options: Option) -> Callable[[Factory], Factory]:
    """Register a schedule.

    Decorate a function `factory(optimizer, *, steps: int, steps_per_epoch: int, **options) -> LRScheduler`.
    The trainer steps the schedule after every batch. `steps` is the number of batches in the whole run.

    Args:
        name: the name that a study file uses.
        help: a description of the schedule in one line. The default is the first line of the factory's docstring.
        options: the schedule's options by name.

    Returns:
        A decorator of the factory.

    Raises:
        ComponentError: the name or an option is not allowed.

    Example:
        >>> import hpsearch, torch
        >>> @hpsearch.schedule("linear_decay")
        ... def linear_decay(optimizer, *, steps, steps_per_epoch):
        ...     return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        >>> hpsearch.configure(schedule="linear_decay").schedule.name
        'linear_decay'
    """
    return _register("schedule", name, help, options)


def dataset(name: str, *, help: str = "") -> Callable[[Factory], Factory]:
    """Register a data set.

    Decorate a function `factory(root: Path, *, train: bool) -> (images, labels, class names)`.
    The images must be uint8 [N, C, H, W] or [N, H, W], in a tensor or an array. The labels must be
    whole numbers [N] from 0. With `train=False` the function must return the test images, which are
    used only for final scores.

    Args:
        name: the name that a study file uses.
        help: a description of the images in one line. The default is the first line of the factory's docstring.

    Returns:
        A decorator of the factory.

    Raises:
        ComponentError: the name is not allowed.

    Example:
        >>> import hpsearch, torch
        >>> @hpsearch.dataset("shades")
        ... def shades(root, *, train):
        ...     labels = torch.arange(60) % 2
        ...     images = 200 * labels[:, None, None].expand(60, 28, 28)
        ...     return images.to(torch.uint8), labels, ("dark", "bright")
        >>> hpsearch.load_split("shades", validation_images=20, seed=0).classes
        ('dark', 'bright')
    """
    return _register("dataset", name, help, {})


def registered(name: str) -> Component | None:
    """Return the component that a user registered with a name in this process. The last one counts.

    Args:
        name: the component's name.

    Returns:
        The component, or None if there is none.
    """
    return _registered.get(name)


def current_catalog() -> Catalog:
    """Return all components: the built-in ones, and those that users registered in this process.

    Returns:
        The catalog.
    """
    return BUILT_IN.extended(_registered.values())


def load_component_file(path: Path) -> tuple[Component, ...]:
    """Run a component file and return what it registered.

    Args:
        path: the file.

    Returns:
        The components of the file.

    Raises:
        ComponentError: the file is missing, fails when it runs, or registers nothing.
    """
    global _loading
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ComponentError(
            f"component file {show_path(path)} cannot be read: {error.strerror}", hint="`use` holds paths relative to the study file."
        ) from error
    file = ComponentFile(path=path, sha256=hashlib.sha256(source).hexdigest())
    module = ModuleType(f"hpsearch_component_{path.stem}_{file.sha256[:12]}")
    module.__file__ = str(path)
    # Dataclasses and pickle look up the module of a class by its name.
    sys.modules[module.__name__] = module
    _loading = []
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        found = tuple(replace(component, file=file) for component in _loading)
    except ComponentError as error:
        hint = " ".join(filter(None, (error.hint, _line_of(error, path))))
        raise ComponentError(f"component file {show_path(path)}: {error.message}", hint=hint) from error
    except (Exception, SystemExit) as error:
        raise ComponentError(
            f"component file {show_path(path)} does not import: {type(error).__name__}: {error}", hint=_line_of(error, path)
        ) from error
    finally:
        _loading = None
    if not found:
        raise ComponentError(
            f"component file {show_path(path)} registers nothing",
            hint='Decorate a function or class with @hpsearch.model("name"), .optimizer, .schedule or .dataset.',
        )
    BUILT_IN.extended(found)  # raises an error if a name is built in or occurs twice in the file
    _registered.update({component.name: component for component in found})
    return found


def load_component_files(paths: Iterable[Path]) -> Catalog:
    """Run component files and return a catalog of the built-in components and of what the files registered.

    Args:
        paths: the files.

    Returns:
        The catalog.

    Raises:
        ComponentError: a file is missing, fails when it runs, or registers nothing. Also if a name is already used.
    """
    catalog = BUILT_IN
    for path in paths:
        catalog = catalog.extended(load_component_file(path))
    return catalog


def component_hash(path: Path) -> str | None:
    """Return the SHA-256 of a component file, hexadecimal.

    Args:
        path: the file.

    Returns:
        The hash, or None if the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def find_component_file(places: Sequence[Path], sha256: str, *, owner: str, beside: str, trust: bool | None = None) -> ComponentFile:
    """Find the component file with which a result was made. The file is not run.

    Args:
        places: the paths where the file may be, in order of preference.
        sha256: SHA-256 of the file when the result was made, hexadecimal.
        owner: words for the result in the error message, such as `the config`.
        beside: name of the file of the result. The hint says to put the component file beside this file.
        trust: whether to accept a file with other content; None if the user cannot choose this.

    Returns:
        The file with its present SHA-256.

    Raises:
        ComponentError: the file is missing, or its content has changed and `trust` is not True.
    """
    found = [ComponentFile(path=path.resolve(), sha256=digest) for path in places if (digest := component_hash(path)) is not None]
    if not found:
        raise ComponentError(
            f"the component file {show_path(places[-1])} is missing", hint=f"Put it beside {beside}: {owner} was made with it."
        )
    accepted = [file for file in found if trust or file.sha256 == sha256]
    if accepted:
        return accepted[0]
    raise ComponentError(
        f"the component file {show_path(found[0].path)} is not the one that {owner} was made with",
        hint=f"It must have the SHA-256 {sha256[:16]}…: put the right one beside {beside}"
        + ("." if trust is None else ", or use this one with --trust."),
    )


def _register(kind: Kind, name: str, help: str, options: dict[str, Option]) -> Callable[[Factory], Factory]:
    if not COMPONENT_NAME.fullmatch(name):
        raise ComponentError(f"a {kind}'s name must be letters, digits, '_' or '-', but got {show(name)}")
    # If a user names an option `help`, Python passes the option as the argument `help`.
    declared = options if isinstance(help, str) else {"help": help, **options}
    for key, value in declared.items():
        if key in RESERVED_OPTIONS:
            raise ComponentError(
                f"the {kind} '{name}' has an option `{key}`, which means something else in a study file", hint="Give it another name."
            )
        if not isinstance(value, Option):
            raise ComponentError(f"the {kind} '{name}' declares {key} as {show(value)}", hint=f"Write {key}=hpsearch.option({value!r}).")

    def decorate(factory: Factory) -> Factory:
        named = tuple(replace(value, name=key) for key, value in options.items())
        text = help or next(iter((factory.__doc__ or "").strip().splitlines()), "")
        component = Component(kind=kind, name=name, help=text, options=named, factory=factory)
        if _loading is not None:
            _loading.append(component)
        else:
            BUILT_IN.extended([component])
            _registered[name] = component
        return factory

    return decorate


def _line_of(error: BaseException, path: Path) -> str:
    """Return a hint with the line in the component file where the error occurred."""
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"Look at line {lines[-1]} of the file." if any(lines) else ""
