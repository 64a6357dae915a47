"""Reading a `[space]`: owners of values, conditions, and the order of parameters."""

from __future__ import annotations

from typing import Any

import pytest

from hpsearch.config.components import BUILT_IN, Component, Option
from hpsearch.config.distributions import Choices, Fixed, FloatRange, IntRange, read_distribution
from hpsearch.config.space_parser import read_space
from hpsearch.errors import StudyFileError


def read(table: dict[str, Any]) -> Any:
    return read_space(table, catalog=BUILT_IN)


@pytest.mark.parametrize(
    ("entry", "distribution"),
    [
        (0.5, Fixed(value=0.5)),
        (True, Fixed(value=True)),
        ({"float": [0, 1]}, FloatRange(low=0.0, high=1.0)),
        ({"float": [0.1, 0.3], "step": 0.1}, FloatRange(low=0.1, high=0.3, step=0.1)),
        ({"float": [1e-4, 1], "log": True}, FloatRange(low=1e-4, high=1.0, log=True)),
        ({"int": [16, 64], "step": 16}, IntRange(low=16, high=64, step=16)),
        ({"int": [5, 5]}, IntRange(low=5, high=5)),
        ({"choices": ["b", "a"]}, Choices(values=("b", "a"))),
    ],
)
def test_entry_is_read_as_its_distribution(entry: Any, distribution: Any) -> None:
    assert read_distribution("x", entry) == distribution


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (
            FloatRange(low=0.0, high=0.3, step=0.1),
            [0.0, 0.1, 0.2, 0.30000000000000004 - 1e-16, 0.3],
            [0.15, -0.1, 0.4, True, "0.1", float("nan")],
        ),
        (FloatRange(low=0.0, high=1.0), [0, 1, 0.123], [1.0000001, float("inf")]),
        (IntRange(low=16, high=64, step=16), [16, 32, 64], [24, 80, 16.0, True, "16"]),
        (Choices(values=(True, False)), [True, False], [1, 0, "true"]),
        (Choices(values=(1.0, 2.0)), [1, 1.0], [True, 3]),
        (Fixed(value="a"), ["a"], ["b", 1]),
    ],
)
def test_distribution_contains_exactly_its_values(distribution: Any, inside: list[Any], outside: list[Any]) -> None:
    assert all(value in distribution for value in inside)
    assert not any(value in distribution for value in outside)


@pytest.mark.parametrize(
    ("low", "high", "step", "says"),
    [
        (0.0, 0.5, 0.2, "high = 0.4 or 0.6"),
        (0.0, 0.1, 0.3, "high = 0.3"),
        (16, 70, 16, "high = 64 or 80"),
        (1_000_000, 1_234_567, 2, "high = 1234566 or 1234568"),
    ],
)
def test_error_of_a_step_that_does_not_divide_suggests_bounds(low: float, high: float, step: float, says: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        read_distribution("x", {"int" if isinstance(low, int) else "float": [low, high], "step": step})
    assert says in caught.value.hint


def test_value_goes_to_the_component_that_declares_the_option() -> None:
    space = read({"epochs": 5, "dropout": 0.1, "lr": 0.1, "schedule": "step", "gamma": 0.5})
    owners = {parameter.name: parameter.owner for parameter in space}
    assert owners["epochs"] == "trainer"
    assert owners["dropout"] == "model"
    assert owners["lr"] == "optimizer"
    assert owners["gamma"] == "schedule"


def test_table_of_a_component_applies_when_it_is_chosen() -> None:
    space = read({"optimizer": {"choices": ["sgd", "adam"]}, "sgd": {"lr": 0.1}})
    assert dict(space["sgd.lr"].when) == {"optimizer": ("sgd",)}
    assert space["sgd.lr"].condition == "optimizer is sgd"


def test_labelled_table_applies_under_its_condition() -> None:
    space = read({"optimizer": {"choices": ["sgd", "adam", "adamw"]}, "adaptive": {"when": {"optimizer": ["adam", "adamw"]}, "lr": 0.1}})
    assert space["adaptive.lr"].option == "lr"
    assert space["adaptive.lr"].condition == "optimizer is adam or adamw"


def test_parents_are_drawn_before_their_children() -> None:
    table = {
        "aaa": {"when": {"zzz.flip": True}, "shift": 1},
        "zzz": {"when": {"sgd.nesterov": True}, "flip": {"choices": [True, False]}},
        "sgd": {"nesterov": {"choices": [True, False]}},
        "optimizer": {"choices": ["sgd", "adam"]},
    }
    names = [parameter.name for parameter in read(table)]
    assert names.index("optimizer") < names.index("sgd.nesterov") < names.index("zzz.flip") < names.index("aaa.shift")


def test_label_may_be_the_name_of_a_parameter_kind() -> None:
    assert read({"float": {"when": {"model": "cnn"}, "flip": True}})["float.flip"].distribution == Fixed(value=True)


def test_trainer_option_in_the_table_of_a_component_belongs_to_the_trainer() -> None:
    space = read({"optimizer": {"choices": ["sgd", "adam"]}, "sgd": {"epochs": {"int": [5, 9]}}})
    assert (space["sgd.epochs"].owner, space["sgd.epochs"].option) == ("trainer", "epochs")


def test_two_conditions_that_exclude_each_other_may_set_one_value() -> None:
    table = {
        "model": {"choices": ["cnn", "lenet5"]},
        "one": {"when": {"model": "cnn"}, "epochs": 5},
        "two": {"when": {"model": "lenet5"}, "epochs": 9},
    }
    assert {parameter.name for parameter in read(table)} >= {"one.epochs", "two.epochs"}


def test_choices_must_be_allowed_by_both_options() -> None:
    nets = [
        Component(kind="model", name=name, options=(Option(name="width", default=default),)) for name, default in (("one", 8), ("two", 0.5))
    ]
    catalog = BUILT_IN.extended(nets)
    table = {"model": {"choices": ["one", "two"]}, "width": {"choices": [1, 2.5]}}
    with pytest.raises(StudyFileError, match=r"width: must be a whole number, but got 2\.5"):
        read_space(table, catalog=catalog)
