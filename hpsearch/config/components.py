"""The built-in models, optimizers, schedules and data sets as tables of options.

Study files and the values of a single run are checked against these tables. `hpsearch.training`
builds the components. `hpsearch.config.registration` holds the components that a user adds.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpsearch.errors import ComponentError, did_you_mean
from hpsearch.formatting import show

Scalar = bool | int | float | str
Kind = Literal["model", "optimizer", "schedule", "dataset"]
Owner = Literal["trainer", "model", "optimizer", "schedule"]

SELECTORS: tuple[Literal["model", "optimizer", "schedule"], ...] = ("model", "optimizer", "schedule")
"""The parameters whose values are names of components."""

DEFAULT_COMPONENTS: Mapping[str, str] = {"model": "cnn", "optimizer": "adam", "schedule": "constant"}
"""The components that are used if a study file does not name others."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting of a component.

    Attributes:
        default: the default value. Its type is the type of the option. A float option also allows whole numbers.
        low: the smallest allowed value.
        high: the largest allowed value.
        above: an exclusive lower bound.
        below: an exclusive upper bound.
        choices: the only allowed values.
    """

    name: str
    default: Scalar
    help: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Scalar, ...] | None = None

    @property
    def type_name(self) -> str:
        """The type of the option in words: `true or false`, `a whole number`, `a number` or `a string`."""
        return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[type(self.default)]

    @property
    def allowed(self) -> str:
        """The allowed values in words, such as `a number, >= 0 and < 1`."""
        if self.choices is not None:
            return "one of " + ", ".join(map(show, self.choices))
        bounds = " and ".join(f"{sign} {bound:g}" for sign, bound, _ in self._bounds)
        return f"{self.type_name}, {bounds}" if bounds else self.type_name

    @property
    def _bounds(self) -> list[tuple[str, float, Callable[[float, float], bool]]]:
        bounds = (
            (">=", self.low, operator.ge),
            (">", self.above, operator.gt),
            ("<=", self.high, operator.le),
            ("<", self.below, operator.lt),
        )
        return [(sign, bound, holds) for sign, bound, holds in bounds if bound is not None]

    def refuses(self, value: object) -> str | None:
        """Return why the option does not allow a value.

        Args:
            value: any value.

        Returns:
            The end of a sentence with the rule and the value; None if the value is allowed.
        """
        if self.choices is not None:
            is_allowed = any(same(value, choice) for choice in self.choices)
        elif isinstance(self.default, bool | str) or isinstance(value, bool | str):
            is_allowed = type(value) is type(self.default)
        else:
            kind = int if isinstance(self.default, int) else int | float
            is_allowed = isinstance(value, kind) and is_finite(value) and all(holds(value, bound) for _, bound, holds in self._bounds)
        return None if is_allowed else f"must be {self.allowed}, but got {show(value)}"

    def coerce(self, value: Scalar) -> Scalar:
        """Convert an allowed value to the type of the option. For a float option, 1 becomes 1.0.

        Args:
            value: a value that the option allows.

        Returns:
            The value.
        """
        return float(value) if isinstance(self.default, float) and not isinstance(value, bool | str) else value


@dataclass(frozen=True, kw_only=True)
class ComponentFile:
    """A user's Python file that registers components. `sha256` is the SHA-256 of its content with `\\n` as line ends, hexadecimal."""

    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Component:
    """A model, optimizer, schedule or data set by name. The trainer is a component too, because it has options.

    Only a user's component has a `factory`. It also has a `file` if it comes from a component file.
    """

    kind: Kind | Owner
    name: str
    help: str = ""
    options: tuple[Option, ...] = ()
    factory: Callable[..., Any] | None = field(default=None, compare=False)
    file: ComponentFile | None = None

    def option(self, name: str) -> Option | None:
        """Return the option with a given name.

        Args:
            name: the option's name.

        Returns:
            The option; None if the component does not have it.
        """
        return next((option for option in self.options if option.name == name), None)


@dataclass(frozen=True)
class Catalog:
    """The components that a study can name: built-in components, and components from its component files.

    Every component must have a different name, even if the kinds differ. Otherwise a table
    `[space.NAME]` could mean two components.

    Raises:
        ComponentError: two components have the same name, or a component has the name of a trainer option or selector.
    """

    components: tuple[Component, ...]

    def __post_init__(self) -> None:
        seen: dict[str, Component] = {}
        reserved = {*SELECTORS, *(option.name for option in TRAINER_OPTIONS)}
        for component in self.components:
            if component.name in seen:
                raise ComponentError(
                    f"the {component.kind} '{component.name}'{_origin(component)} is registered already, "
                    f"as a {seen[component.name].kind}{_origin(seen[component.name])}",
                    hint="Give one of the two another name.",
                )
            if component.name in reserved:
                raise ComponentError(
                    f"the {component.kind} '{component.name}'{_origin(component)} has the name of a setting", hint="Give it another name."
                )
            seen[component.name] = component

    def __iter__(self) -> Iterator[Component]:
        return iter(self.components)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of one kind, in the order of registration.

        Args:
            kind: the kind of component.

        Returns:
            The names.
        """
        return tuple(component.name for component in self.components if component.kind == kind)

    def find(self, name: str) -> Component | None:
        """Return the component with a given name, of any kind.

        Args:
            name: the component's name.

        Returns:
            The component; None if there is none.
        """
        return next((component for component in self.components if component.name == name), None)

    def get(self, kind: Kind, name: str) -> Component:
        """Return the component with a given kind and name.

        Args:
            kind: the kind of component.
            name: the component's name.

        Returns:
            The component.

        Raises:
            ComponentError: there is no such component.
        """
        component = self.find(name)
        if component is None or component.kind != kind:
            raise ComponentError(f"unknown {kind} {show(name)}", hint=did_you_mean(name, self.names(kind)))
        return component

    def extended(self, components: Iterable[Component]) -> Catalog:
        """Return a catalog with more components.

        Args:
            components: the components to add.

        Returns:
            The new catalog.

        Raises:
            ComponentError: a name is already used.
        """
        return Catalog((*self.components, *components))


def same(one: object, other: object) -> bool:
    """Return whether two values are equal. Unlike in Python, true does not equal 1.

    Args:
        one: a value.
        other: the value to compare with.

    Returns:
        True if they are equal.
    """
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def is_finite(value: int | float) -> bool:
    """Return whether a number is finite and fits a float.

    Args:
        value: a number of any size.

    Returns:
        True if it is.
    """
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _origin(component: Component) -> str:
    return f" of {component.file.path}" if component.file else ""


ACTIVATIONS = ("relu", "leaky_relu", "elu", "silu", "gelu", "tanh", "sigmoid")

_DROPOUT_HELP = "share of the first dense layer's inputs that is set to zero in training"
_BATCH_NORM = Option(name="batch_norm", default=False, help="batch normalisation after each convolution's pooling")


def _weight_decay(default: float) -> Option:
    return Option(name="weight_decay", default=default, low=0, help="L2 penalty on all weights")


def _learning_rate(default: float) -> Option:
    return Option(name="lr", default=default, above=0, help="learning rate: the maximum of the schedule")


_BETAS = (
    Option(name="beta1", default=0.9, low=0, below=1, help="decay of the running mean of gradients"),
    Option(name="beta2", default=0.999, low=0, below=1, help="decay of the running mean of squared gradients"),
)

# All other optimizers have torch's defaults. With torch's defaults (lr 0.001, no momentum), SGD
# learns almost nothing in 10 epochs. Such a baseline would be useless.
SGD_LR, SGD_MOMENTUM, SGD_WEIGHT_DECAY = 0.05, 0.9, 5e-4

PRECISIONS = ("float32", "bfloat16")

TRAINER_OPTIONS: tuple[Option, ...] = (
    Option(name="epochs", default=10, low=1, high=10_000, help="passes over the training images"),
    Option(name="batch_size", default=128, low=1, high=65_536, help="images per step"),
    Option(name="label_smoothing", default=0.0, low=0, below=1, help="share of the target spread evenly over all classes"),
    Option(name="flip", default=False, help="mirror each training image left to right with probability 1/2"),
    Option(name="shift", default=0, low=0, high=8, help="shift each training image by up to this many pixels in each direction"),
    Option(
        name="precision",
        default="auto",
        choices=("auto", *PRECISIONS),
        help="number format of the layers; the weights, the loss and the optimizer are always float32",
    ),
)

EARLIER_TRAINING: Mapping[str, Scalar] = {"precision": "float32"}
"""The trainer's options that version 0.1 did not have, with the values that describe how it trained."""

FASTER_IN_BFLOAT16 = ("cnn",)
"""The models that a processor with instructions for bfloat16 trains faster in bfloat16. LeNet-5 was measured too, and gains nothing."""

TRAINER = Component(kind="trainer", name="the trainer", options=TRAINER_OPTIONS)

_BUILT_IN: Mapping[Kind, Mapping[str, tuple[str, tuple[Option, ...]]]] = {
    "model": {
        "cnn": (
            "two 3×3 convolutions and a dense layer: 121,930 parameters at its defaults",
            (
                Option(name="filters1", default=32, low=1, high=1024, help="channels of the first convolution"),
                Option(name="filters2", default=64, low=1, high=1024, help="channels of the second convolution"),
                Option(name="dense", default=64, low=1, high=4096, help="width of the dense layer"),
                Option(name="kernel_size", default=3, low=1, high=7, help="side of both convolutions' kernels, in pixels"),
                _BATCH_NORM,
                Option(name="dropout", default=0.5, low=0, below=1, help=_DROPOUT_HELP),
                Option(
                    name="activation", default="relu", choices=ACTIVATIONS, help="activation after each pooling and after the dense layer"
                ),
            ),
        ),
        "lenet5": (
            "LeNet-5 (LeCun et al. 1998) with C5 as a convolution: 61,706 parameters",
            (
                Option(name="activation", default="tanh", choices=ACTIVATIONS, help="activation after each convolution and after F6"),
                Option(name="pooling", default="average", choices=("average", "max"), help="kind of pooling in S2 and S4"),
                _BATCH_NORM,
                Option(name="dropout", default=0.0, low=0, below=1, help=_DROPOUT_HELP),
            ),
        ),
    },
    "optimizer": {
        "sgd": (
            "stochastic gradient descent with momentum",
            (
                _learning_rate(SGD_LR),
                Option(name="momentum", default=SGD_MOMENTUM, low=0, below=1, help="share of the last step that is kept"),
                _weight_decay(SGD_WEIGHT_DECAY),
                Option(name="nesterov", default=False, help="Nesterov momentum; only with momentum above 0"),
            ),
        ),
        "adam": ("Adam", (_learning_rate(1e-3), *_BETAS, _weight_decay(0.0))),
        "adamw": ("Adam with decoupled weight decay", (_learning_rate(1e-3), *_BETAS, _weight_decay(1e-2))),
        "rmsprop": (
            "RMSprop",
            (
                _learning_rate(1e-2),
                Option(name="alpha", default=0.99, low=0, below=1, help="decay of the running mean of squared gradients"),
                Option(name="momentum", default=0.0, low=0, below=1, help="share of the last step that is kept"),
                _weight_decay(0.0),
            ),
        ),
        "nadam": ("Adam with Nesterov momentum", (_learning_rate(2e-3), *_BETAS, _weight_decay(0.0))),
    },
    "schedule": {
        "constant": ("the learning rate does not change", ()),
        "step": (
            "the learning rate falls in steps",
            (
                Option(name="step_size", default=5, low=1, high=10_000, help="epochs between two steps"),
                Option(name="gamma", default=0.1, above=0, high=1, help="factor of each step"),
            ),
        ),
        "cosine": (
            "the learning rate follows half a cosine down",
            (Option(name="eta_min", default=0.0, low=0, help="the learning rate at the end"),),
        ),
        "onecycle": (
            "the learning rate rises to its maximum, then falls to almost 0 (Smith 2018)",
            (Option(name="pct_start", default=0.3, above=0, below=1, help="share of the steps in which it rises"),),
        ),
    },
    "dataset": {
        "fashion-mnist": ("Zalando's articles of clothing: 28×28 pixels, grey, 10 classes", ()),
        "mnist": ("handwritten digits: 28×28 pixels, grey, 10 classes", ()),
        "kmnist": ("Kuzushiji characters: 28×28 pixels, grey, 10 classes", ()),
    },
}
"""For each kind, the names of the components with their help texts and options."""

BUILT_IN = Catalog(
    tuple(
        Component(kind=kind, name=name, help=text, options=options)
        for kind, table in _BUILT_IN.items()
        for name, (text, options) in table.items()
    )
)

DATASET_IMAGES: Mapping[str, int] = {"fashion-mnist": 60_000, "mnist": 60_000, "kmnist": 60_000}
"""Numbers of training images. They allow hpsearch to check a study file before the data set is downloaded."""
