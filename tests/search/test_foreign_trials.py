"""Rules of trials that another program made in a study of hpsearch: the search neither trains them, nor learns or ranks by them."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import Trial, TrialState

from hpsearch.analysis.leaderboard import rank
from hpsearch.search.study_monitor import StudyMonitor
from hpsearch.search.worker import Worker
from hpsearch.storage.records import TrialKey, read_trial, read_trials
from hpsearch.workflows.export import why_unusable
from hpsearch.workflows.resume import queue_failed_again
from hpsearch.workflows.run import prepare_search
from hpsearch.workflows.supervisor import Search

NO_BASELINE = ('[[baseline]]\nmodel = "lenet5"\noptimizer = "sgd"\nepochs = 3\n', "")


def asked_elsewhere(search: Search) -> Trial:
    """A trial that `optuna ask` began."""
    theirs = optuna.load_study(study_name=search.file.name, storage=search.store.rdb)
    return theirs.ask({"x": FloatDistribution(0, 1), "model": CategoricalDistribution(["cnn", "lenet5"])})


@pytest.mark.parametrize("told", [False, True], ids=["still running", "with a value"])
def test_a_trial_that_another_program_asked_for_is_no_part_of_the_search(
    told: bool, searched: Callable[..., Search], make_worker: Callable[..., Worker]
) -> None:
    search = searched(NO_BASELINE, trials=4)
    theirs = asked_elsewhere(search)
    if told:
        optuna.load_study(study_name="small", storage=search.store.rdb).tell(theirs.number, 0.999)
    assert make_worker(search).work() == 4
    again = prepare_search(search.file, search.workspace, trials=6)
    assert (again.requeued, again.earlier) == ((), 4)
    assert make_worker(again).work() == 2
    trials = read_trials(search.study)
    assert [trial.number for trial in trials] == [1, 2, 3, 4, 5, 6]
    assert all("x" not in trial.params for trial in trials)
    assert max(trial.value or 0.0 for trial in trials) < 0.999
    best = rank(trials)[0]
    assert search.workspace.paths.study("small").trial(best.number).checkpoint.exists()
    stored = search.study.trials[theirs.number]
    assert stored.state == (TrialState.COMPLETE if told else TrialState.RUNNING)
    assert TrialKey.ATTEMPTS not in stored.user_attrs
    progress = StudyMonitor(search.store, search.study).read_progress()
    assert (progress.total, progress.finished, progress.running) == (6, 6, ())
    assert progress.best is not None
    assert progress.best.number == best.number
    assert again.is_spent


def test_a_failed_trial_of_another_program_is_not_tried_again(searched: Callable[..., Search]) -> None:
    search = searched(NO_BASELINE)
    theirs = asked_elsewhere(search)
    optuna.load_study(study_name="small", storage=search.store.rdb).tell(theirs.number, state=TrialState.FAIL)
    assert queue_failed_again(search.study) == []


def test_a_trial_of_another_program_is_shown_by_its_number_alone(searched: Callable[..., Search]) -> None:
    search = searched(NO_BASELINE)
    theirs = asked_elsewhere(search)
    optuna.load_study(study_name="small", storage=search.store.rdb).tell(theirs.number, 0.999)
    trial = read_trial(search.study, theirs.number)
    assert trial.value == 0.999
    assert why_unusable(trial) == "belongs to another program"


def test_a_trial_that_another_program_queued_is_trained(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched(NO_BASELINE)
    optuna.load_study(study_name="small", storage=search.store.rdb).enqueue_trial({"model": "cnn", "epochs": 2})
    assert make_worker(search).work() == 8
    first = read_trials(search.study)[0]
    assert (first.state, first.params["model"], first.params["epochs"]) == ("complete", "cnn", 2)


def test_a_trial_belongs_to_the_search_from_its_first_moment(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched(NO_BASELINE)
    begun = make_worker(search).claimer.source.begin([])
    assert begun is not None
    assert prepare_search(search.file, search.workspace).requeued == (begun.number,)
