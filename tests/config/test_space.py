"""The search space: sampling, replay, defaults and fingerprint."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from hpsearch.config.components import BUILT_IN, SELECTORS, Component, Option, Scalar
from hpsearch.config.distributions import Fixed
from hpsearch.config.space import Space
from hpsearch.config.space_parser import read_space
from hpsearch.config.study_file import load_study_file, shipped_study_files
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import ConfigError, StudyFileError
from tests.support.random_spaces import Table, changed, conditions, entries, rewritten, tables

TRIALS = 4
SEEDS = st.integers(0, 2**32 - 1)


def space_of(table: Table) -> Space:
    return read_space(table, catalog=BUILT_IN)


def ask(space: Space, seed: int, trials: int = TRIALS) -> list[tuple[optuna.Trial, dict[str, Scalar]]]:
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    return [(trial, space.sample(trial)) for trial in (study.ask() for _ in range(trials))]


def allows(entry: Any, value: Scalar) -> bool:
    """Return what an entry of a study file allows, computed without hpsearch."""
    if not isinstance(entry, dict):
        return bool(value == entry)
    if "choices" in entry:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in entry["choices"])
    low, high = entry.get("float") or entry["int"]
    if isinstance(value, bool | str) or not low <= value <= high or ("int" in entry and not isinstance(value, int)):
        return False
    steps = (Fraction(str(value)) - Fraction(str(low))) / Fraction(str(entry["step"])) if "step" in entry else Fraction(0)
    return abs(steps - round(steps)) < Fraction(1, 10**6)


@given(tables(), SEEDS)
def test_sampled_values_are_allowed_by_the_file(table: Table, seed: int) -> None:
    written = entries(table)
    for _, values in ask(space_of(table), seed):
        assert [name for name, value in values.items() if name in written and not allows(written[name], value)] == []


@given(tables(), SEEDS)
def test_parameter_exists_exactly_where_its_conditions_hold(table: Table, seed: int) -> None:
    for _, values in ask(space_of(table), seed):
        for name in entries(table):
            holds = all(parent in values and values[parent] in allowed for parent, allowed in conditions(table, name).items())
            assert (name in values) == holds


@given(tables(), SEEDS)
def test_fixed_value_is_never_sampled(table: Table, seed: int) -> None:
    space = space_of(table)
    fixed = {parameter.name for parameter in space if isinstance(parameter.distribution, Fixed)}
    for trial, values in ask(space, seed):
        assert set(trial.params) == set(values) - fixed


@given(tables(), SEEDS)
def test_replay_gives_the_same_values_and_the_same_config(table: Table, seed: int) -> None:
    space = space_of(table)
    for trial, values in ask(space, seed):
        again = space.sample(FixedTrial(trial.params))
        assert again == values
        assert space.config(again, seed=seed) == space.config(values, seed=seed)
        assert space.config(again, seed=seed).digest == space.config(values, seed=seed).digest


@given(tables(), SEEDS)
def test_replay_from_stored_json_gives_the_same_config(table: Table, seed: int) -> None:
    space = space_of(table)
    for trial, values in ask(space, seed, trials=1):
        again = space.sample(FixedTrial(json.loads(json.dumps(trial.params))))
        assert space.config(again, seed=1).digest == space.config(values, seed=1).digest


@given(tables(), SEEDS)
def test_config_survives_json(table: Table, seed: int) -> None:
    space = space_of(table)
    for _, values in ask(space, seed):
        config = space.config(values, seed=seed)
        again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert again.digest == config.digest


@given(tables(), SEEDS)
def test_config_holds_every_sampled_value_and_defaults_for_the_rest(table: Table, seed: int) -> None:
    space = space_of(table)
    for _, values in ask(space, seed):
        config = space.config(values, seed=seed)
        for kind in SELECTORS:
            chosen = getattr(config, kind)
            set_here = {space[name].option: value for name, value in values.items() if space[name].owner == kind}
            defaults = {option.name: option.default for option in BUILT_IN.get(kind, chosen.name).options}
            assert dict(chosen.options) == {**defaults, **set_here}


@given(tables(), SEEDS)
def test_a_sampled_point_is_complete(table: Table, seed: int) -> None:
    space = space_of(table)
    for trial, values in ask(space, seed):
        assert space.complete(values) == values
        assert space.complete({}, start=values) == values
        assert space.complete(trial.params) == values


@given(tables(), SEEDS)
def test_unconditional_parameters_are_in_every_trial(table: Table, seed: int) -> None:
    space = space_of(table)
    always = {parameter.name for parameter in space.searched} - {parameter.name for parameter in space.conditional}
    for _, values in ask(space, seed):
        assert always <= set(values)


@given(tables(), SEEDS)
def test_optuna_accepts_the_space_without_a_warning(table: Table, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for trial, _ in ask(space_of(table), seed, trials=1):
            for distribution in trial.distributions.values():
                # The choices of one parameter must be the same list in every trial, or Optuna refuses the second.
                assert not isinstance(distribution, CategoricalDistribution) or distribution.choices == tuple(sorted(distribution.choices))


# The fingerprint


@given(st.data())
def test_order_of_keys_and_choices_does_not_matter(data: st.DataObject) -> None:
    table = data.draw(tables())
    one, other = space_of(table), space_of(rewritten(table, data.draw))
    assert one.fingerprint == other.fingerprint
    assert one.to_plain() == other.to_plain()
    assert [values for _, values in ask(one, 3)] == [values for _, values in ask(other, 3)]


@given(tables())
def test_every_real_change_changes_the_fingerprint(table: Table) -> None:
    before = space_of(table).fingerprint
    seen = 0
    for what, other in changed(table):
        try:
            after = space_of(other)
        except StudyFileError:
            continue
        seen += 1
        # A component that is the default may as well be left out.
        default = what.removeprefix("drop ") in SELECTORS
        assert after.fingerprint != before or default, what
    assume(seen)


@given(tables())
def test_fingerprint_survives_json(table: Table) -> None:
    space = space_of(table)
    assert json.loads(json.dumps(space.to_plain())) == space.to_plain()


BASE: Table = {
    "optimizer": {"choices": ["sgd", "adam"]},
    "batch_size": {"choices": [64, 128]},
    "dropout": {"float": [0.0, 0.5]},
    "sgd": {"lr": {"choices": [1.0, 2.0]}, "nesterov": {"choices": [True, False]}},
    "extra": {"when": {"optimizer": ["sgd", "adam"], "batch_size": [64]}, "flip": True},
    "late": {"when": {"sgd.lr": [1.0, 2.0]}, "shift": {"int": [0, 4]}},
}


@pytest.mark.parametrize(
    "edit",
    [
        lambda table: table["dropout"].update(float=[0, 0.5]),
        lambda table: table["dropout"].update(float=[-0.0, 0.5]),
        lambda table: table["dropout"].update(log=False),
        lambda table: table["sgd"].update(lr={"choices": [2, 1]}),
        lambda table: table.update(model="cnn", schedule="constant"),
        lambda table: table["extra"].update(when={"batch_size": 64, "optimizer": ["adam", "sgd", "adam"]}),
        lambda table: table["late"].update(when={"sgd.lr": [2, 1]}),
        lambda table: table["late"].update(when={"sgd": {"lr": [1.0, 2.0]}}),
        lambda table: table["late"].update(shift={"int": [0, 4], "step": 1}),
    ],
    ids=["int bound", "-0.0", "log = false", "ints among floats", "defaults", "value twice", "ints in a condition", "nested", "step = 1"],
)
def test_two_spellings_of_one_space_have_one_fingerprint(edit: Callable[[Table], None]) -> None:
    other = json.loads(json.dumps(BASE))
    edit(other)
    assert space_of(other).to_plain() == space_of(BASE).to_plain()
    assert space_of(other).fingerprint == space_of(BASE).fingerprint


def test_true_is_not_one() -> None:
    one, other = (space_of({"cnn": {"batch_norm": True}, "shift": 1}), space_of({"cnn": {"batch_norm": False}, "shift": 1}))
    assert one.fingerprint != other.fingerprint


# Points from given values

SPACE = space_of(
    {
        "model": {"choices": ["cnn", "lenet5"]},
        "optimizer": {"choices": ["sgd", "adam"]},
        "epochs": {"int": [4, 12]},
        "schedule": "cosine",
        "cnn": {"dropout": {"float": [0.0, 0.6]}},
        "sgd": {"lr": {"float": [0.001, 0.3], "log": True}},
        "adam": {"lr": {"float": [0.0001, 0.01], "log": True}},
    }
)


def test_parameter_that_is_left_out_has_its_default() -> None:
    assert SPACE.complete({}) == {
        "model": "cnn",
        "optimizer": "adam",
        "schedule": "cosine",
        "epochs": 10,
        "cnn.dropout": 0.5,
        "adam.lr": 0.001,
    }


def test_option_name_means_the_parameter_that_exists() -> None:
    assert SPACE.complete({"optimizer": "sgd", "lr": 0.2})["sgd.lr"] == 0.2
    assert SPACE.complete({"lr": 0.002})["adam.lr"] == 0.002


def test_start_value_is_kept_if_the_parameter_exists() -> None:
    start = SPACE.complete({"optimizer": "sgd", "lr": 0.2, "epochs": 7})
    point = SPACE.complete({"optimizer": "adam"}, start=start)
    assert (point["epochs"], point["adam.lr"], "sgd.lr" in point) == (7, 0.001, False)


def test_whole_number_becomes_a_float_in_a_float_range() -> None:
    assert repr(SPACE.complete({"dropout": 0})["cnn.dropout"]) == "0.0"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epochs": 13}, r"epochs must lie in its range \(4 to 12\), but is 13"),
        ({"epochs": 4.0}, r"epochs must lie in its range .* 4\.0"),
        ({"epochs": True}, "epochs must lie in its range .* true"),
        ({"epochs": "5"}, "epochs must lie in its range .* '5'"),
        ({"dropout": float("nan")}, r"cnn\.dropout must lie in its range .* nan"),
        ({"dropout": float("inf")}, r"cnn\.dropout must lie in its range .* inf"),
        ({"dropout": 10**400}, r"cnn\.dropout must lie in its range .* digits"),
        ({"model": "resnet"}, "model must lie in its range"),
        ({"schedule": "constant"}, r"schedule must lie in its range \(cosine\)"),
        ({"sgd.lr": 0.1}, r"sgd\.lr exists only when optimizer is sgd"),
        ({"lr": 0.001, "adam.lr": 0.001}, r"'lr' and 'adam\.lr' are the same parameter"),
        ({"epoch": 5}, "'epoch' is no parameter"),
        ({"\0" * 1000: 5}, "is no parameter"),
    ],
)
def test_point_outside_the_space_is_refused(given: dict[str, Scalar], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        SPACE.complete(given)
    assert len(caught.value.message) < 300


def test_default_outside_the_range_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"epochs's default must lie in its range .*10"):
        space_of({"epochs": {"int": [1, 3]}}).complete({})


def test_option_name_of_two_parameters_is_refused() -> None:
    net = Component(kind="model", name="net", options=(Option(name="lr", default=0.1),))
    space = read_space({"model": "net", "net": {"lr": 0.1}, "adam": {"lr": 0.1}}, catalog=BUILT_IN.extended([net]))
    with pytest.raises(ConfigError, match=r"'lr' could be (net|adam)\.lr or (net|adam)\.lr") as caught:
        space.complete({"lr": 0.1})
    assert caught.value.hint == "Write the whole name."
    assert space.complete({"net.lr": 0.1})["net.lr"] == 0.1


# Conditions on conditional parameters


def test_fixed_value_of_a_conditional_table_makes_conditional() -> None:
    table = {
        "optimizer": {"choices": ["sgd", "adam"]},
        "sgd": {"nesterov": True},
        "x": {"when": {"sgd.nesterov": True}, "shift": {"int": [0, 2]}},
    }
    assert [parameter.name for parameter in space_of(table).conditional] == ["x.shift"]


def test_condition_that_always_holds_makes_nothing_conditional() -> None:
    table = {"optimizer": {"choices": ["sgd", "adam"]}, "x": {"when": {"optimizer": ["adam", "sgd"]}, "shift": {"int": [0, 2]}}}
    assert space_of(table).conditional == ()


@pytest.mark.parametrize("path", [path for path in shipped_study_files() if "use " not in path.read_text()], ids=lambda path: path.stem)
def test_shipped_space_replays(path: Path) -> None:
    space = load_study_file(path).space
    for trial, values in ask(space, 5, trials=20):
        assert space.sample(FixedTrial(trial.params)) == values


@pytest.mark.parametrize(
    ("table", "points"),
    [
        ({}, 1),
        ({"batch_size": {"choices": [32, 64]}}, 2),
        ({"batch_size": {"int": [10, 30], "step": 10}, "optimizer": "sgd", "lr": {"float": [0.1, 0.3], "step": 0.1}}, 9),
        ({"optimizer": {"choices": ["sgd", "adam"]}, "sgd": {"nesterov": {"choices": [True, False]}}, "epochs": {"int": [1, 3]}}, 9),
        ({"epochs": {"int": [5, 5]}, "optimizer": "sgd", "lr": {"float": [0.1, 0.1]}}, 1),
        ({"optimizer": {"choices": ["sgd", "adam"]}, "adam": {"lr": {"float": [0.1, 0.2]}}}, 10**9),
        ({"model": {"choices": ["cnn", "lenet5"]}, "x": {"when": {"model": "cnn"}, "batch_size": {"int": [1, 60_000]}}, "epochs": {"int": [1, 99]}}, 10**9),
    ],
)  # fmt: skip
def test_points_of_a_small_space_are_counted(table: Table, points: int) -> None:
    space = read_space(table, catalog=BUILT_IN)
    found = space.count_points(1000)
    assert found == points if points <= 1000 else found > 1000


@given(tables())
def test_no_space_has_more_points_than_are_counted(table: Table) -> None:
    space = read_space(table, catalog=BUILT_IN)
    points = space.count_points(20)
    if points < 20:  # otherwise twenty draws cannot be too many
        study = optuna.create_study(sampler=RandomSampler(seed=1))
        assert len({json.dumps(space.sample(study.ask()), sort_keys=True) for _ in range(20)}) <= points
