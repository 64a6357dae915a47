"""Reads a study file, validates the whole file, and explains the errors in the file.

`hpsearch.config.sections` defines the keys of the sections. `hpsearch.config.space_parser` reads the space.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from hpsearch.config.components import DATASET_IMAGES, Catalog, ComponentFile, Scalar
from hpsearch.config.paths import bundled_studies, check_study_name
from hpsearch.config.registration import load_component_files
from hpsearch.config.sections import Budget, Data, Finalists, Limits, Pruner, Sampler, Section, Seed, WarmStart, explain
from hpsearch.config.space import Space
from hpsearch.config.space_parser import read_space
from hpsearch.errors import ComponentError, ConfigError, StudyFileError, UsageError, did_you_mean
from hpsearch.formatting import show, show_path

LARGEST_FILE = 100_000
"""Largest size of a study file in bytes. A larger file is probably not a study file."""

DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){20}""")
"""Finds a key of twenty names with dots between them. tomllib would need minutes for a key of thousands of names."""


class Contents(Section):
    """The content of a study file. The space and the baselines are not validated yet."""

    name: str = Field(description="letters, digits, '-' and '_', at most 80: the study's name in the storage and its folder's")
    description: str = Field(default="", description="the question that the study answers")
    seed: Seed = Field(default=0, description="seed of the split, the sampler and every trial")
    use: list[str] = Field(default_factory=list, description="component files, relative to the study file")
    keep: Annotated[int, Field(ge=0, le=1_000_000)] = Field(default=3, description="number of best trials that keep their last checkpoint")
    data: Data = Field(default_factory=Data)
    budget: Budget
    limits: Limits = Field(default_factory=Limits)
    sampler: Sampler = Field(default_factory=Sampler)
    pruner: Pruner = Field(default_factory=Pruner)
    finalists: Finalists | None = Field(default=None)
    warm_start: WarmStart | None = Field(default=None)
    space: dict[str, Any] = Field(description="the parameters, see the search space")
    baseline: list[dict[str, Any]] = Field(
        default_factory=list, description="configurations that are tried first; what they leave out has its default"
    )


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A valid study file.

    Attributes:
        finalists: how the best trials are repeated after the search; None if they are not repeated.
        baselines: complete points of the space that are tried first.
        warm_start: names of other studies whose finished trials are copied into this study at its start.
        component_files: the files that `use` names, in the order of `use`.
        text: the content of the file.
        path: the absolute path of the file.
    """

    name: str
    description: str
    seed: int
    keep: int
    data: Data
    budget: Budget
    limits: Limits
    sampler: Sampler
    pruner: Pruner
    finalists: Finalists | None
    space: Space
    baselines: tuple[Mapping[str, Scalar], ...]
    warm_start: tuple[str, ...]
    component_files: tuple[ComponentFile, ...]
    text: str
    path: Path

    @property
    def comparable(self) -> dict[str, Any]:
        """The parts that must be the same for all trials of a study: space, data, seed and component files."""
        return {
            "space": self.space.to_plain(),
            "data": self.data.model_dump(),
            "seed": self.seed,
            "component files": dict(zip(used_files(self.text, self.path), (file.sha256 for file in self.component_files), strict=True)),
        }

    def with_precision(self, auto: Mapping[str, str]) -> StudyFile:
        """Return the study file of a study that has fixed what the precision `auto` means.

        Args:
            auto: the number format, by model.

        Returns:
            The study file.
        """
        return replace(self, space=replace(self.space, auto_precision=auto))


def load_study_file(path: Path) -> StudyFile:
    """Read and validate a study file.

    Args:
        path: the file.

    Returns:
        The study file.

    Raises:
        StudyFileError: the file cannot be read or is not valid. The error names the file, the key, the rule and the value.
        ComponentError: a component file is missing or cannot be imported.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        _refuse_large(content, path)
        # Some editors begin a UTF-8 file with a byte order mark, which TOML does not allow.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyFileError(f"{path}: is not UTF-8 text (byte {error.start})", hint="Save it as UTF-8.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StudyFileError(f"cannot read the study file {show_path(path)}: {reason}", hint=_suggest_file(path)) from error
    return parse_study_file(text, path=path.absolute())


def parse_study_file(text: str, *, path: Path) -> StudyFile:
    """Validate the text of a study file.

    Args:
        text: the content of the file.
        path: the path of the study file. Errors name the file. Paths of component files are relative to its folder.

    Returns:
        The study file.

    Raises:
        StudyFileError: the text is not valid. The error names the file, the key, the rule and the value.
        ComponentError: a component file is missing or cannot be imported.
    """
    _refuse_large(text, path)
    if deep := DEEP_KEY.search(text):
        raise StudyFileError(f"{path.name}: tables do not nest as deep as {show(deep[0])}")
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise StudyFileError(f"{path.name}: is not valid TOML: {error}") from error
    if is_best_config(table):
        raise StudyFileError(
            f"{path.name}: is a best config, one training run, and no study file",
            hint=f"`hpsearch train {os.path.relpath(path)}` trains it and evaluates it on the validation images; --final is the last step.",
        )
    try:
        contents = Contents.model_validate(table)
    except ValidationError as error:
        message, hint = explain(error, Contents)
        raise StudyFileError(f"{path.name}: {message}", hint=hint) from error
    try:
        return _build(contents, text, path)
    except (StudyFileError, ConfigError) as error:
        raise StudyFileError(f"{path.name}: {error.message}", hint=error.hint) from error
    except ComponentError as error:
        raise ComponentError(f"{path.name}: use: {error.message}", hint=error.hint) from error


def used_files(text: str, path: Path) -> dict[str, Path]:
    """Return the component files that a valid study file uses. They are not read.

    Args:
        text: the content of the study file.
        path: the path of the study file.

    Returns:
        The absolute path of each file, by its path relative to the study file. Two files may have the same base name.
    """
    # `Path.resolve` raises an error for a symbolic link to itself.
    return {os.path.normpath(name): Path(os.path.realpath(path.parent / name)) for name in tomllib.loads(text).get("use", [])}


def stored_hashes(text: str, path: Path, stored: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of the component files that are stored with a study, by their paths relative to the study file.

    Version 0.1 stored the hashes by base name. Of two files with the same base name, it stored the hash of the last one only.

    Args:
        text: the stored content of the study file.
        path: the stored path of the study file.
        stored: the stored hashes.

    Returns:
        The hashes. It is empty for a file whose hash was not stored.
    """
    used = used_files(text, path)
    if stored.keys() == used.keys():
        return dict(stored)
    last = {file.name: name for name, file in used.items()}
    return {name: stored.get(file.name, "") if last[file.name] == name else "" for name, file in used.items()}


def is_best_config(table: Mapping[str, Any]) -> bool:
    """Return whether the content of a TOML file is a best config from `hpsearch export`.

    Args:
        table: the content.

    Returns:
        True if it is.
    """
    return "format" in table and "trainer" in table and "space" not in table


def shipped_study_files() -> list[Path]:
    """Return the study files that come with hpsearch.

    Returns:
        Paths in alphabetical order, without the best configs in the same folder.
    """
    files = sorted(bundled_studies().glob("*.toml"))
    return [path for path in files if not is_best_config(tomllib.loads(path.read_text(encoding="utf-8")))]


def _refuse_large(content: bytes | str, path: Path) -> None:
    if len(content) > LARGEST_FILE:
        raise StudyFileError(f"{path.name}: more than {LARGEST_FILE:,} bytes are too many for a study file", hint="Is it the right file?")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study file, for editors.

    Returns:
        The schema.
    """
    plain: dict[str, Any] = {"type": ["string", "number", "boolean"]}
    pair = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    log = {"log": {"type": "boolean"}}
    kinds = (
        {"choices": {"type": "array", "minItems": 1, "items": plain}},
        {"float": pair, "step": {"type": "number"}, **log},
        {"int": pair, "step": {"type": "integer"}, **log},
    )
    tables = [{"type": "object", "properties": kind, "required": [next(iter(kind))], "additionalProperties": False} for kind in kinds]
    reference = {"$ref": "#/$defs/parameter"}
    group = {"type": "object", "properties": {"when": {"type": "object"}}, "additionalProperties": reference}
    schema = Contents.model_json_schema(by_alias=True)
    schema["$defs"]["parameter"] = {"anyOf": [plain, *tables]}
    schema["properties"]["space"] = {"type": "object", "additionalProperties": {"anyOf": [reference, group]}}
    schema["title"] = "hpsearch study file"
    return schema


def _build(contents: Contents, text: str, path: Path) -> StudyFile:
    check_study_name(contents.name)
    for name in contents.use:
        if "\0" in name:
            raise StudyFileError(f"use: {show(name)} is not a file name")
    catalog = load_component_files(Path(os.path.realpath(path.parent / name)) for name in contents.use)
    space = read_space(contents.space, catalog=catalog)
    _check_data(contents.data, catalog)
    _check_search(contents, space)
    baselines = tuple(_baseline(space, given, number) for number, given in enumerate(contents.baseline, start=1))
    if len(baselines) > contents.budget.max_trials:
        key = "epochs" if contents.budget.trials is None else "trials"
        rule = f"budget.{key}: {len(baselines)} baselines do not fit into {contents.budget.amount}"
        raise StudyFileError(rule, hint="Each baseline is a trial.")
    same = ("name", "description", "seed", "keep", "data", "budget", "limits", "sampler", "pruner", "finalists")
    return StudyFile(
        **{key: getattr(contents, key) for key in same},
        space=space,
        baselines=baselines,
        warm_start=_sources(contents),
        component_files=tuple(dict.fromkeys(component.file for component in catalog if component.file is not None)),
        text=text,
        path=path,
    )


def _check_data(data: Data, catalog: Catalog) -> None:
    known = catalog.names("dataset")
    if data.dataset not in known:
        raise StudyFileError(f"data.dataset: unknown data set {show(data.dataset)}", hint=did_you_mean(data.dataset, known))
    images = DATASET_IMAGES.get(data.dataset)
    if images is None:
        return
    held_out, train = data.validation_images, data.train_images
    if held_out >= images:
        rule = f"data.validation_images: must be fewer than the {images:,} training images, but got {held_out:,}"
        raise StudyFileError(rule, hint=f"{Data().validation_images:,} are usual.")
    if train is not None and train + held_out > images:
        rule = (
            f"data.train_images: {train:,} and {held_out:,} validation images are more than the {images:,} training images of the data set"
        )
        raise StudyFileError(rule, hint=f"Leave it out, or write at most {images - held_out:,}.")


def _check_search(contents: Contents, space: Space) -> None:
    kind, balance = contents.sampler.kind, contents.budget.balance
    if kind in ("gp", "qmc") and space.conditional:
        names = ", ".join(parameter.name for parameter in space.conditional[:3])
        hint = 'Use kind = "tpe", or make every parameter unconditional.'
        raise StudyFileError(f"sampler.kind: {kind} would draw conditional parameters ({names}) at random", hint=hint)
    if balance is not None and len(space.names_of("model")) < 2:
        raise StudyFileError("budget.balance: the space has one model only", hint="Remove `balance`.")


def _sources(contents: Contents) -> tuple[str, ...]:
    sources = contents.warm_start.sources if contents.warm_start is not None else []
    for name in sources:
        try:
            check_study_name(name)
        except StudyFileError as error:
            rule = error.message.removeprefix("name: ")
            raise StudyFileError(f"warm_start.from: {rule}", hint="It holds names of studies in the same storage.") from error
        if name == contents.name:
            hint = "It holds names of other studies in the same storage."
            raise StudyFileError(f"warm_start.from: {show(name)} is this study itself", hint=hint)
    return tuple(dict.fromkeys(sources))


def _baseline(space: Space, given: Mapping[str, Any], number: int) -> Mapping[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for key, value in given.items():
        for name, item in ({f"{key}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {key: value}).items():
            if not isinstance(item, bool | int | float | str):
                raise StudyFileError(f"baseline {number}: {name} must be one value, but got {show(item)}")
            flat[name] = item
    try:
        values = space.complete(flat)
        space.config(values, seed=0)
    except UsageError as error:
        raise StudyFileError(f"baseline {number}: {error.message}", hint=error.hint) from error
    return values


def _suggest_file(path: Path) -> str:
    """Return a hint with a study file in the same folder that has a similar name."""
    try:
        files = sorted(file.name for file in path.parent.glob("*.toml") if file.name != "pyproject.toml")[:20]
    except (OSError, ValueError):
        return ""
    return did_you_mean(path.name, files) if files else "`hpsearch init` writes one."
