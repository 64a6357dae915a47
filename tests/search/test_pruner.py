"""Rules of pruning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import MedianPruner, PercentilePruner
from optuna.trial import TrialState

from hpsearch.config.components import BUILT_IN
from hpsearch.config.fairness import wasted_settings
from hpsearch.config.sections import Budget, Pruner
from hpsearch.config.space_parser import read_space
from hpsearch.config.study_file import StudyFile
from hpsearch.search.pruner import make_pruner
from hpsearch.storage.records import TrialKey


def _study(file: StudyFile, section: Pruner) -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=make_pruner(section, file.space))


def _add(study: optuna.Study, model: str, curve: Sequence[float], *, own: bool = True, epochs: int | None = None) -> None:
    choices, lengths = optuna.distributions.CategoricalDistribution(["cnn", "lenet5"]), optuna.distributions.IntDistribution(1, 12)
    values = dict(enumerate(curve, start=1))
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            value=curve[-1],
            params={"model": model, "epochs": epochs or len(curve)},
            distributions={"model": choices, "epochs": lengths},
            intermediate_values=values,
            user_attrs={TrialKey.ATTEMPTS: []} if own else {},
        )
    )


def _pruned_at(study: optuna.Study, model: str, curve: Sequence[float], *, epochs: int | None = None) -> int | None:
    """Report a curve of a trial, by default of all its epochs, and return the epoch after which it is pruned."""
    study.enqueue_trial({"model": model, "epochs": epochs or len(curve) or 1})
    trial = study.ask()
    trial.set_user_attr(TrialKey.ATTEMPTS, [])
    trial.suggest_categorical("model", ["cnn", "lenet5"])
    trial.suggest_int("epochs", 1, 12)
    for epoch, value in enumerate(curve, start=1):
        trial.report(value, epoch)
        if trial.should_prune():
            return epoch
    return None


MEDIAN = Pruner(kind="median", startup_trials=2, warmup_epochs=0)


def test_a_weak_trial_is_pruned_among_its_own_model(study_file: Callable[..., StudyFile]) -> None:
    study = _study(study_file(), MEDIAN)
    for _ in range(3):
        _add(study, "cnn", [0.8, 0.85, 0.9])
    assert _pruned_at(study, "cnn", [0.5, 0.6, 0.7]) == 1


def test_no_trial_is_pruned_by_the_curves_of_another_program(study_file: Callable[..., StudyFile]) -> None:
    study = _study(study_file(), MEDIAN)
    for _ in range(3):
        _add(study, "cnn", [0.8, 0.85, 0.9], own=False)
    assert _pruned_at(study, "cnn", [0.5, 0.6, 0.7]) is None


def test_a_model_is_not_pruned_by_the_curves_of_another(study_file: Callable[..., StudyFile]) -> None:
    study = _study(study_file(), MEDIAN)
    for _ in range(3):
        _add(study, "cnn", [0.8, 0.85, 0.9])
    assert _pruned_at(study, "lenet5", [0.5, 0.6, 0.7]) is None


@pytest.mark.parametrize("kind", ["halving", "hyperband"])
def test_a_model_is_not_pruned_by_the_rungs_of_another(study_file: Callable[..., StudyFile], kind: str) -> None:
    section = Pruner(kind=kind, min_epochs=1, reduction_factor=2)
    study, alone = _study(study_file(), section), _study(study_file(), section)
    for _ in range(20):
        _pruned_at(study, "cnn", [0.8, 0.85, 0.9, 0.9])
    for workspace in range(8):
        weak = [0.5 + 0.01 * workspace, 0.6, 0.7, 0.7]
        # Brackets go by number.
        while len(alone.trials) < len(study.trials):
            _pruned_at(alone, "cnn", [])
        assert _pruned_at(study, "lenet5", weak) == _pruned_at(alone, "lenet5", weak)


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_no_trial_is_pruned_in_its_warmup_epochs(study_file: Callable[..., StudyFile], warmup: int) -> None:
    study = _study(study_file(), Pruner(kind="median", startup_trials=2, warmup_epochs=warmup))
    for _ in range(3):
        _add(study, "cnn", [0.8, 0.85, 0.9, 0.9])
    assert _pruned_at(study, "cnn", [0.5, 0.5, 0.5, 0.5]) == warmup + 1


def test_enough_trials_must_have_reached_the_share(study_file: Callable[..., StudyFile]) -> None:
    study = _study(study_file(), Pruner(kind="median", startup_trials=2, warmup_epochs=0, min_trials=3))
    for _ in range(2):
        _add(study, "cnn", [0.8, 0.9])
    assert _pruned_at(study, "cnn", [0.2, 0.3, 0.3, 0.9]) is None
    _add(study, "cnn", [0.8, 0.9])
    # The first epoch of 2 is half of the training. Before it, there is nothing to compare with.
    assert _pruned_at(study, "cnn", [0.2, 0.3, 0.3, 0.3]) == 2
    assert _pruned_at(study, "cnn", [0.2, 0.81, 0.82, 0.9]) == 3


LONG = [0.80, 0.84, 0.862, 0.87, 0.875, 0.88, 0.885, 0.89, 0.895, 0.90, 0.905, 0.91]
SHORT = [0.82, 0.86, 0.884]
"""One-cycle schedules: the learning rate of the long training is still high where the short training ends."""


def test_a_long_training_is_not_pruned_by_short_ones(study_file: Callable[..., StudyFile]) -> None:
    ours, optunas = _study(study_file(), MEDIAN), optuna.create_study(direction="maximize", pruner=MedianPruner(n_startup_trials=2))
    for study in (ours, optunas):
        for _ in range(3):
            _add(study, "cnn", SHORT)
    assert _pruned_at(ours, "cnn", LONG) is None
    assert _pruned_at(optunas, "cnn", LONG) == 1
    # A long training that is worse at the same share is pruned: a quarter of the epochs of the short ones ends before their first.
    assert _pruned_at(ours, "cnn", [0.5, 0.6, 0.7, 0.8, *LONG[4:]]) == 4


def test_it_compares_between_two_epochs_of_another_training(study_file: Callable[..., StudyFile]) -> None:
    study = _study(study_file(), MEDIAN)
    for _ in range(2):
        _add(study, "cnn", [0.6, 0.8])
    # Three quarters of two epochs lie in the middle between both.
    assert _pruned_at(study, "cnn", [0.1, 0.65, 0.7001, 0.9], epochs=4) is None
    assert _pruned_at(study, "cnn", [0.1, 0.65, 0.6999, 0.9], epochs=4) == 3


def test_a_diverged_training_is_compared_at_its_own_epochs(study_file: Callable[..., StudyFile]) -> None:
    """It ends early, as complete. Its last epoch is not the end of its schedule."""
    study = _study(study_file(), MEDIAN)
    _add(study, "cnn", [0.5, 0.6, 0.7, 0.8])
    for _ in range(2):
        _add(study, "cnn", [0.3, 0.1], epochs=4)
    assert _pruned_at(study, "cnn", [0.4, 0.4, 0.4, 0.4]) == 3


@given(
    curves=st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=4), min_size=1, max_size=12),
    startup=st.integers(0, 3),
    warmup=st.integers(0, 2),
    least=st.integers(1, 4),
    percentile=st.sampled_from([10.0, 25.0, 50.0, 75.0]),
)
def test_trainings_of_equal_length_are_pruned_as_by_optuna(
    curves: list[list[int]], startup: int, warmup: int, least: int, percentile: float
) -> None:
    section = Pruner(kind="percentile", percentile=percentile, startup_trials=startup, warmup_epochs=warmup, min_trials=least)
    space = read_space({"epochs": {"int": [1, 12]}, "model": {"choices": ["cnn", "lenet5"]}}, catalog=BUILT_IN)
    # Optuna may prune at its warm-up step itself.
    optunas = PercentilePruner(percentile, n_startup_trials=startup, n_warmup_steps=warmup + 1, n_min_trials=least)
    studies = [optuna.create_study(direction="maximize", pruner=pruner) for pruner in (make_pruner(section, space), optunas)]
    *others, last = ([value / 20 for value in curve] for curve in curves)
    for study in studies:
        for curve in others:
            _add(study, "cnn", [*curve, 0.5], epochs=5)
    assert len({_pruned_at(study, "cnn", last, epochs=5) for study in studies}) == 1


def test_the_epochs_of_a_trial_are_read_from_its_point(study_file: Callable[..., StudyFile]) -> None:
    space = study_file().space
    assert space.epochs({"model": "cnn", "epochs": 2}) == 2
    assert space.epochs({}) == 4  # the longest
    fixed = study_file(("epochs = { int = [2, 4] }", ""), ("epochs = 3\n", "")).space
    assert fixed.epochs({"model": "cnn", "optimizer": "sgd", "cnn.filters1": 8, "sgd.lr": 0.1}) == 10
    of_model = study_file(("epochs = { int = [2, 4] }", ""), ("epochs = 3\n", ""), ("[space.cnn]\n", "[space.cnn]\nepochs = 7\n")).space
    points = [{"model": model, "optimizer": "sgd", "cnn.filters1": 8, "sgd.lr": 0.1} for model in ("cnn", "lenet5")]
    assert [of_model.epochs(point) for point in points] == [7, 10]
    assert of_model.max_epochs == 10


@pytest.mark.parametrize("kind", ["none", "median", "percentile", "halving", "hyperband"])
def test_every_pruner_accepts_a_curve(study_file: Callable[..., StudyFile], kind: str) -> None:
    study = _study(study_file(), Pruner(kind=kind))  # type: ignore[arg-type]
    for value in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.9, 0.9):
        _add(study, "cnn", [value] * 4)
    judged = _pruned_at(study, "cnn", [0.1] * 4)
    assert judged is None if kind == "none" else judged is None or 1 <= judged <= 4


def test_the_longest_training_is_read_from_the_space(study_file: Callable[..., StudyFile]) -> None:
    assert study_file().space.max_epochs == 4
    assert study_file(("epochs = { int = [2, 4] }", ""), ("epochs = 3\n", "")).space.max_epochs == 10
    assert study_file(("epochs = { int = [2, 4] }", "epochs = { choices = [7, 3] }")).space.max_epochs == 7


@pytest.mark.parametrize(
    ("section", "trials", "warns"),
    [
        ({"kind": "hyperband", "min_epochs": 4}, 30, "with this `min_epochs` it can first prune after 4 epochs, but the longest training ends after 4"),
        ({"kind": "halving", "min_epochs": 9}, 30, "with this `min_epochs` it can first prune after 9 epochs"),
        ({"kind": "median", "warmup_epochs": 3}, 30, "with this `warmup_epochs` it can first prune after 4 epochs"),
        ({"kind": "percentile", "startup_trials": 30}, 30, "it waits for 30 complete trials, but the budget is 30 trials"),
        ({"kind": "median", "min_trials": 31}, 30, "it waits for 31 complete trials"),
        ({"kind": "hyperband", "min_epochs": 3}, 30, ""),
        ({"kind": "halving", "min_epochs": 3}, 30, ""),
        ({"kind": "median", "warmup_epochs": 2, "startup_trials": 29}, 30, ""),
        ({"kind": "none"}, 1, ""),
        ({}, 1, ""),
    ],
)  # fmt: skip
def test_a_pruner_that_cannot_prune_is_named(
    study_file: Callable[..., StudyFile], section: dict[str, Any], trials: int, warns: str
) -> None:
    file = dataclasses.replace(study_file(), pruner=Pruner(**section))
    warnings = wasted_settings(file, Budget(trials=trials))
    assert [warns in warning and warning.startswith("the pruner never prunes: ") for warning in warnings] == ([True] if warns else [])
    if trials == 1 or "waits" in warns:
        return
    # Optuna agrees: a weak trial is pruned where the pruner can prune, and only there.
    study = _study(file, file.pruner)
    for _ in range(30):
        _add(study, "cnn", [0.8, 0.85, 0.9])
    pruned = [_pruned_at(study, "cnn", [value] * 3) for value in (0.9, 0.7, 0.6, 0.5, 0.4, 0.3)]
    assert any(pruned) == (not warns)
