"""The search space: parameters, their conditions, sampling, defaults and fingerprint.

A condition of a parameter requires some values of other parameters, which are called its parents.
A point has a value for every parameter that exists with these values. `hpsearch.config.space_parser`
reads the space from the table `[space]` of a study file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from hpsearch.config.components import DEFAULT_COMPONENTS, SELECTORS, TRAINER, Catalog, Option, Owner, Scalar, is_finite, same
from hpsearch.config.distributions import Choices, Distribution, Fixed, FloatRange, IntRange, Searched
from hpsearch.config.train_config import TrainConfig, resolve
from hpsearch.errors import ConfigError, did_you_mean
from hpsearch.formatting import show, str_of

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

EPOCHS: tuple[Owner, str] = ("trainer", "epochs")
"""Owner and option of the parameter that sets the length of a training."""
MOST_COMBINATIONS = 10_000
"""Number of combinations of values that are looked at, to find the possible values of an option. A study file may have any number."""
PRECISION: tuple[Owner, str] = ("trainer", "precision")
"""Owner and option of the parameter that sets the number format of a training."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of the space.

    Attributes:
        name: name of the parameter in the study file and in Optuna, such as `sgd.lr`.
        owner: `trainer`, or the kind of component that has the option.
        option: name of the option that the parameter sets, such as `lr`.
        when: for each parent, the values with which this parameter exists. All parents must have such a value.
    """

    name: str
    owner: Owner
    option: str
    distribution: Distribution
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    def exists(self, values: Mapping[str, Scalar]) -> bool:
        """Return whether the conditions hold.

        Args:
            values: the values so far, by parameter name.

        Returns:
            True if they hold.
        """
        return all(parent in values and any(same(values[parent], value) for value in allowed) for parent, allowed in self.when.items())

    @property
    def condition(self) -> str:
        """The conditions in words, such as `optimizer is adam or adamw`."""
        return " and ".join(f"{parent} is {' or '.join(map(str_of, allowed))}" for parent, allowed in self.when.items())


@dataclass(frozen=True, kw_only=True)
class Space:
    """The parameters of a space. Each parameter comes after its parents.

    Attributes:
        auto_precision: the number format that the precision `auto` means, by model. It means `float32` for other models.
    """

    parameters: tuple[Parameter, ...]
    catalog: Catalog = field(repr=False, compare=False)
    auto_precision: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    @property
    def searched(self) -> tuple[Parameter, ...]:
        """The parameters that are not fixed."""
        return tuple(parameter for parameter in self.parameters if not isinstance(parameter.distribution, Fixed))

    @property
    def conditional(self) -> tuple[Parameter, ...]:
        """The searched parameters that do not exist in every trial."""
        always: set[str] = set()
        for parameter in self.parameters:
            if all(
                parent in always and set(self[parent].distribution.listed) <= set(allowed) for parent, allowed in parameter.when.items()
            ):
                always.add(parameter.name)
        return tuple(parameter for parameter in self.searched if parameter.name not in always)

    @property
    def max_epochs(self) -> int:
        """The number of epochs of the longest training."""
        return max(int(value) for model in self.names_of("model") for value in self.possible_values(EPOCHS, model))

    def epochs(self, params: Mapping[str, Scalar]) -> int:
        """Return the number of epochs of a trial.

        Args:
            params: the values of the searched parameters of the trial. Others are ignored.

        Returns:
            The number. If a value is missing without which it cannot be told, it is the number of the longest training.
        """
        setters = [parameter for parameter in self.parameters if (parameter.owner, parameter.option) == EPOCHS]
        if found := [int(params[parameter.name]) for parameter in setters if parameter.name in params]:
            return found[0]
        if any(parameter.when or isinstance(parameter.distribution, Searched) for parameter in setters):
            try:
                values = self.draw(lambda name, _: params[name])
            except KeyError:
                return self.max_epochs
            setters = [parameter for parameter in setters if parameter.name in values]
        return int(setters[0].distribution.listed[0] if setters else self.config({}, seed=0).epochs)

    def possible_values(self, option: tuple[Owner, str], model: str) -> tuple[Scalar, ...]:
        """Return the values that an option of the trainer can have in trials of a model.

        Args:
            option: the owner `trainer`, and the name of the option.
            model: name of the model.

        Returns:
            The choices, or the ends of a range, of all parameters that set the option; the option's default if it can be without one.
        """
        setters = [each for each in self.parameters if (each.owner, each.option) == option]
        default = TRAINER.option(option[1])
        assert default is not None, "only the trainer's own options are asked for"
        found: dict[Scalar, None] = {}
        for values in itertools.islice(self._parents_of(setters, {"model": model}), MOST_COMBINATIONS):
            existing = [setter for setter in setters if setter.exists(values)]
            found.update(dict.fromkeys(existing[0].distribution.extremes if existing else (default.default,)))
        return tuple(found)

    def _parents_of(self, parameters: Sequence[Parameter], given: Mapping[str, Scalar]) -> Iterator[Mapping[str, Scalar]]:
        """Generate all combinations of the values of the parameters on which other parameters depend."""
        names = {parent for parameter in parameters for parent in parameter.when}
        while more := {parent for name in names for parent in self[name].when} - names:
            names |= more
        parents = [parameter for parameter in self.parameters if parameter.name in names]

        def combine(index: int, values: Mapping[str, Scalar]) -> Iterator[Mapping[str, Scalar]]:
            if index == len(parents):
                yield values
            elif parents[index].name in values or not parents[index].exists(values):
                yield from combine(index + 1, values)
            else:
                for value in parents[index].distribution.listed:
                    yield from combine(index + 1, {**values, parents[index].name: value})

        return combine(0, given)

    def count_points(self, most: int) -> float:
        """Count the different points of the space.

        Args:
            most: where to stop counting.

        Returns:
            The number of points; if there are more than `most`, any larger number.
        """
        parents = {parent for parameter in self.parameters for parent in parameter.when}

        def count(index: int, values: Mapping[str, Scalar]) -> float:
            if index == len(self.parameters):
                return 1
            parameter = self.parameters[index]
            if not parameter.exists(values):
                return count(index + 1, values)
            if parameter.name not in parents:
                return parameter.distribution.size * count(index + 1, values)
            total = 0.0
            for value in parameter.distribution.listed:  # a range is never a parent
                total += count(index + 1, {**values, parameter.name: value})
                if total > most:
                    break
            return total

        return count(0, {})

    def __getitem__(self, name: str) -> Parameter:
        return {parameter.name: parameter for parameter in self.parameters}[name]

    def names_of(self, selector: str) -> tuple[str, ...]:
        """Return the components that a selector can choose.

        Args:
            selector: `model`, `optimizer` or `schedule`.

        Returns:
            Names of components.
        """
        distribution = self[selector].distribution
        return tuple(map(str, distribution.values)) if isinstance(distribution, Choices) else (str(distribution),)

    def sample(self, trial: BaseTrial) -> dict[str, Scalar]:
        """Return a value for every parameter that exists. An Optuna trial suggests the values.

        Args:
            trial: a running trial, or an Optuna `FixedTrial`.

        Returns:
            Parameter names to values, including fixed parameters.
        """
        return self.draw(lambda name, distribution: _suggest(trial, name, distribution))

    def draw(self, value_of: Callable[[str, Searched], Scalar]) -> dict[str, Scalar]:
        """Return a value for every parameter that exists. Parents get their values first.

        Args:
            value_of: returns a value for the name and the distribution of a parameter. It is not called for fixed parameters.

        Returns:
            Parameter names to values, including fixed parameters.
        """
        values: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if parameter.exists(values):
                distribution = parameter.distribution
                values[parameter.name] = (
                    value_of(parameter.name, distribution) if isinstance(distribution, Searched) else distribution.listed[0]
                )
        return values

    def config(self, values: Mapping[str, Scalar], *, seed: int) -> TrainConfig:
        """Return the config of a training run at a point.

        Args:
            values: a value for every parameter that exists.
            seed: the seed of the run.

        Returns:
            The config.
        """
        settings = {(self[name].owner, self[name].option): value for name, value in values.items()}
        return resolve(settings, catalog=self.catalog, seed=seed, auto_precision=self.auto_precision)

    def complete(self, given: Mapping[str, Scalar], *, start: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Return a complete point. A missing value is taken from `start`. If `start` lacks it too, it is the default.

        Args:
            given: values by parameter name (`sgd.lr`) or option name (`lr`).
            start: values by parameter name. Parameters that do not exist at this point are ignored.

        Returns:
            A value for every parameter that exists.

        Raises:
            ConfigError: a key is unknown or ambiguous, its parameter does not exist at this point, or a value is not possible.
        """
        values: dict[str, Scalar] = {}
        used: dict[str, str] = {}
        for parameter in self.parameters:
            if not parameter.exists(values):
                continue
            key = next((key for key in (parameter.name, parameter.option) if key in given), None)
            if key is not None and used.setdefault(key, parameter.name) != parameter.name:
                raise ConfigError(f"'{key}' could be {used[key]} or {parameter.name}", hint="Write the whole name.")
            value = given[key] if key is not None else (start or {}).get(parameter.name)
            values[parameter.name] = self._value(parameter, value, values)
        for key in given:
            if key not in used:
                self._explain_unused(key, used)
        return values

    def _value(self, parameter: Parameter, given: Scalar | None, values: Mapping[str, Scalar]) -> Scalar:
        value, source = given, ""
        if value is None:
            value, source = self.default(parameter, values), "'s default"
        if isinstance(parameter.distribution, FloatRange) and isinstance(value, int) and not isinstance(value, bool) and is_finite(value):
            value = float(value)
        if value not in parameter.distribution:
            raise ConfigError(
                f"{parameter.name}{source} must lie in its range ({parameter.distribution}), but is {show(value)}",
                hint=f"Give {parameter.name} a value in its range." if source else "",
            )
        return value

    def default(self, parameter: Parameter, values: Mapping[str, Scalar]) -> Scalar:
        """Return the default of a parameter: its fixed value, or the default of its option.

        Args:
            parameter: the parameter.
            values: values of the parents, including the name of the component that has the option.

        Returns:
            The default.
        """
        if isinstance(parameter.distribution, Fixed):
            return parameter.distribution.value
        if parameter.name in SELECTORS:
            return DEFAULT_COMPONENTS[parameter.name]
        if (parameter.owner, parameter.option) == PRECISION and "auto" not in parameter.distribution:
            return self.auto_precision.get(str(values.get("model")), "float32")
        return self.option(parameter, values).default

    def option(self, parameter: Parameter, values: Mapping[str, Scalar]) -> Option:
        """Return the option that a parameter sets.

        Args:
            parameter: the parameter.
            values: values of the parents, including the name of the component that has the option.

        Returns:
            The option.
        """
        owner = TRAINER if parameter.owner == "trainer" else self.catalog.get(parameter.owner, str(values[parameter.owner]))
        option = owner.option(parameter.option)
        assert option is not None, "`read_space` refuses a parameter that its owner does not take"
        return option

    def _explain_unused(self, key: str, used: Mapping[str, str]) -> None:
        known = [parameter for parameter in self.parameters if key in (parameter.name, parameter.option)]
        if twice := [parameter.name for parameter in known if parameter.name in used.values()]:
            raise ConfigError(f"'{key}' and '{twice[0]}' are the same parameter", hint="Give one of the two.")
        if known:
            raise ConfigError(f"{key} exists only when {' or when '.join(parameter.condition for parameter in known)}")
        names = [parameter.name for parameter in self.parameters]
        raise ConfigError(f"{show(key)} is no parameter of the space", hint=did_you_mean(key, names))

    def to_plain(self) -> dict[str, Any]:
        """Return the parameters with their distributions and conditions as JSON values.

        Returns:
            Parameter names to JSON values. Equal spaces have equal JSON values.
        """
        plain: dict[str, Any] = {}
        for parameter in sorted(self.parameters, key=lambda parameter: parameter.name):
            plain[parameter.name] = parameter.distribution.plain
            if parameter.when:
                plain[parameter.name]["when"] = {
                    parent: list(Choices(values=allowed).listed) for parent, allowed in sorted(parameter.when.items())
                }
        return plain

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the space, hexadecimal. It does not depend on the order of keys and choices."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()


def _suggest(trial: BaseTrial, name: str, distribution: Searched) -> Scalar:
    if isinstance(distribution, FloatRange):
        return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, IntRange):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    return cast("Scalar", trial.suggest_categorical(name, list(distribution.listed)))
