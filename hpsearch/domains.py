"""What a parameter can be: a range of numbers, a set of choices or one fixed value; and how a study file writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from hpsearch.components import Scalar, is_finite, same, show
from hpsearch.errors import StudyFileError, did_you_mean

DOMAIN_KEYS = ("float", "int", "choices")
LARGEST_INT = 2**53
"""Whole numbers above it are not exact in a float, and Optuna computes in floats."""

BOUND_TOLERANCE = 1e-9
"""Relative slack when a float is compared with its bounds and steps: TOML writes 0.1, not its binary neighbour."""


class Trial(Protocol):
    """What a parameter is drawn from: `optuna.Trial`, `optuna.trial.FixedTrial` or a sampler's draft."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class FloatRange:
    """Numbers from `low` to `high`, both included; in steps, or evenly in the logarithm."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def draw(self, trial: Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Scalar) -> bool:
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) <= BOUND_TOLERANCE * max(1.0, abs(steps))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (f" in steps of {self.step:g}" if self.step else "") + (", log" if self.log else "")


@dataclass(frozen=True, kw_only=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included; in steps, or evenly in the logarithm."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def draw(self, trial: Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Scalar) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
            and (value - self.low) % self.step == 0
        )

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step != 1 else "") + (", log" if self.log else "")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A set of values of one type; their order means nothing."""

    values: tuple[Scalar, ...]

    @property
    def ordered(self) -> tuple[Scalar, ...]:
        """The values in an order that does not depend on how they were written down."""
        return tuple(sorted(self.values, key=lambda value: (str(type(value)), value)))

    def draw(self, trial: Trial, name: str) -> Scalar:
        drawn: Scalar = trial.suggest_categorical(name, list(self.ordered))
        return drawn

    def contains(self, value: Scalar) -> bool:
        return any(same(value, choice) for choice in self.values)

    def __str__(self) -> str:
        return ", ".join(map(str_of, self.values))


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """One value that is not searched."""

    value: Scalar

    def draw(self, trial: Trial, name: str) -> Scalar:
        return self.value

    def contains(self, value: Scalar) -> bool:
        return same(value, self.value)

    def __str__(self) -> str:
        return str_of(self.value)


Domain = FloatRange | IntRange | Choices | Fixed


def str_of(value: Scalar) -> str:
    """A value for a person's eye: no quotes, `true` as TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def key_error(key: str, rule: str, hint: str = "") -> StudyFileError:
    """The error of one key of a study file."""
    return StudyFileError(f"{show(key)[1:-1] if len(key) < 80 else show(key)}: {rule}", hint=hint)


def read_domain(key: str, entry: Any) -> Domain:
    """The domain that a study file writes as `entry`.

    Raises:
        StudyFileError: with `key`, the rule, the value and the likely mend.
    """
    if isinstance(entry, bool | int | float | str):
        return Fixed(value=_number(key, entry) if isinstance(entry, int | float) and not isinstance(entry, bool) else entry)
    if isinstance(entry, list):
        raise key_error(
            key,
            f"a list is no value; got {show(entry)}",
            f"For a choice write {{ choices = {show(entry)} }}, for a range {{ float = [low, high] }}.",
        )
    if not isinstance(entry, dict):
        raise key_error(key, f"must be a string, a number, true or false, or a table, but got {show(entry)}")
    kinds = [word for word in DOMAIN_KEYS if word in entry]
    if len(kinds) > 1:
        raise key_error(key, f"must have one of float, int and choices, but has {' and '.join(kinds)}")
    known = {"float": ("float", "step", "log"), "int": ("int", "step", "log"), "choices": ("choices",)}[kinds[0]]
    for word in entry:
        if word not in known:
            raise key_error(key, f"unknown key {show(word)} beside `{kinds[0]}`", did_you_mean(word, known))
    return _read_choices(key, entry["choices"]) if kinds == ["choices"] else _read_range(key, kinds[0], entry)


def _read_choices(key: str, listed: Any) -> Choices:
    if not isinstance(listed, list) or not listed:
        raise key_error(key, f"choices must be a list of at least one value, but got {show(listed)}")
    values: list[Scalar] = []
    for value in listed:
        if not isinstance(value, bool | int | float | str):
            raise key_error(key, f"choices must be strings, numbers, or true and false, but one is {show(value)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            _number(key, value)
        if any(same(value, other) for other in values):
            raise key_error(key, f"choices must differ, but {show(value)} is there twice")
        values.append(value)
    types = {"true or false" if isinstance(value, bool) else "a string" if isinstance(value, str) else "a number" for value in values}
    if len(types) > 1:
        raise key_error(key, f"choices must be of one type, but {show(listed)} holds {' and '.join(sorted(types))}")
    if any(isinstance(value, float) for value in values):
        values = [float(value) for value in values]
    return Choices(values=tuple(values))


def _read_range(key: str, kind: str, entry: Mapping[str, Any]) -> FloatRange | IntRange:
    bounds = entry[kind]
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise key_error(key, f"`{kind}` must be [low, high], but got {show(bounds)}")
    low, high = (_number(key, bound, whole=kind == "int") for bound in bounds)
    if low > high:
        raise key_error(key, f"low <= high must hold, but got [{low}, {high}]", f"Write {kind} = [{high}, {low}].")
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise key_error(key, f"log must be true or false, but got {show(log)}")
    if log and low <= 0:
        raise key_error(key, f"log needs low > 0, but got [{low}, {high}]")
    step = None if "step" not in entry else _number(key, entry["step"], whole=kind == "int")
    if step is not None:
        _check_step(key, low, high, step, log)
    if kind == "int":
        return IntRange(low=int(low), high=int(high), step=int(step or 1), log=log)
    return FloatRange(low=float(low), high=float(high), step=None if step is None else float(step), log=log)


def _check_step(key: str, low: float, high: float, step: float, log: bool) -> None:
    if step <= 0:
        raise key_error(key, f"step must be above 0, but got {step}")
    if log:
        raise key_error(key, "step and log exclude each other", "Leave one of the two out.")
    steps = (high - low) / step
    if abs(steps - round(steps)) > BOUND_TOLERANCE * max(1.0, steps):
        raise key_error(
            key,
            f"step must divide high - low, but {step} does not divide {high - low:g}",
            f"Write high = {low + int(steps) * step:g}, for example.",
        )


def _number(key: str, value: Any, *, whole: bool = False) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise key_error(key, f"expected {'a whole number' if whole else 'a number'}, but got {show(value)}")
    if not is_finite(value) or (isinstance(value, int) and abs(value) > LARGEST_INT):
        raise key_error(key, f"numbers must be finite and of a size that a float holds exactly, but got {show(value)}")
    return cast("float | int", value)
