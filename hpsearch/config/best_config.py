"""Reads and writes best configs. A best config is a TOML or JSON file of one training run, without a study or a database."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ConfigDict, Field, ValidationError

from hpsearch.config.components import BUILT_IN, SELECTORS, TRAINER_OPTIONS, ComponentFile
from hpsearch.config.registration import current_catalog, find_component_file, load_component_file, places_of
from hpsearch.config.sections import Data, Section, Seed, explain
from hpsearch.config.study_file import DEEP_KEY, LARGEST_FILE
from hpsearch.config.train_config import TrainConfig, resolve
from hpsearch.errors import ComponentError, ConfigError, did_you_mean
from hpsearch.formatting import show, show_path

FORMAT = 1
"""Version of the file format. A file with another version is not read."""
DEEPEST = 10
"""Most tables and lists inside one another. A config has three; thousands would exceed Python's stack."""
HEADER = "# One training run with a value for every option. `hpsearch train FILE` trains it; `--final` reads the test split.\n"


class _Open(Section):
    """A table that may have any other key. `resolve` checks later that these keys are names of options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class _Chosen(_Open):
    name: str


class _Trainer(_Open):
    seed: Seed


class _Data(Data):
    split_seed: Seed


class _Provenance(_Open):
    """The keys that hpsearch reads. `_without_none` wrote no key whose value is None, and JSON may have null."""

    study: str | None = None
    trial: int | None = None
    val_accuracy: float | None = None
    finalists: dict[str, Any] | None = None
    versions: dict[str, str] | None = None
    changed_component_files: list[str] | None = None


class _File(Section):
    path: str
    sha256: str


class _Contents(Section):
    """The content of a best config file."""

    format: int
    model: _Chosen
    optimizer: _Chosen
    schedule: _Chosen
    trainer: _Trainer
    data: _Data
    provenance: _Provenance
    component_files: list[_File] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BestConfig:
    """The config of a training run, and the study and trial that it comes from.

    Attributes:
        config: the config of the run, with the seed of the trial.
        data: the data set and the size of the validation split.
        split_seed: the seed of the train/validation split.
        provenance: study, trial, fingerprint, validation score and versions, for a person to read.
        data_files: component files that define the data set.
        changed_files: names of component files whose content has changed since the config was made.
    """

    config: TrainConfig
    data: Data
    split_seed: int
    provenance: Mapping[str, Any]
    data_files: tuple[ComponentFile, ...] = ()
    changed_files: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[ComponentFile, ...]:
        """All component files that the training needs."""
        return tuple({file.sha256: file for file in (*self.config.component_files, *self.data_files)}.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file.

        Returns:
            Nested dicts of plain values.
        """
        plain = self.config.to_dict()
        return {
            "format": FORMAT,
            **{kind: plain[kind] for kind in SELECTORS},
            "trainer": {**{option.name: plain[option.name] for option in TRAINER_OPTIONS}, "seed": plain["seed"]},
            "data": {**self.data.model_dump(exclude_none=True), "split_seed": self.split_seed},
            "provenance": _without_none(self.provenance),
            **({"component_files": [{"path": str(file.path), "sha256": file.sha256} for file in self.files]} if self.files else {}),
        }

    def to_toml(self) -> str:
        """Return the content of the file as TOML.

        Returns:
            The text.
        """
        return HEADER + tomli_w.dumps(self.to_dict())

    def to_json(self) -> str:
        """Return the content of the file as JSON.

        Returns:
            The text.
        """
        return json.dumps(self.to_dict(), indent=2) + "\n"


def read_best_config(path: Path, *, trust: bool = False) -> BestConfig:
    """Read a best config.

    Args:
        path: a TOML file, or a JSON file if it ends in `.json`.
        trust: whether to run component files that this user has not run before, and to accept component files whose content has
            changed. The names of changed files are then added to `provenance`.

    Returns:
        The config.

    Raises:
        ConfigError: the file cannot be read, or something in it is missing, unknown or not allowed.
        ComponentError: a component file is missing, its content has changed, or this user has not run it before.
    """
    table = read_table(path)
    try:
        return _understand(table, path, trust=trust)
    except (ConfigError, ComponentError) as error:
        raise type(error)(f"{path.name}: {error.message}", hint=error.hint) from error


def read_table(path: Path) -> Any:
    """Read a TOML or JSON file whose content may be anything.

    Args:
        path: the file. It is JSON if it ends in `.json`.

    Returns:
        The content, at most `DEEPEST` levels deep.

    Raises:
        ConfigError: the file cannot be read, is too large or too deep, or is not valid.
    """
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ConfigError(f"{path.name}: more than {LARGEST_FILE:,} bytes are too many for a best config", hint="Is it the right file?")
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read the best config {show_path(path)}: {reason}", hint="`hpsearch export STUDY -o FILE` writes one."
        ) from error
    try:
        if kind == "TOML" and (deep := DEEP_KEY.search(text)):
            raise ValueError(f"tables do not nest as deep as {show(deep[0])}")
        table = json.loads(text) if kind == "JSON" else tomllib.loads(text)
        _require_plain(table, DEEPEST)
    except RecursionError as error:
        raise ConfigError(f"{path.name}: is not valid {kind}: it nests too deep") from error
    except ValueError as error:
        raise ConfigError(f"{path.name}: is not valid {kind}: {error}") from error
    return table


def _require_plain(value: Any, depth: int) -> None:
    """Raise a ValueError if a value nests too deep, or if its texts cannot be written as UTF-8."""
    if isinstance(value, str):
        value.encode()  # JSON can hold half of a character; the error is a ValueError
    elif isinstance(value, dict | list):
        if not depth:
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _require_plain(item, depth - 1)


def _understand(table: Any, path: Path, *, trust: bool) -> BestConfig:
    if not isinstance(table, dict) or isinstance(table.get("format"), bool) or table.get("format") != FORMAT:
        raise ConfigError(f"format must be {FORMAT}, as `hpsearch export` writes it", hint="A study file is searched by `hpsearch run`.")
    try:
        contents = _Contents.model_validate(table)
    except ValidationError as error:
        message, hint = explain(error, _Contents)
        raise ConfigError(message, hint=hint) from error
    catalog = BUILT_IN
    changed: list[str] = []
    data_files: list[ComponentFile] = []
    for entry in contents.component_files:
        recorded = Path(entry.path)
        file = find_component_file(
            places_of(recorded, path.parent), entry.sha256, owner="the config", beside=path.name, trust=trust, may_change=True
        )
        components = load_component_file(file.path)
        catalog = catalog.extended(components)
        if any((each.kind, each.name) == ("dataset", contents.data.dataset) for each in components):
            data_files.append(file)
        if file.sha256 != entry.sha256:
            changed.append(recorded.name)
    # The data set may also come from a component file that was loaded earlier in this process.
    known = (*catalog.names("dataset"), *current_catalog().names("dataset"))
    if contents.data.dataset not in known:
        raise ConfigError(f"data.dataset: unknown data set {show(contents.data.dataset)}", hint=did_you_mean(contents.data.dataset, known))
    settings: dict[Any, Any] = {("trainer", name): value for name, value in (contents.trainer.model_extra or {}).items()}
    for kind in SELECTORS:
        chosen: _Chosen = getattr(contents, kind)
        settings["trainer", kind] = chosen.name
        settings.update({(kind, name): value for name, value in (chosen.model_extra or {}).items()})
    return BestConfig(
        config=resolve(settings, catalog=catalog, seed=contents.trainer.seed),
        data=Data(**contents.data.model_dump(exclude={"split_seed"})),
        split_seed=contents.data.split_seed,
        # The names of changed files also appear in every best config that is written from this one.
        provenance={**table["provenance"], **({"changed_component_files": changed} if changed else {})},
        data_files=tuple(data_files),
        changed_files=tuple(changed),
    )


def _without_none(value: Any) -> Any:
    """Remove the entries that are None, because TOML has no null."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value if item is not None] if isinstance(value, list) else value
