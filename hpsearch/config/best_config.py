"""A best config: one training run that stands alone, as a TOML or JSON file with nothing left open.

It needs no study and no database; who reads it back gets the identical config.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from hpsearch.config.components import BUILT_IN, SELECTORS, TRAINER_OPTIONS, Component, ComponentFile
from hpsearch.config.registration import current_catalog, find_component_file, load_component_file
from hpsearch.config.sections import LARGEST_SEED, Data
from hpsearch.config.train_config import TrainConfig, resolve
from hpsearch.errors import ComponentError, ConfigError, did_you_mean
from hpsearch.formatting import show, show_path

FORMAT = 1
"""Of the file; a reader of another one refuses it."""
SECTIONS = ("format", *SELECTORS, "trainer", "data", "provenance", "component_files")
HEADER = "# One training run with nothing left open. `hpsearch train FILE` trains it; `--final` reads the test split.\n"


@dataclass(frozen=True, kw_only=True)
class BestConfig:
    """A training run and where it comes from.

    Attributes:
        config: the run, resolved; its seed is that of the trial.
        data: which images, and how many are set aside for validation.
        split_seed: of the train/validation split.
        provenance: study, trial, fingerprint, validation score, versions; for a person to read.
        data_files: the users' files that the data set comes from.
        changed_files: names of component files that were read although they are not what the config was made with.
    """

    config: TrainConfig
    data: Data
    split_seed: int
    provenance: Mapping[str, Any]
    data_files: tuple[ComponentFile, ...] = ()
    changed_files: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[ComponentFile, ...]:
        """All users' files that it takes to train it."""
        return tuple({file.sha256: file for file in (*self.config.component_files, *self.data_files)}.values())

    def to_dict(self) -> dict[str, Any]:
        """The file as nested plain values."""
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
        """The file as TOML."""
        return HEADER + tomli_w.dumps(self.to_dict())

    def to_json(self) -> str:
        """The file as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def read_best_config(path: Path, *, trust: bool = False) -> BestConfig:
    """Read a best config, TOML or JSON by the name's ending.

    Args:
        trust: take a component file also where it is not what the config was made with, and say so in its provenance.

    Raises:
        ConfigError: it cannot be read, or something in it is missing, unknown or not allowed.
        ComponentError: a component file is missing, or is not the one that the config was made with.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read the best config {show_path(path)}: {reason}", hint="`hpsearch export STUDY -o FILE` writes one."
        ) from error
    try:
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path.name}: is not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error
    try:
        return _understand(table, path, trust=trust)
    except (ConfigError, ComponentError) as error:
        raise type(error)(f"{path.name}: {error.message}", hint=error.hint) from error


def _understand(table: Any, path: Path, *, trust: bool) -> BestConfig:
    if not isinstance(table, dict) or isinstance(table.get("format"), bool) or table.get("format") != FORMAT:
        raise ConfigError(
            f"format must be {FORMAT}, as `hpsearch export` writes it", hint="Is it a study file? `hpsearch run` searches one."
        )
    unknown = [key for key in table if key not in SECTIONS]
    if unknown:
        raise ConfigError(f"unknown key {show(unknown[0])}", hint=did_you_mean(unknown[0], SECTIONS))
    sections = {key: _section(table, key) for key in (*SELECTORS, "trainer", "data", "provenance")}
    catalog = BUILT_IN
    changed: list[str] = []
    loaded: list[Component] = []
    for entry in _component_entries(table):
        recorded = Path(entry["path"])
        # The file beside the config comes first, so that both can be handed on together.
        file = find_component_file(
            (path.parent / recorded.name, recorded), entry["sha256"], owner="the config", beside=path.name, trust=trust
        )
        components = load_component_file(file.path)
        catalog = catalog.extended(components)
        loaded += components
        changed += [] if file.sha256 == entry["sha256"] else [recorded.name]
    settings: dict[Any, Any] = {}
    for kind in SELECTORS:
        if "name" not in sections[kind]:
            raise ConfigError(f"{kind}.name is missing")
        settings["trainer", kind] = sections[kind].pop("name")
        settings.update({(kind, name): value for name, value in sections[kind].items()})
    seed = sections["trainer"].pop("seed", None)
    split_seed = sections["data"].pop("split_seed", None)
    for key, value in (("trainer.seed", seed), ("data.split_seed", split_seed)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_SEED:
            raise ConfigError(f"{key} must be a whole number from 0 to {LARGEST_SEED}, but got {show(value)}")
    settings.update({("trainer", name): value for name, value in sections["trainer"].items()})
    try:
        data = Data.model_validate(sections["data"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"data.{'.'.join(map(str, first['loc']))}: {first['msg']}, but got {show(first['input'])}") from error
    if data.dataset not in (known := (*catalog.names("dataset"), *current_catalog().names("dataset"))):
        raise ConfigError(f"data.dataset: unknown data set {show(data.dataset)}", hint=did_you_mean(data.dataset, known))
    assert isinstance(seed, int)
    assert isinstance(split_seed, int)
    config = resolve(settings, catalog=catalog, seed=seed)
    of_data = [each.file for each in loaded if each.file is not None and (each.kind, each.name) == ("dataset", data.dataset)]
    return BestConfig(
        config=config,
        data=data,
        split_seed=split_seed,
        # What was changed once stays on record, in every file that is written from this one.
        provenance={**sections["provenance"], **({"changed_component_files": changed} if changed else {})},
        data_files=tuple(of_data),
        changed_files=tuple(changed),
    )


def _component_entries(table: Mapping[str, Any]) -> list[Mapping[str, str]]:
    entries = table.get("component_files", [])
    if not isinstance(entries, list):
        raise ConfigError("component_files must be a list of tables", hint="Begin each with [[component_files]].")
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("path", "sha256")):
            raise ConfigError(f"component_files must be tables with `path` and `sha256`, but got {show(entry)}")
    return list(entries)


def _section(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = table.get(key)
    if not isinstance(section, dict):
        raise ConfigError(f"[{key}] is missing")
    return dict(section)


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null."""
    return {key: _without_none(value) if isinstance(value, Mapping) else value for key, value in table.items() if value is not None}
