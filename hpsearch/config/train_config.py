"""The config of one training run. Each option has the given value or its default."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpsearch.config.components import (
    DEFAULT_COMPONENTS,
    EARLIER_TRAINING,
    PRECISIONS,
    SELECTORS,
    TRAINER,
    Catalog,
    Component,
    ComponentFile,
    Owner,
    Scalar,
)
from hpsearch.errors import ConfigError, did_you_mean
from hpsearch.formatting import one_line, show


@dataclass(frozen=True, kw_only=True)
class ComponentConfig:
    """A component's name, and a value for each of its options."""

    name: str
    options: Mapping[str, Scalar]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled.
        return partial(ComponentConfig, name=self.name, options=dict(self.options)), ()


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: everything that decides its result except the images.

    Attributes:
        seed: the seed from which all random numbers of the run derive.
        precision: number format of the layers, `float32` or `bfloat16`. It is never `auto`, which depends on the machine.
        component_files: the component files that define the model, the optimizer and the schedule.

    Example:
        >>> import hpsearch
        >>> config = hpsearch.configure(model="lenet5", epochs=2)
        >>> isinstance(config, hpsearch.TrainConfig), config.model.name
        (True, 'lenet5')
    """

    model: ComponentConfig
    optimizer: ComponentConfig
    schedule: ComponentConfig
    epochs: int
    batch_size: int
    label_smoothing: float
    flip: bool
    shift: int
    precision: str
    seed: int
    component_files: tuple[ComponentFile, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the config for JSON or TOML.

        Returns:
            Nested dicts of plain values.
        """
        return {
            **{kind: {"name": getattr(self, kind).name, **getattr(self, kind).options} for kind in SELECTORS},
            **{option.name: getattr(self, option.name) for option in TRAINER.options},
            "seed": self.seed,
            "component_files": [{"path": str(file.path), "sha256": file.sha256} for file in self.component_files],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TrainConfig:
        """Return the config that `to_dict` wrote.

        Args:
            stored: nested dicts of plain values.

        Returns:
            The config.

        Raises:
            ConfigError: `stored` is not such a table.
        """
        try:
            return cls._from_dict(stored)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"the stored config is damaged ({type(error).__name__}: {one_line(str(error))})") from error

    @classmethod
    def _from_dict(cls, stored: Mapping[str, Any]) -> TrainConfig:
        files = tuple(ComponentFile(path=Path(file["path"]), sha256=str(file["sha256"])) for file in stored["component_files"])
        complete = {**EARLIER_TRAINING, **stored}
        fields: dict[str, Any] = {option.name: option.coerce(complete[option.name]) for option in TRAINER.options}
        if fields["precision"] not in PRECISIONS:
            raise ValueError(f"precision is {show(fields['precision'])}")
        for kind in SELECTORS:
            options = dict(stored[kind])
            fields[kind] = ComponentConfig(name=options.pop("name"), options=options)
            if not isinstance(fields[kind].name, str):
                raise TypeError("the name of a component is no text")
        return cls(**fields, seed=stored["seed"], component_files=files)

    @property
    def settings(self) -> dict[tuple[Owner, str], Scalar]:
        """The chosen components and all options. `resolve` makes an equal config from these settings."""
        return {
            **{("trainer", kind): getattr(self, kind).name for kind in SELECTORS},
            **{(kind, name): value for kind in SELECTORS for name, value in getattr(self, kind).options.items()},
            **{("trainer", option.name): getattr(self, option.name) for option in TRAINER.options},
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the config, hexadecimal. It depends on the content of component files, not on their paths.

        Checkpoints of version 0.1 have digests too. So an option that version 0.1 did not have is left out while it has the value with
        which version 0.1 trained.
        """
        plain = self.to_dict()
        for name, value in EARLIER_TRAINING.items():
            if plain[name] == value:
                del plain[name]
        plain["component_files"] = [file.sha256 for file in self.component_files]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def resolve(
    settings: Mapping[tuple[Owner, str], Scalar], *, catalog: Catalog, seed: int, auto_precision: Mapping[str, str] = MappingProxyType({})
) -> TrainConfig:
    """Return a config. An option that is not given has its default.

    Args:
        settings: values by `(owner, option)`. The owner is `trainer` or a kind of component. The name of
            the model has the key `("trainer", "model")`.
        catalog: the components that can be named.
        seed: the seed of the run.
        auto_precision: the number format that `auto` means, by model. It means `float32` for other models.

    Returns:
        The config.

    Raises:
        ComponentError: a component is unknown.
        ConfigError: the owner does not have an option, or a value is not allowed.
    """
    given: dict[str, dict[str, Scalar]] = {owner: {} for owner in ("trainer", *SELECTORS)}
    for (owner, name), value in settings.items():
        given[owner][name] = value
    components = {kind: catalog.get(kind, str(given["trainer"].pop(kind, DEFAULT_COMPONENTS[kind]))) for kind in SELECTORS}
    fields: dict[str, Any] = _complete(TRAINER, given["trainer"])
    for kind, component in components.items():
        fields[kind] = ComponentConfig(name=component.name, options=_complete(component, given[kind]))
    if fields["precision"] == "auto":
        fields["precision"] = auto_precision.get(components["model"].name, "float32")
    files = {component.file.path: component.file for component in components.values() if component.file is not None}
    return TrainConfig(**fields, seed=seed, component_files=tuple(files.values()))


def _complete(owner: Component, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return a value for each option of a component: the given value or the default."""
    known = [option.name for option in owner.options]
    for name in given:
        if name not in known:
            raise ConfigError(f"{owner.name} takes no '{name}'", hint=did_you_mean(name, known))
    for option in owner.options:
        if option.name in given and (rule := option.refuses(given[option.name])):
            raise ConfigError(f"{owner.name}: {option.name} {rule}")
    return {option.name: option.coerce(given.get(option.name, option.default)) for option in owner.options}
