"""Options that a study leaves at their defaults, and unfair comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hpsearch.config.components import BUILT_IN
from hpsearch.config.fairness import unfair_comparisons, unsearched_defaults, wasted_settings
from hpsearch.config.sections import Budget, Pruner
from hpsearch.config.space_parser import read_space
from hpsearch.config.study_file import StudyFile

TWO = {"optimizer": {"choices": ["sgd", "adam"]}}
LR = {"float": [0.001, 0.1], "log": True}


def warnings(table: dict[str, Any]) -> tuple[str, ...]:
    return unfair_comparisons(read_space(table, catalog=BUILT_IN))


def test_option_searched_for_one_component_and_default_for_another_is_unfair() -> None:
    (warning,) = warnings({**TWO, "sgd": {"lr": LR}})
    assert "`lr` is searched for sgd, but fixed for adam" in warning


def test_option_fixed_for_another_component_is_unfair_too() -> None:
    assert len(warnings({**TWO, "sgd": {"lr": LR}, "adam": {"lr": 0.001}})) == 1


@pytest.mark.parametrize(
    "table",
    [
        {**TWO, "sgd": {"lr": LR}, "adam": {"lr": LR}},
        {**TWO, "lr": LR},
        {**TWO, "both": {"when": {"optimizer": ["sgd", "adam"]}, "lr": LR}},
        {**TWO, "sgd": {"momentum": {"float": [0.0, 0.9]}}},
        {**TWO, "sgd": {"lr": 0.1}},
        {"optimizer": "sgd", "lr": LR},
        {"optimizer": {"choices": ["sgd"]}, "sgd": {"lr": LR}},
    ],
    ids=["own tables", "top level", "one label", "an option of one alone", "both fixed", "one optimizer", "one choice"],
)
def test_fair_comparison_has_no_warning(table: dict[str, Any]) -> None:
    assert warnings(table) == ()


def test_condition_on_a_conditional_parameter_counts_for_its_component() -> None:
    table = {**TWO, "sgd": {"nesterov": {"choices": [True, False]}}, "x": {"when": {"sgd.nesterov": True}, "lr": LR}}
    assert any("`lr` is searched for sgd, but fixed for adam" in warning for warning in warnings(table))


def test_unsearched_options_are_listed_with_their_defaults_by_owner() -> None:
    found = unsearched_defaults(read_space({**TWO, "epochs": 5, "sgd": {"lr": LR}}, catalog=BUILT_IN))
    assert "epochs" not in found["the trainer"]
    assert found["the trainer"]["batch_size"] == 128
    assert "lr" not in found["sgd"]
    assert found["adam"]["lr"] == 0.001
    assert found["cnn"]["dropout"] == 0.5


def test_owner_whose_options_are_all_searched_is_not_listed() -> None:
    assert "constant" not in unsearched_defaults(read_space({}, catalog=BUILT_IN))


def test_a_space_smaller_than_the_budget_is_counted(study_file: Callable[..., StudyFile]) -> None:
    space = read_space({"batch_size": {"choices": [32, 64]}}, catalog=BUILT_IN)
    file = replace(study_file(), space=space, pruner=Pruner(kind="none"))
    assert wasted_settings(file, Budget(trials=2)) == ()
    (warning,) = wasted_settings(file, Budget(trials=7))
    assert warning.startswith(
        "the space has only 2 different points, but the budget is 7 trials: the same configurations are trained again"
    )


def test_settings_that_can_only_act_after_the_budget_are_named(study_file: Callable[..., StudyFile]) -> None:
    for trials, setting in ((20, {"stop": "auto"}), (20, {"balance": "until_behind"})):
        (warning,) = wasted_settings(study_file(), Budget.model_validate({"trials": trials, **setting}))
        assert warning.startswith(f"`{next(iter(setting))}` ends nothing: it acts after 20 trials at the earliest, but the budget is 20 ")
        assert wasted_settings(study_file(), Budget.model_validate({"trials": trials + 1, **setting})) == ()
        pausing = replace(study_file(), pruner=Pruner(kind="asha"))
        assert wasted_settings(pausing, Budget.model_validate({"epochs": trials, **setting})) == ()


@pytest.mark.parametrize(
    ("kind", "schedule", "epochs", "warns"),
    [
        ("hyperband", '"onecycle"', "{ int = [2, 4] }", True),
        ("halving", '{ choices = ["constant", "cosine"] }', "{ choices = [2, 4] }", True),
        ("halving", '"constant"', "{ int = [2, 4] }", False),
        ("hyperband", '"onecycle"', "4", False),
        ("median", '"onecycle"', "{ int = [2, 4] }", False),
    ],
)
def test_a_pruner_that_compares_trainings_of_different_length_is_named(
    study_file: Callable[..., StudyFile], kind: str, schedule: str, epochs: str, warns: bool
) -> None:
    file = study_file(("epochs = { int = [2, 4] }", f"epochs = {epochs}\nschedule = {schedule}"), ("epochs = 3\n", "epochs = 4\n"))
    found = wasted_settings(replace(file, pruner=Pruner.model_validate({"kind": kind})), Budget(trials=8))
    assert [f"{kind} compares trials after equal epochs, but `epochs` differs" in warning for warning in found] == ([True] if warns else [])


@pytest.mark.parametrize(
    ("space", "warns", "longest"),
    [
        ({"cnn": {"epochs": 7}, "lenet5": {"epochs": 12}}, False, 12),  # a pruner compares trials of one model only
        ({"sgd": {"epochs": 3}}, True, 10),  # adam has the default
        ({"sgd": {"epochs": 3}, "adam": {"epochs": 3}}, False, 3),
        ({"sgd": {"epochs": 3}, "adam": {"epochs": 4}}, True, 4),
        ({"deep": {"when": {"cnn.batch_norm": True}, "epochs": 11}, "cnn": {"batch_norm": {"choices": [True, False]}}}, True, 11),
    ],
)
def test_lengths_that_depend_on_other_values_are_told_apart(
    study_file: Callable[..., StudyFile], space: dict[str, Any], warns: bool, longest: int
) -> None:
    table = {"model": {"choices": ["cnn", "lenet5"]}, "optimizer": {"choices": ["sgd", "adam"]}, "schedule": "cosine", **space}
    file = replace(study_file(), space=read_space(table, catalog=BUILT_IN), pruner=Pruner(kind="hyperband"))
    assert any("equal epochs" in warning for warning in wasted_settings(file, Budget(trials=8))) == warns
    assert file.space.max_epochs == longest


def test_asha_needs_no_long_training(study_file: Callable[..., StudyFile]) -> None:
    file = study_file(("epochs = { int = [2, 4] }", "epochs = 1"), ("epochs = 3", "epochs = 1"))
    assert any("never prunes" in line for line in wasted_settings(replace(file, pruner=Pruner(kind="median")), Budget(trials=10)))
    assert not any("never prunes" in line for line in wasted_settings(replace(file, pruner=Pruner(kind="asha")), Budget(trials=10)))
