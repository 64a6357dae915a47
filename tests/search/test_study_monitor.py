"""Rules of the study monitor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.trial import FrozenTrial

from hpsearch.search.study_monitor import StudyMonitor
from hpsearch.search.worker import Worker
from hpsearch.storage.records import read_trials
from hpsearch.workflows.supervisor import Search


def test_an_ended_trial_is_reported_once(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    monitor = StudyMonitor(search.store, search.study)
    assert monitor.read_progress().ended == ()
    assert monitor.read_progress().counts == {"waiting": 1}
    make_worker(search).work()
    progress = monitor.read_progress()
    assert list(progress.ended) == read_trials(search.study)
    assert progress.counts == {"complete": 8}
    assert progress.finished == 8
    assert progress.epochs == sum(len(trial.epochs) for trial in read_trials(search.study)) > 8
    again = monitor.read_progress()
    assert again.ended == ()
    assert (again.counts, again.best, again.epochs) == (progress.counts, progress.best, progress.epochs)


def test_the_best_is_the_first_of_the_leaderboard(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    monitor = StudyMonitor(search.store, search.study)
    make_worker(search).work()
    best = monitor.read_progress().best
    assert best is not None
    assert best.value == max(trial.value for trial in read_trials(search.study) if trial.value is not None)


def test_trials_that_ended_before_are_not_reported(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    make_worker(search).work()
    progress = StudyMonitor(search.store, search.study).read_progress()
    assert progress.ended == ()
    assert progress.finished == 8
    assert progress.best is not None


def test_a_running_trial_is_reported_with_its_worker(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    monitor = StudyMonitor(search.store, search.study)
    claim = make_worker(search, name="one").claimer.claim()
    assert claim is not None
    (running,) = monitor.read_progress().running
    assert running.number == claim.trial.number
    assert monitor.has_claimed("one")
    assert not monitor.has_claimed("another")
    claim.lease.release()


def test_a_worker_that_claimed_a_trial_is_known_after_its_end(searched: Callable[..., Search], make_worker: Callable[..., Worker]) -> None:
    search = searched()
    monitor = StudyMonitor(search.store, search.study)
    make_worker(search, name="one").work()
    assert monitor.has_claimed("one")
    assert len(monitor.read_progress().ended) == 8


def test_finished_trials_are_read_once(
    searched: Callable[..., Search], make_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searched()
    monitor = StudyMonitor(search.store, search.study)
    make_worker(search).work()
    read: list[int] = []
    changed = search.store.storage.read_trials

    def counted(study_id: int, **known: object) -> list[FrozenTrial]:
        trials = changed(study_id, **known)  # type: ignore[arg-type]
        read.append(len(trials))
        return trials

    monkeypatch.setattr(search.store.storage, "read_trials", counted)
    for _ in range(3):
        monitor.read_progress()
    assert read == [8, 0, 0]


def test_a_deleted_study_is_a_key_error(searched: Callable[..., Search]) -> None:
    search = searched()
    monitor = StudyMonitor(search.store, search.study)
    search.store.delete("small")
    with pytest.raises(KeyError):
        monitor.read_progress()
