"""The possible values of a parameter: a range of numbers, a set of choices or one fixed value.

`read_distribution` reads the possible values from a study file.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hpsearch.config.components import Scalar, is_finite, same
from hpsearch.errors import StudyFileError, did_you_mean
from hpsearch.formatting import show, str_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DISTRIBUTION_KEYS = ("float", "int", "choices")
LARGEST_INT = 2**53
"""Largest whole number in a space. Optuna computes in floats, which do not hold larger whole numbers exactly."""

MOST_CHOICES = 1_000
"""Largest number of choices of a parameter. It is limited because every trial stores all choices."""
MOST_STEPS = 1_000_000_000
"""Largest number of steps in a range. Smaller steps would make no difference."""

BOUND_TOLERANCE = 1e-9
"""Tolerance when a value is compared with the steps of a range, as a fraction of the number of steps.

It is needed because no float is exactly 0.1.
"""

UNQUOTE = "A number stands without quotes."


class Distribution(ABC):
    """The possible values of a parameter. `value in distribution` is True if the value is possible."""

    @property
    def listed(self) -> tuple[Scalar, ...]:
        """All possible values; empty for a range."""
        return ()

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Both ends of a range, or all possible values. If an option allows these, it allows the whole distribution."""
        return self.listed

    @property
    def size(self) -> float:
        """The number of possible values, which may be infinite."""
        return len(self.listed)

    @property
    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """The distribution as JSON values. Equal distributions have equal JSON values."""

    @abstractmethod
    def __contains__(self, value: Scalar) -> bool: ...

    @abstractmethod
    def __str__(self) -> str: ...


class Searched(Distribution):
    """A distribution from which Optuna samples: a range or a set of choices."""

    @property
    @abstractmethod
    def optuna(self) -> BaseDistribution:
        """Optuna's distribution with the same values."""


@dataclass(frozen=True, kw_only=True)
class Range(Searched):
    """Numbers from `low` to `high`, including both.

    With `step`, only the numbers `low`, `low + step` and so on are possible. With `log`, Optuna
    samples the logarithm of the number evenly.
    """

    KEY: ClassVar[str]
    """The key of the range in a study file and in the JSON values."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def size(self) -> float:
        if self.low == self.high:
            return 1
        return round((self.high - self.low) / self.step) + 1 if self.step else math.inf

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Both ends of the range."""
        return self.low, self.high

    @property
    def plain(self) -> dict[str, Any]:
        return {self.KEY: [self.low, self.high], "step": self.step, "log": self.log}


@dataclass(frozen=True, kw_only=True)
class FloatRange(Range):
    """A range of all numbers."""

    KEY = "float"

    @property
    def optuna(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def __contains__(self, value: Scalar) -> bool:
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) <= BOUND_TOLERANCE * max(1.0, abs(steps))

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (f" in steps of {self.step:g}" if self.step else "") + (", log" if self.log else "")


@dataclass(frozen=True, kw_only=True)
class IntRange(Range):
    """A range of whole numbers."""

    KEY = "int"

    low: int
    high: int
    step: int = 1

    @property
    def optuna(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def __contains__(self, value: Scalar) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0  # type: ignore[operator]  # `whole` rules strings out

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step != 1 else "") + (", log" if self.log else "")


@dataclass(frozen=True, kw_only=True)
class Choices(Searched):
    """A set of values of one type. The order of the values has no meaning."""

    values: tuple[Scalar, ...]

    @property
    def listed(self) -> tuple[Scalar, ...]:
        """The values, sorted. The result does not depend on the order in the file."""
        return tuple(sorted(self.values, key=lambda value: (str(type(value)), value)))

    @property
    def optuna(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.listed)

    def __contains__(self, value: Scalar) -> bool:
        return any(same(value, choice) for choice in self.values)

    @property
    def plain(self) -> dict[str, Any]:
        return {"choices": list(self.listed)}

    def __str__(self) -> str:
        return ", ".join(map(str_of, self.values))


@dataclass(frozen=True, kw_only=True)
class Fixed(Distribution):
    """One value that is not searched."""

    value: Scalar

    @property
    def listed(self) -> tuple[Scalar, ...]:
        """The one value."""
        return (self.value,)

    def __contains__(self, value: Scalar) -> bool:
        return same(value, self.value)

    @property
    def plain(self) -> dict[str, Any]:
        return {"fixed": self.value}

    def __str__(self) -> str:
        return str_of(self.value)


def distribution_of(plain: Mapping[str, Any]) -> Distribution:
    """Return the distribution whose JSON values are given.

    Args:
        plain: JSON values, as in `Distribution.plain`. A study stores these.

    Returns:
        The distribution.
    """
    for kind in (FloatRange, IntRange):
        if kind.KEY in plain:
            low, high = plain[kind.KEY]
            return kind(low=low, high=high, step=plain["step"], log=plain["log"])
    return Choices(values=tuple(plain["choices"])) if "choices" in plain else Fixed(value=plain["fixed"])


def key_error(key: str, rule: str, hint: str = "") -> StudyFileError:
    """Return an error about one key of a study file.

    Args:
        key: the key, such as `space.lr`.
        rule: the rule that is broken, and the value.
        hint: how to correct the study file.

    Returns:
        The error.
    """
    return StudyFileError(f"{show(key)[1:-1] if len(key) < 80 else show(key)}: {rule}", hint=hint)


def read_distribution(key: str, entry: Any) -> Distribution:
    """Return the distribution of one entry in the space of a study file.

    Args:
        key: the key of the entry, for errors.
        entry: the value or the table, as tomllib returns it.

    Returns:
        The distribution.

    Raises:
        StudyFileError: the entry is not valid. The error names the key, the rule, the value and a likely fix.
    """
    if isinstance(entry, bool | str):
        return Fixed(value=entry)
    if isinstance(entry, int | float):
        return Fixed(value=_number(key, entry))
    if isinstance(entry, list):
        raise key_error(
            key,
            f"a list is no value; got {show(entry)}",
            f"For a choice write {{ choices = {show(entry)} }}, for a range {{ float = [low, high] }}.",
        )
    if not isinstance(entry, dict):
        raise key_error(key, f"must be a string, a number, true or false, or a table, but got {show(entry)}")
    kinds = [word for word in DISTRIBUTION_KEYS if word in entry]
    if len(kinds) > 1:
        raise key_error(key, f"must have one of float, int and choices, but has {' and '.join(kinds)}")
    known = {"float": ("float", "step", "log"), "int": ("int", "step", "log"), "choices": ("choices",)}[kinds[0]]
    for word in entry:
        if word not in known:
            table = "Write a condition as a table: [space.LABEL] with `when` and the parameters."
            raise key_error(key, f"unknown key {show(word)} beside `{kinds[0]}`", table if word == "when" else did_you_mean(word, known))
    return _read_choices(key, entry["choices"]) if kinds == ["choices"] else _read_range(key, kinds[0], entry)


def _read_choices(key: str, listed: Any) -> Choices:
    if not isinstance(listed, list) or not listed:
        hint = f"Write choices = [{show(listed)}]." if isinstance(listed, bool | int | float | str) else ""
        raise key_error(key, f"choices must be a list of at least one value, but got {show(listed)}", hint)
    if len(listed) > MOST_CHOICES:
        raise key_error(key, f"choices must be at most {MOST_CHOICES:,}, but are {len(listed):,}", "Write a range.")
    values: list[Scalar] = []
    for value in listed:
        if not isinstance(value, bool | int | float | str):
            raise key_error(key, f"choices must be strings, numbers, or true and false, but one is {show(value)}")
        values.append(value if isinstance(value, bool | str) else _number(key, value))
    for number, value in enumerate(values):
        if any(same(value, other) for other in values[:number]):
            raise key_error(key, f"choices must differ, but {show(value)} is there twice")
    types = {"true or false" if isinstance(value, bool) else "a string" if isinstance(value, str) else "a number" for value in values}
    if len(types) > 1:
        raise key_error(key, f"choices must be of one type, but {show(listed)} holds {' and '.join(sorted(types))}")
    return Choices(values=tuple(values))


def _read_range(key: str, kind: str, entry: Mapping[str, Any]) -> FloatRange | IntRange:
    bounds = entry[kind]
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise key_error(key, f"`{kind}` must be [low, high], but got {show(bounds)}")
    low, high = (_number(key, bound, whole=kind == "int") for bound in bounds)
    if low > high:
        raise key_error(key, f"low <= high must hold, but got [{low}, {high}]", f"Write {kind} = [{high}, {low}].")
    if not is_finite(high - low):
        raise key_error(key, f"high - low must be finite, but got [{low}, {high}]")
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise key_error(key, f"log must be true or false, but got {show(log)}")
    if log and low <= 0:
        raise key_error(key, f"log needs low > 0, but got [{low}, {high}]")
    step = None if "step" not in entry else _number(key, entry["step"], whole=kind == "int", what="step")
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
    # Compute in decimal numbers, as Optuna does. In binary numbers, 0.1 does not divide 0.3.
    first, width, stride = Decimal(str(low)), Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
    if width / stride > MOST_STEPS:
        raise key_error(key, f"step is too small: {step} makes more than {MOST_STEPS:,} steps of [{low}, {high}]", "Leave it out.")
    if width % stride:
        below = width // stride
        fitting = [f"{first + steps * stride:f}" for steps in (below, below + 1) if steps]
        raise key_error(key, f"step must divide high - low, but {step} does not divide {width:f}", f"Write high = {' or '.join(fitting)}.")


def _number(key: str, value: Any, *, whole: bool = False, what: str = "a bound") -> float | int:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        rule = f"{what} must be {'a whole number' if whole else 'a number'}, but got {show(value)}"
        raise key_error(key, rule, UNQUOTE if isinstance(value, str) else "")
    if not is_finite(value) or (isinstance(value, int) and abs(value) > LARGEST_INT):
        raise key_error(key, f"numbers must be finite and of a size that a float holds exactly, but got {show(value)}")
    return cast("float | int", value + 0)  # adding 0 turns -0.0 into 0.0
