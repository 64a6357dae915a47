"""Reads the `[space]` table of a study file, and explains the errors in the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from hpsearch.config.components import DEFAULT_COMPONENTS, SELECTORS, TRAINER, Catalog, Component, Kind, Option, Owner, Scalar, same
from hpsearch.config.distributions import (
    DISTRIBUTION_KEYS,
    MOST_CHOICES,
    UNQUOTE,
    Choices,
    Distribution,
    Fixed,
    IntRange,
    Range,
    key_error,
    read_distribution,
)
from hpsearch.config.registration import current_catalog
from hpsearch.config.space import Parameter, Space
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import StudyFileError, did_you_mean
from hpsearch.formatting import show

OTHER_NAMES = {
    "learningrate": "lr",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "bs": "batch_size",
    "opt": "optimizer",
    "scheduler": "schedule",
}
"""Names of options in other tools, without underscores, and the names of these options in hpsearch. Used for hints."""

Conditions = dict[str, tuple[Scalar, ...]]


def read_space(table: Mapping[str, Any], *, catalog: Catalog, where: str = "space") -> Space:
    """Return the space that a table describes.

    Args:
        table: the content of `[space]`.
        catalog: the components that the table can name.
        where: the key of the table. Error messages begin with this key.

    Returns:
        The space.

    Raises:
        StudyFileError: the table is not valid. The error names the key, the rule, the value and a likely fix.
    """
    return _Reader(catalog, where).read(table)


def configure(*, seed: int = 0, **values: Scalar) -> TrainConfig:
    """Return the config of one training run. An option that is not given has its default.

    Args:
        seed: the seed of the run.
        values: values by name. The names are those that the space of a study file can use.

    Returns:
        The config.

    Raises:
        StudyFileError: a name is unknown, or a value is not allowed.

    Example:
        >>> import hpsearch
        >>> config = hpsearch.configure(model="lenet5", optimizer="sgd", lr=0.05)
        >>> config.optimizer.options["lr"], config.epochs
        (0.05, 10)
    """
    space = read_space(values, catalog=current_catalog(), where="")
    return space.config(space.complete({}), seed=seed)


class _Reader:
    def __init__(self, catalog: Catalog, where: str) -> None:
        self.catalog = catalog
        self.prefix = f"{where}." if where else ""
        self.distributions: dict[str, Distribution] = {}
        self.conditions: dict[str, Conditions] = {}
        self.options: dict[str, str] = {}
        self.effective: dict[str, Conditions] = {}

    def read(self, table: Mapping[str, Any]) -> Space:
        for key, entry in table.items():
            if isinstance(entry, dict) and not self._is_parameter(key, entry):
                self._read_group(key, entry)
            else:
                self._add(key, key, entry, {})
        for selector in SELECTORS:
            self._complete_selector(selector)
        order = self._parents_first()
        for name in order:
            self._check_condition(name)
        owners = {name: self._owner(name) for name in order}
        self._refuse_two_values_for_one(owners)
        parameters = []
        for name in order:
            option, distribution, when = self.options[name], self.distributions[name], self._condition(name)
            parameters.append(Parameter(name=name, owner=owners[name], option=option, distribution=distribution, when=when))
        return Space(parameters=tuple(parameters), catalog=self.catalog)

    def _error(self, key: str, rule: str, hint: str = "") -> StudyFileError:
        return key_error(self.prefix + key, rule, hint)

    def _is_parameter(self, key: str, entry: Mapping[str, Any]) -> bool:
        component = self.catalog.find(key)
        is_group = "when" in entry or (component is not None and component.kind != "dataset")
        if _is_distribution(entry):
            # A parameter in a group may be named `float`, `int` or `choices`, but only if it is written as a table.
            return not (is_group and any(isinstance(entry.get(word), dict) for word in DISTRIBUTION_KEYS))
        if is_group:
            return False
        if component is not None:
            raise self._error(key, f"'{key}' is a data set, which has no parameters", f'Write dataset = "{key}" under [data].')
        names = [component.name for component in self.catalog if component.kind != "dataset"]
        raise self._error(
            key,
            f"must be a value, a parameter (a table with float, int or choices), the table of a component, or a table with `when`; "
            f"found {_keys(entry)}",
            _distribution_hint(entry) or did_you_mean(key, names),
        )

    def _read_group(self, label: str, table: Mapping[str, Any]) -> None:
        component = self.catalog.find(label)
        if component is not None and "when" in table:
            rule = f"is the table of the {component.kind} '{label}', which is its condition: it takes no `when`"
            raise self._error(label, rule, "Use a label of your own for another condition.")
        conditions: Conditions = {component.kind: (label,)} if component is not None else self._read_when(label, table["when"])
        if component is None and len(table) == 1:
            raise self._error(label, "has a condition, but no parameter", "Add the parameters that it applies to, or remove the table.")
        for key, entry in table.items():
            name = f"{label}.{key}"
            if key == "when":
                continue
            if key in SELECTORS:
                home = self.prefix.rstrip(".")
                raise self._error(name, f"the choice of a {key} cannot depend on another", f"Write `{key}` directly under [{home}].")
            if isinstance(entry, dict) and not _is_distribution(entry):
                rule = f"must be a value or a parameter (a table with float, int or choices); found {_keys(entry)}"
                raise self._error(name, rule, _distribution_hint(entry) or "Tables do not nest deeper.")
            self._add(name, key, entry, conditions)

    def _read_when(self, label: str, when: Any) -> Conditions:
        key = f"{label}.when"
        if not isinstance(when, dict) or not when:
            hint = 'For example: when = { optimizer = ["adam", "adamw"] }'
            raise self._error(key, f"must name parameters and their values, but got {show(when)}", hint)
        conditions: Conditions = {}
        for parent, value in _flat(when):
            if parent in conditions:
                raise self._error(key, f"names {parent} twice", "Write all its values in one list.")
            values = value if isinstance(value, list) else [value]
            if not 0 < len(values) <= MOST_CHOICES or not all(isinstance(item, bool | int | float | str) for item in values):
                raise self._error(key, f"{parent} must be a value or a list of values, but got {show(value)}")
            conditions[parent] = tuple(values)
        return conditions

    def _add(self, name: str, option: str, entry: Any, conditions: Conditions) -> None:
        self.distributions[name] = read_distribution(self.prefix + name, entry)
        self.conditions[name] = conditions
        self.options[name] = option

    def _complete_selector(self, selector: Kind) -> None:
        known = self.catalog.names(selector)
        if selector not in self.distributions:
            self._add(selector, selector, DEFAULT_COMPONENTS[selector], {})
        distribution = self.distributions[selector]
        if isinstance(distribution, Range):
            raise self._error(selector, f"a {selector} is chosen by name, not from a range", f"Known: {', '.join(known)}.")
        for value in distribution.listed:
            if value not in known:
                raise self._error(selector, f"unknown {selector} {show(value)}", did_you_mean(str(value)[:200], known))

    def _parents_first(self) -> list[str]:
        """Return the names of the parameters in an order in which each parameter comes after its parents.

        The order does not depend on the order in the file.
        """
        for name, conditions in self.conditions.items():
            for parent in conditions:
                if parent not in self.distributions:
                    rule, hint = f"names {show(parent)}, which is not a parameter", did_you_mean(parent, self.distributions)
                    raise self._error(_when(name), rule, hint)
        depths: dict[str, int] = {}
        waiting = dict(self.conditions)
        while waiting:
            ready = [name for name, conditions in waiting.items() if all(parent in depths for parent in conditions)]
            if not ready:
                rule = f"conditions run in a circle: {', '.join(sorted(waiting)[:6])} wait for each other"
                raise self._error(_when(min(waiting)), rule, "Remove one of the conditions.")
            for name in ready:
                depths[name] = 1 + max((depths[parent] for parent in waiting.pop(name)), default=0)
        return sorted(depths, key=lambda name: (depths[name], name not in SELECTORS, name))

    def _check_condition(self, name: str) -> None:
        """Merge the conditions of a parameter with the conditions of its parents.

        Raise an error if the conditions can never hold.
        """
        merged: Conditions = {}
        where = _when(name)
        for parent, allowed in self.conditions[name].items():
            distribution = self.distributions[parent]
            if isinstance(distribution, Range):
                raise self._error(where, f"names {parent}, which is a range", "A condition needs a parameter with choices.")
            for value in allowed:
                if value not in distribution:
                    if parent in SELECTORS and name.startswith(f"{value}."):
                        hint = f"Add it to {self.prefix}{parent}, or remove the table."
                        raise self._error(name.rpartition(".")[0], f"can never apply: {parent} is never {show(value)}", hint)
                    raise self._error(where, f"{parent} is never {show(value)}", f"It can be: {distribution}.")
            for key, values in [*self.effective[parent].items(), (parent, allowed)]:
                common = tuple(value for value in merged.get(key, values) if any(same(value, other) for other in values))
                if not common:
                    raise self._error(where, f"can never hold: it requires two different values of {key}")
                merged[key] = common
        self.effective[name] = merged

    def _condition(self, name: str) -> Conditions:
        """Return the conditions of a parameter, written with the values of its parents.

        For example, `[2, 1, 1]` becomes `(1.0, 2.0)` if the parent has the choices 1.0 and 2.0.
        """
        return {
            parent: tuple(value for value in self.distributions[parent].listed if any(same(value, other) for other in allowed))
            for parent, allowed in self.conditions[name].items()
        }

    def _owner(self, name: str) -> Owner:
        """Return the owner of a parameter: the trainer, or the kind of component that takes the parameter's value."""
        option = self.options[name]
        if name in SELECTORS:
            return "trainer"
        possible: dict[Owner, list[Component]] = {"trainer": [TRAINER], **{kind: self._possible(kind, name) for kind in SELECTORS}}
        owners = [owner for owner, components in possible.items() if any(component.option(option) for component in components)]
        own = self.catalog.find(name.rpartition(".")[0])
        if own is not None and own.option(option) is not None:
            owners = [cast("Owner", own.kind)]  # in the table of a component, the component's own options come first
        if not owners:
            raise self._unknown_option(name, own)
        if len(owners) > 1:
            hint = f"Put it into the table of one of them, [{self.prefix}NAME]."
            raise self._error(name, f"both the {owners[0]} and the {owners[1]} take `{option}`", hint)
        owner = owners[0]
        options = [each for component in possible[owner] if (each := component.option(option)) is not None]
        for component in possible[owner]:
            if component.option(option) is None:
                taker = next(other.name for other in possible[owner] if other.option(option))
                rule = f"the {owner} '{component.name}' takes no `{option}`, but can be sampled with it"
                raise self._error(name, rule, f"Put it into a table of its own, [{self.prefix}{taker}] for example.")
        for each in options:
            self._check_against(name, each)
        self.distributions[name] = _typed(self.distributions[name], options)
        return owner

    def _unknown_option(self, name: str, own: Component | None) -> StudyFileError:
        option = self.options[name]
        if own is not None:
            hint = _nearest(option, [known.name for known in own.options]) or f"'{own.name}' has no options."
            return self._error(name, f"the {own.kind} '{own.name}' takes no `{option}`", hint)
        elsewhere = [f"the {component.kind} '{component.name}'" for component in self.catalog if component.option(option)]
        if elsewhere:
            return self._error(name, f"only {', '.join(elsewhere)} takes `{option}`, which this study never chooses", "Remove it.")
        reachable = [known.name for kind in SELECTORS for component in self._possible(kind, name) for known in component.options]
        hint = _nearest(option, [*SELECTORS, *(known.name for known in TRAINER.options), *reachable])
        return self._error(name, "neither the trainer nor a model, optimizer or schedule of this study takes it", hint)

    def _possible(self, kind: Kind, name: str) -> list[Component]:
        """Return the components of a kind that can be chosen while the parameter exists."""
        values = self.distributions[kind].listed
        allowed = self.effective[name].get(kind, values)
        return [self.catalog.get(kind, str(value)) for value in values if value in allowed]

    def _check_against(self, name: str, option: Option) -> None:
        distribution = self.distributions[name]
        kinds = (int, float) if isinstance(distribution, IntRange) else (float,)
        if isinstance(distribution, Range) and type(option.default) not in kinds:
            is_int = type(option.default) is int
            hint = f"Write {{ int = [{distribution.low:g}, {distribution.high:g}] }}." if is_int else _choices_hint(option)
            raise self._error(name, f"`{option.name}` is {option.type_name}", hint)
        for value in distribution.extremes:
            if rule := option.refuses(value):
                quoted = isinstance(value, str) and not isinstance(option.default, bool | str)
                close = did_you_mean(value, map(str, option.choices)) if option.choices and isinstance(value, str) else ""
                raise self._error(name, rule, UNQUOTE if quoted else close if close.startswith("Did") else "")

    def _refuse_two_values_for_one(self, owners: Mapping[str, Owner]) -> None:
        by_target: dict[tuple[Owner, str], list[str]] = {}
        for name, owner in owners.items():
            for other in by_target.setdefault((owner, self.options[name]), []):
                one, two = self.effective[name], self.effective[other]
                if all(any(same(a, b) for a in one[key] for b in two[key]) for key in one.keys() & two.keys()):
                    rule = f"{other} sets `{self.options[name]}` of the {owner} as well, and both can exist in one trial"
                    raise self._error(name, rule, "Remove one, or give them conditions that exclude each other.")
            by_target[owner, self.options[name]].append(name)


def _is_distribution(entry: Mapping[str, Any]) -> bool:
    return any(word in entry for word in DISTRIBUTION_KEYS)


def _typed(distribution: Distribution, options: list[Option]) -> Distribution:
    """Convert the values of a distribution to floats if the option is a float. For example, `lr = 1` becomes 1.0."""
    if any(not isinstance(option.default, float) for option in options):
        return distribution
    if isinstance(distribution, Fixed):
        return Fixed(value=float(distribution.value))
    if isinstance(distribution, Choices):
        return Choices(values=tuple(map(float, distribution.values)))
    return distribution


def _nearest(option: str, known: Iterable[str]) -> str:
    """Return a hint with the option that was probably meant. It may have another name in other tools."""
    names = list(known)
    other = OTHER_NAMES.get(option.lower().replace("_", ""), "")
    return did_you_mean(other if other in names else option, names)


def _choices_hint(option: Option) -> str:
    values = (True, False) if isinstance(option.default, bool) else option.choices or (option.default,)
    return f"Write {{ choices = {show(list(values[:2]))} }}."


def _when(name: str) -> str:
    """Return the key of the condition in the table of a parameter."""
    return f"{name.rpartition('.')[0]}.when"


def _keys(table: Mapping[str, Any]) -> str:
    return f"a table with {', '.join(list(map(show, table))[:5])}" if table else "an empty table"


def _distribution_hint(table: Mapping[str, Any]) -> str:
    """Return a hint for a table that is probably meant as a parameter."""
    if {"low", "high", "min", "max"} & table.keys():
        return "Write { float = [low, high] } or { int = [low, high] }."
    close = did_you_mean(next(iter(table), ""), DISTRIBUTION_KEYS)
    return close if close.startswith("Did") else ""


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names with their dots, and values. TOML reads `{ cnn.dense = 1 }` as `{ cnn = { dense = 1 } }`."""
    for key, value in table.items():
        if isinstance(value, dict) and value and not any(isinstance(inner, dict) for inner in value.values()):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value
