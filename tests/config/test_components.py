"""Options, components and the catalog."""

from __future__ import annotations

import pytest

from hpsearch.config.components import (
    BUILT_IN,
    DATASET_IMAGES,
    DEFAULT_COMPONENTS,
    TRAINER_OPTIONS,
    Catalog,
    Component,
    Option,
    Scalar,
    same,
)
from hpsearch.errors import ComponentError, did_you_mean
from hpsearch.formatting import show

ALL_OPTIONS = [*TRAINER_OPTIONS, *(option for component in BUILT_IN for option in component.options)]


@pytest.mark.parametrize("option", ALL_OPTIONS, ids=lambda option: option.name)
def test_default_is_allowed_and_explained(option: Option) -> None:
    assert option.refuses(option.default) is None
    assert option.help


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (Option(name="x", default=0.5, low=0, below=1), 1),
        (Option(name="x", default=0.5, low=0, below=1), -1e-9),
        (Option(name="x", default=0.5, above=0), 0.0),
        (Option(name="x", default=0.5), float("nan")),
        (Option(name="x", default=0.5), float("inf")),
        (Option(name="x", default=0.5), 10**400),
        (Option(name="x", default=0.5), True),
        (Option(name="x", default=0.5), "0.5"),
        (Option(name="x", default=5), 5.0),
        (Option(name="x", default=5), False),
        (Option(name="x", default=True), 1),
        (Option(name="x", default="a"), 1),
        (Option(name="x", default="a", choices=("a", "b")), "c"),
        (Option(name="x", default=1, choices=(1, 2)), True),
        (Option(name="x", default=1), None),
        (Option(name="x", default=1), [1]),
    ],
)
def test_value_that_is_not_allowed_is_refused_with_rule_and_value(option: Option, value: object) -> None:
    rule = option.refuses(value)
    assert rule is not None
    assert option.allowed in rule
    assert show(value) in rule


def test_whole_number_is_allowed_for_a_float_option() -> None:
    option = Option(name="lr", default=0.1, above=0)
    assert option.refuses(1) is None
    assert repr(option.coerce(1)) == "1.0"


def test_catalog_refuses_a_name_twice_even_for_two_kinds() -> None:
    with pytest.raises(ComponentError, match="'sgd' is registered already, as a optimizer"):
        BUILT_IN.extended([Component(kind="model", name="sgd")])


@pytest.mark.parametrize("name", ["epochs", "model", "flip"])
def test_catalog_refuses_the_name_of_a_setting(name: str) -> None:
    with pytest.raises(ComponentError, match="name of a setting"):
        Catalog((Component(kind="model", name=name),))


def test_error_of_an_unknown_component_suggests_the_closest_name() -> None:
    with pytest.raises(ComponentError, match="unknown model 'lenet'") as caught:
        BUILT_IN.get("model", "lenet")
    assert caught.value.hint == "Did you mean 'lenet5'?"


def test_component_of_another_kind_is_unknown() -> None:
    with pytest.raises(ComponentError, match="unknown optimizer 'cnn'"):
        BUILT_IN.get("optimizer", "cnn")


def test_defaults_exist() -> None:
    for kind, name in DEFAULT_COMPONENTS.items():
        assert BUILT_IN.get(kind, name)  # type: ignore[arg-type]  # a selector is a kind
    assert set(DATASET_IMAGES) == set(BUILT_IN.names("dataset"))


@pytest.mark.parametrize(
    ("one", "other", "equal"), [(1, 1.0, True), (True, 1, False), (False, 0, False), (True, True, True), ("1", 1, False)]
)
def test_true_is_not_one(one: Scalar, other: Scalar, equal: bool) -> None:
    assert same(one, other) is equal


@pytest.mark.parametrize(
    ("name", "hint"), [("epoch", "Did you mean 'epochs'?"), ("zzz", "Known: epochs, lr."), ("e" * 100_000, "Known: epochs, lr.")]
)
def test_closest_name_or_all_names_are_suggested(name: str, hint: str) -> None:
    assert did_you_mean(name, ["epochs", "lr", "epochs"]) == hint
    assert did_you_mean(name, []) == ""
