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

from hpsearch.components import BUILT_IN, SELECTORS, TRAINER_OPTIONS, ComponentFile, show, show_path
from hpsearch.config import TrainConfig, resolve
from hpsearch.errors import ComponentError, ConfigError, did_you_mean
from hpsearch.extensions import load_component_file
from hpsearch.sections import Data

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
    """

    config: TrainConfig
    data: Data
    split_seed: int
    provenance: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The file as nested plain values."""
        plain = self.config.to_dict()
        return {
            "format": FORMAT,
            **{kind: plain[kind] for kind in SELECTORS},
            "trainer": {**{option.name: plain[option.name] for option in TRAINER_OPTIONS}, "seed": plain["seed"]},
            "data": {**self.data.model_dump(exclude_none=True), "split_seed": self.split_seed},
            "provenance": _without_none(self.provenance),
            **({"component_files": plain["component_files"]} if plain["component_files"] else {}),
        }

    def to_toml(self) -> str:
        """The file as TOML."""
        return HEADER + tomli_w.dumps(self.to_dict())

    def to_json(self) -> str:
        """The file as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def read_best_config(path: Path) -> BestConfig:
    """Read a best config, TOML or JSON by the name's ending.

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
        return _understand(table, path)
    except (ConfigError, ComponentError) as error:
        raise type(error)(f"{path.name}: {error.message}", hint=error.hint) from error


def _understand(table: Any, path: Path) -> BestConfig:
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise ConfigError(
            f"format must be {FORMAT}, as `hpsearch export` writes it", hint="Is it a study file? `hpsearch run` searches one."
        )
    unknown = [key for key in table if key not in SECTIONS]
    if unknown:
        raise ConfigError(f"unknown key {show(unknown[0])}", hint=did_you_mean(unknown[0], SECTIONS))
    sections = {key: _section(table, key) for key in (*SELECTORS, "trainer", "data", "provenance")}
    catalog = BUILT_IN
    for entry in _component_entries(table):
        catalog = catalog.extended(_load_same(entry, path))
    settings: dict[Any, Any] = {}
    for kind in SELECTORS:
        if "name" not in sections[kind]:
            raise ConfigError(f"{kind}.name is missing")
        settings["trainer", kind] = sections[kind].pop("name")
        settings.update({(kind, name): value for name, value in sections[kind].items()})
    seed = sections["trainer"].pop("seed", None)
    split_seed = sections["data"].pop("split_seed", None)
    for key, value in (("trainer.seed", seed), ("data.split_seed", split_seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{key} must be a whole number, but got {show(value)}")
    settings.update({("trainer", name): value for name, value in sections["trainer"].items()})
    try:
        data = Data.model_validate(sections["data"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"data.{'.'.join(map(str, first['loc']))}: {first['msg']}, but got {show(first['input'])}") from error
    assert isinstance(seed, int)
    assert isinstance(split_seed, int)
    config = resolve(settings, catalog=catalog, seed=seed)
    return BestConfig(config=config, data=data, split_seed=split_seed, provenance=sections["provenance"])


def _component_entries(table: Mapping[str, Any]) -> list[Mapping[str, str]]:
    entries = table.get("component_files", [])
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("path", "sha256")):
            raise ConfigError(f"component_files must be tables with `path` and `sha256`, but got {show(entry)}")
    return list(entries)


def _section(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = table.get(key)
    if not isinstance(section, dict):
        raise ConfigError(f"[{key}] is missing")
    return dict(section)


def _load_same(entry: Mapping[str, Any], path: Path) -> tuple[Any, ...]:
    """The components of a file, which must say what it said when the config was made."""
    file = Path(entry["path"])
    # Beside the config first: so both can be handed on together.
    beside = path.parent / file.name
    found = load_component_file((beside if beside.is_file() else file).resolve())
    made: ComponentFile | None = found[0].file
    if made is None or made.sha256 != entry["sha256"]:
        raise ComponentError(
            f"the component file {show_path(file)} is not the one that the config was made with",
            hint=f"It must have the SHA-256 {entry['sha256'][:16]}…; put the right one beside {path.name}.",
        )
    return found


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null."""
    return {key: _without_none(value) if isinstance(value, Mapping) else value for key, value in table.items() if value is not None}
