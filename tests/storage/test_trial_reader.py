"""All trials of a study are read at once, as Optuna reads them."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.storage.records import TrialKey, TrialRow, read_trials, write_epochs
from hpsearch.workflows.supervisor import Search
from tests.support.fake_trainer import fake_epoch

pytestmark = pytest.mark.usefixtures("any_optuna")


def test_all_trials_are_those_that_optuna_reads(searched: Callable[..., Search]) -> None:
    search = searched()
    study, space = search.study, search.file.space
    search.store.create("another").add_trial(optuna.trial.create_trial(value=0.5))
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, None)
    for state in states:
        trial = study.ask()
        trial.set_user_attr(TrialKey.ATTEMPTS, [])
        config = space.config(space.sample(trial), seed=1)
        epochs = [fake_epoch(config, number) for number in (1, 2)]
        write_epochs(trial, epochs)
        for epoch in epochs:
            trial.report(epoch.val_accuracy, epoch.number)
        trial.set_user_attr(TrialKey.END, {"reason": "a 'quoted' → reason"})
        if state is not None:
            study.tell(trial, epochs[-1].val_accuracy if state == TrialState.COMPLETE else None, state=state)
    study.enqueue_trial({"model": "cnn"})
    rows = read_trials(study)
    assert [row.state for row in rows] == ["complete", "pruned", "fail", "running", "waiting"]
    assert rows == [TrialRow.from_trial(trial) for trial in study.get_trials(deepcopy=False)]
    assert [list(row.params) for row in rows] == [list(TrialRow.from_trial(trial).params) for trial in study.get_trials(deepcopy=False)]


def test_a_value_without_bounds_is_read_as_it_is(searched: Callable[..., Search]) -> None:
    study = searched().study
    for value in (float("inf"), float("-inf")):
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs={TrialKey.ATTEMPTS: []}))
    assert [row.value for row in read_trials(study)][-2:] == [float("inf"), float("-inf")]


def test_a_study_that_is_no_more_is_a_key_error(searched: Callable[..., Search]) -> None:
    search = searched()
    search.store.delete("small")
    with pytest.raises(KeyError):
        read_trials(search.study)
