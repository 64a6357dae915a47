"""Decorators that register a user's model, optimizer, schedule or data set.

A component file is a Python file that uses these decorators. A study file lists component files in
`use = ["my_net.py"]`. A notebook needs no component file, because it can use the decorators itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from hpsearch.config.components import BUILT_IN, SELECTORS, Catalog, Component, ComponentFile, Kind, Option, Scalar
from hpsearch.config.trusted_files import is_trusted, remember
from hpsearch.errors import ComponentError
from hpsearch.formatting import one_line, show, show_path

Factory = TypeVar("Factory", bound=Callable[..., Any])

COMPONENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

RESERVED_OPTIONS = ("help", "when", *SELECTORS)
"""Names that no option can have, because they mean something else in a decorator or in a study file."""

DEEPEST_NAME = 8
"""Most names of a recorded path that are looked for beside a result. A path of a thousand names is no reason for a thousand look-ups."""

LARGEST_SOURCE = 10_000_000
"""Largest size of a component file in bytes. A larger file is probably an error or an attack."""

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
    """Run a component file and return what it registered. The file is recorded as one that this user has run.

    Args:
        path: the file. `find_component_file` must have accepted a file that came with a model or a config.

    Returns:
        The components of the file.

    Raises:
        ComponentError: the file is missing, fails when it runs, or registers nothing.
    """
    global _loading
    try:
        source = _read_source(path)
    except OSError as error:
        raise ComponentError(
            f"component file {show_path(path)} cannot be read: {error.strerror}", hint="`use` holds paths relative to the study file."
        ) from error
    file = ComponentFile(path=path, sha256=_digest(source))
    module = ModuleType(f"hpsearch_component_{path.stem}_{file.sha256[:12]}")
    module.__file__ = str(path)
    module.__package__ = ""  # it is no part of a package, so it has no relative imports
    # Dataclasses and pickle look up the module of a class by its name.
    sys.modules[module.__name__] = module
    _loading = []
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        found = tuple(replace(component, file=file) for component in _loading)
    except ComponentError as error:
        hint = " ".join(filter(None, (error.hint, _line_of(error, path))))
        raise ComponentError(f"component file {show_path(path)}: {error.message}", hint=hint) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file from elsewhere may raise anything
        raise ComponentError(
            f"component file {show_path(path)} does not import: {type(error).__name__}: {one_line(str(error))}", hint=_hint(error, path)
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
    remember(file.sha256, path)
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
    """Return the SHA-256 of a component file with `\\n` as line ends, hexadecimal.

    Args:
        path: the file.

    Returns:
        The hash, or None if the file cannot be read.
    """
    try:
        return _digest(_read_source(path))
    except OSError:
        return None


def component_fault(error: BaseException) -> ComponentError | None:
    """Describe an error that occurred in a component file.

    Args:
        error: any error, with its traceback.

    Returns:
        An error that names the file and the line, or None if no component file took part.
    """
    paths = {str(component.file.path): component.file.path for component in _registered.values() if component.file is not None}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in paths]
    if not frames:
        return None
    path = paths[frames[-1].filename]
    return ComponentError(
        f"component file {show_path(path)} failed: {type(error).__name__}: {one_line(str(error))}", hint=_hint(error, path)
    )


def short_names(files: Sequence[ComponentFile]) -> dict[ComponentFile, str]:
    """Return a short name for each of some component files: the shortest end of its path that no other file has.

    Args:
        files: the files, with different absolute paths.

    Returns:
        The base name of each file. Files with the same base name get the folders that tell them apart, as `models/parts.py`.
    """
    parts = {file: _names(file.path) for file in files}

    def name(file: ComponentFile) -> str:
        ends = (parts[file][-length:] for length in range(1, len(parts[file]) + 1))
        unique = (end for end in ends if sum(other[-len(end) :] == end for other in parts.values()) == 1)
        return "/".join(next(unique, parts[file]))

    return {file: name(file) for file in files}


def places_of(recorded: Path, folder: Path) -> list[Path]:
    """Return where a component file may lie that belongs to a file in a folder: under each of its `short_names`, and where it was.

    Args:
        recorded: the path of the component file when the result was made.
        folder: the folder of the result.

    Returns:
        The paths. Those in the folder come first, so a user can pass on a result with its component files.
    """
    names = _names(recorded)[-DEEPEST_NAME:]
    return [*(folder.joinpath(*names[start:]) for start in range(len(names)) if os.pardir not in names[start:]), recorded]


def find_component_file(
    places: Sequence[Path], sha256: str, *, owner: str, beside: str, trust: bool, may_change: bool = False
) -> ComponentFile:
    """Find the component file that a config or a model needs, and check that it may run. A component file is Python code of a user.

    The file may run if its content is the recorded content, and if this user has run the same content before or gives `trust`. This
    function does not run it.

    Args:
        places: paths where the file may be. The first file with the recorded content is taken.
        sha256: SHA-256 of the recorded content, hexadecimal.
        owner: what needs the file, for the error message: `the config` or `the model`.
        beside: file name of the config or the model. The hint of the error says to put the component file beside it.
        trust: whether the user allows to run content that this user has not run before.
        may_change: whether `trust` also allows other content. If both are true, the first existing file is taken, whatever its content.

    Returns:
        The file with its present SHA-256.

    Raises:
        ComponentError: there is no such file, or it may not run.
    """
    found = [ComponentFile(path=path.resolve(), sha256=digest) for path in places if (digest := component_hash(path)) is not None]
    if not found:
        raise ComponentError(
            f"the component file {show_path(places[-1])} is missing", hint=f"Put it beside {beside}: {owner} was made with it."
        )
    if trust and may_change:
        return found[0]
    file = next((each for each in found if each.sha256 == sha256), None)
    if file is None:
        raise ComponentError(
            f"the component file {show_path(found[0].path)} is not the one that {owner} was made with",
            hint=f"It must have the SHA-256 {sha256[:16]}…: put the right one beside {beside}"
            + (", or use this one with --trust." if may_change else "."),
        )
    if not trust:
        require_run_before(file, owner=owner, allow="allow it with --trust (in Python, trust=True)")
    return file


def require_run_before(file: ComponentFile, *, owner: str, allow: str) -> None:
    """Raise an error if neither this process nor this user has run a component file before.

    Args:
        file: the file with its present SHA-256.
        owner: words for what needs the file, such as `the config`.
        allow: words that say how the user allows the file.

    Raises:
        ComponentError: the file has not been run before.
    """
    here = any(component.file is not None and component.file.sha256 == file.sha256 for component in _registered.values())
    if not here and not is_trusted(file.sha256):
        raise ComponentError(
            f"{owner} would run the program {show_path(file.path)}, which you have not run with hpsearch before",
            hint=f"Read it. If you trust its author, {allow}. hpsearch then remembers the file.",
        )


def _names(path: Path) -> tuple[str, ...]:
    """Return the parts of a path without the root."""
    return path.parts[1:] if path.anchor else path.parts


def _read_source(path: Path) -> bytes:
    """Read a component file. A pipe or a device, which might never end, raises an OSError, and so does a path that no system can have."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            is_folder = stat.S_ISDIR(found.st_mode)
            raise OSError(errno.EINVAL, os.strerror(errno.EISDIR) if is_folder else "it is not a regular file")
        if found.st_size > LARGEST_SOURCE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return path.read_bytes()
    except ValueError as error:  # a NUL or a broken character
        raise OSError(errno.EINVAL, str(error)) from error


def _digest(source: bytes) -> str:
    """Hash a component file. Line ends do not count: Git and editors change them, and Python reads all of them alike."""
    return hashlib.sha256(source.replace(b"\r\n", b"\n")).hexdigest()


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


def _hint(error: BaseException, path: Path) -> str:
    """Return a hint with the line in the component file where an error occurred, and a word on a module that lies beside the file."""
    name = ((error.name if isinstance(error, ImportError) else None) or "").partition(".")[0]
    is_neighbour = name and any(path.with_name(each).exists() for each in (name, f"{name}.py"))
    if is_neighbour or "attempted relative import" in str(error):
        advice = "A component file cannot import files beside it, because only its own content is recorded: move their code into it."
        return f"{_line_of(error, path)} {advice}"
    return _line_of(error, path)


def _line_of(error: BaseException, path: Path) -> str:
    """Return a hint with the line in the component file where the error occurred."""
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"Look at line {lines[-1]} of the file." if any(lines) else ""
