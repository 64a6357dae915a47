"""Claim trials. Only this module starts trials and puts interrupted trials back into the queue.

To start a trial, a worker must hold the claim lock of the study. First the worker puts interrupted trials back into the queue
and checks the budget. Then it takes a waiting trial or makes a new trial, and acquires the lease of the trial. Last it stores
the attempt and draws the values of the trial.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.paths import StudyPaths
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import LeaseLostError, StudyStoppedError
from hpsearch.formatting import show_duration
from hpsearch.search.budget import refuse_repeated_failure
from hpsearch.search.deletion import LoadedStudy
from hpsearch.search.failpoints import Failpoint, reached
from hpsearch.search.trial_source import TrialSource
from hpsearch.search.worker_pool import DeadWorker
from hpsearch.storage.database import Store
from hpsearch.storage.locks import LOCK_POLL, Lease, Locks, claim_lock, manual_lock, require_held, trial_lock
from hpsearch.storage.optuna_internals import get_study_id, get_trial_id
from hpsearch.storage.records import (
    BY_HAND,
    Death,
    TrialKey,
    is_own_trial,
    is_paused,
    read_deaths,
    read_epochs,
    write_attempt,
    write_death,
    write_end,
)

MAX_DEATHS = 3
"""A trial fails after this number of workers died at the same epoch of the trial, because the trial is then the likely cause.

A worker that was killed by SIGKILL counts only if the trial had the time to train one epoch. Otherwise a person or a script probably
killed it, and the trial is not the cause.
"""
MAX_KILLS = 10
"""A trial also fails after this number of workers died at the same epoch, whatever killed them.

Without this limit, a trial that uses all memory could be tried again without end. Linux kills each of its workers by SIGKILL within
seconds, so no death counts for MAX_DEATHS.
"""
LEASE_WAIT = 5.0
"""Seconds to wait for the lease of a waiting trial. The last worker of the trial releases the lease right after the requeue."""
CLAIM_RETRY = 0.5
"""Seconds between two tries to claim a trial, if the next trial depends on running trials."""
LOG_TAIL = 2000
"""Characters of a dead worker's log that are stored with its trial."""
READ_LOG = 100_000
"""Bytes at the end of a dead worker's log that are read."""
CRASH = "Fatal Python error"
"""The first words of the report that Python writes when it crashes."""
TRIAL_TIME = "trial_time"
"""Stored reason of a trial that was pruned because its time was over."""
TIME_SPENT = "trial_time was spent before its first epoch"
"""Stored reason of a trial that failed because its time was over."""
HALVED = "asha"
"""Stored reason of a trial that was paused, and was not among the best of its rung until the budget was spent."""
UNNEEDED = "no longer needed"
"""Stored reason of a trial of a follow-up study that was interrupted and that the plan does not need any more."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A running trial that only this process trains."""

    trial: optuna.Trial
    config: TrainConfig
    lease: Lease


@dataclass(frozen=True, kw_only=True)
class Claimer:
    """Claims trials of one study for one worker.

    Attributes:
        loaded: the study as this worker loaded it.
        source: makes new trials when no trial waits.
        run: id of this run.
        worker: name of the worker.
        only_trial: number of the only trial to claim; None for any.
        stop_requested: returns whether the worker was asked to stop.
        forget: deletes a checkpoint.
    """

    store: Store
    study: optuna.Study
    loaded: LoadedStudy
    locks: Locks
    source: TrialSource
    run: str
    paths: StudyPaths
    worker: str
    only_trial: int | None
    stop_requested: Callable[[], bool]
    forget: Callable[[Path], None]

    def claim(self) -> Claim | None:
        """Claim the next trial. Wait if the next trial depends on trials that still run.

        Returns:
            The claim, or None when nothing is left to do.

        Raises:
            StudyStoppedError: the same failure occurred again and again, or no draw was within the limits.
            StudyNotFoundError, KeyError, StorageInternalError: the study was deleted.
        """
        while True:
            # If a lock was lost, another worker may claim now. That worker requeues a trial that this worker has started.
            with suppress(LeaseLostError):
                self.store.database.require_exists()
                with self.locks.hold(claim_lock(get_study_id(self.study))) as claim_lease:
                    self.loaded.require_exists()
                    requeue_interrupted(self.store, self.study, self.locks)
                    if self.stop_requested():
                        return None
                    claim = self._claim_next(claim_lease)
                    if claim is not None or self.only_trial is not None or self.source.is_over:
                        return claim
                time.sleep(CLAIM_RETRY)

    def require_own(self, lease: Lease) -> None:
        """Raise an error if this worker must not write to a trial any more.

        Args:
            lease: the lease of the trial.

        Raises:
            LeaseLostError: the lease is lost, so another worker may have taken the trial.
            StudyNotFoundError: the study was deleted. Its ids may now belong to another study.
        """
        require_held(lease)
        self.loaded.require_exists()

    def _claim_next(self, claim_lease: Lease) -> Claim | None:
        while (trial := self._start_next(claim_lease)) is not None:
            reached(Failpoint.AFTER_ASK, trial.number)
            lease = self._acquire_lease(trial)
            if lease is None:
                requeue(self.store, get_trial_id(trial))
                return None
            try:
                reached(Failpoint.BEFORE_ATTEMPT, trial.number)
                attempts = write_attempt(trial, worker=self.worker, run=self.run, at=time.time())
                if not self._failed_as_deadly(trial, attempts):
                    return Claim(trial=trial, config=self._draw_config(trial, lease), lease=lease)
            except BaseException:
                lease.release()
                raise
            lease.release()
        return None

    def _start_next(self, claim_lease: Lease) -> optuna.Trial | None:
        """Start the first waiting trial, or a new trial."""
        trials = self.study.get_trials(deepcopy=False)
        refuse_repeated_failure(self.study.study_name, trials, self.run)
        unneeded = self.source.unneeded(trials)
        for trial in unneeded:
            self._end_unneeded(trial)
        for trial in trials:
            if trial.state != TrialState.WAITING or trial in unneeded or not self._may_take(trial):
                continue
            with suppress(UpdateFinishedTrialError):  # somebody has just failed the trial from outside
                if self.store.storage.set_trial_state_values(get_trial_id(trial), TrialState.RUNNING):
                    return optuna.Trial(self.study, get_trial_id(trial))
        if self.only_trial is not None:
            return None
        require_held(claim_lease)  # otherwise another worker may spend the same part of the budget
        return self.source.begin(trials)

    def _end_unneeded(self, waiting: FrozenTrial) -> None:
        """End a waiting trial as pruned. It does not fail, because a failure would count against its configuration."""
        trial_id = get_trial_id(waiting)
        with suppress(UpdateFinishedTrialError):
            self.store.storage.set_trial_state_values(trial_id, TrialState.RUNNING)  # so that it has a start time
            trial = optuna.Trial(self.study, trial_id)
            epochs = read_epochs(trial)
            write_end(trial, epochs, {"reason": HALVED if is_paused(waiting) else UNNEEDED})
            values = [epochs[-1].val_accuracy] if epochs and is_paused(waiting) else None
            self.store.storage.set_trial_state_values(trial_id, TrialState.PRUNED, values)
            self.forget(self.paths.trial(waiting.number).checkpoint)

    def _may_take(self, trial: FrozenTrial) -> bool:
        if self.only_trial is not None:
            return trial.number == self.only_trial
        if self.source.is_held(trial):
            return False
        # `hpsearch try` starts its own worker for the trial that it queued.
        return trial.user_attrs.get(TrialKey.ORIGIN) != BY_HAND or not _is_locked(self.locks, manual_lock(get_trial_id(trial)))

    def _acquire_lease(self, trial: optuna.Trial) -> Lease | None:
        deadline = time.monotonic() + LEASE_WAIT
        while (lease := self.locks.acquire(trial_lock(get_trial_id(trial)))) is None and time.monotonic() < deadline:
            time.sleep(LOCK_POLL)
        return lease

    def _draw_config(self, trial: optuna.Trial, lease: Lease) -> TrainConfig:
        try:
            with self.store.storage.transaction():
                config = self.source.config(trial)
                # Nothing is written yet. If the lease is lost, another worker may have drawn other values.
                self.require_own(lease)
                return config
        except StudyStoppedError as error:
            self._fail(trial, {"reason": error.message})
            raise

    def _failed_as_deadly(self, trial: optuna.Trial, attempts: list[dict[str, Any]]) -> bool:
        """Fail a trial if too many workers died at its current epoch. Return whether the trial failed.

        Only deaths count that a supervisor saw. When the supervisor or the machine died too, the trial is not the cause.
        """
        epochs = read_epochs(trial)
        epoch_seconds = sum(epoch.seconds for epoch in epochs) / len(epochs) if epochs else math.inf
        here = [death for death in read_deaths(trial) if death.epochs == attempts[-1]["epochs"]]
        blamed = [death for death in here if death.cause != signal.SIGKILL.name or death.seconds >= epoch_seconds]
        if len(blamed) < MAX_DEATHS and len(here) < MAX_KILLS:
            return False
        causes = ", ".join(f"{death.cause} after {show_duration(death.seconds)}" for death in here)
        reason = f"its worker died {len(here)} times in epoch {len(epochs) + 1} while the supervisor lived: {causes}"
        place = f"death by {here[-1].cause}"
        self._fail(trial, {"reason": reason, "traceback": self._log_tail(here[-1].worker), "place": place})
        return True

    def _fail(self, trial: optuna.Trial, end: dict[str, str]) -> None:
        write_end(trial, read_epochs(trial), end)
        self.study.tell(trial, state=TrialState.FAIL)

    def _log_tail(self, worker: str) -> str:
        try:
            with self.paths.log(worker).open("rb") as file:
                file.seek(-min(READ_LOG, file.seek(0, os.SEEK_END)), os.SEEK_END)
                log = file.read().decode(errors="replace")
        except OSError:
            return ""
        # The report of a crash begins with its cause and ends with a long list of modules.
        crash = log.rfind(CRASH)
        return log[-LOG_TAIL:] if crash < 0 else log[crash : crash + LOG_TAIL]


def requeue_interrupted(store: Store, study: optuna.Study, locks: Locks) -> list[int]:
    """Put every running trial without a living worker back into the queue. The caller must hold the claim lock.

    Args:
        store: the database.
        study: the study.
        locks: the locks of the database.

    Returns:
        The numbers of the requeued trials.
    """
    requeued = []
    for trial_id, number in store.storage.read_running(get_study_id(study)):
        with _without_worker(store, locks, trial_id) as is_interrupted:
            if is_interrupted:
                requeue(store, trial_id)
                requeued.append(number)
    return requeued


def record_death(store: Store, study: optuna.Study, worker: DeadWorker) -> None:
    """Store that a worker died while it trained a trial. The caller must hold the claim lock.

    Args:
        store: the database.
        study: the study.
        worker: the worker.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        # Another worker may have taken the trial already.
        attempts = [attempt for attempt in trial.user_attrs.get(TrialKey.ATTEMPTS, []) if attempt["worker"] == worker.name]
        if attempts and not attempts[-1].get("left"):
            death = Death(
                worker=worker.name,
                cause=worker.cause,
                epochs=attempts[-1]["epochs"],
                seconds=round(max(0.0, time.time() - attempts[-1]["at"]), 3),
            )
            with suppress(UpdateFinishedTrialError):
                write_death(store.storage, trial, death)


def requeue(store: Store, trial_id: int) -> None:
    """Put a running trial back into the queue, with its number and its epochs.

    Args:
        store: the database.
        trial_id: Optuna's id of the trial.
    """
    store.storage.set_trial_state_values(trial_id, TrialState.WAITING)


def end_hung(store: Store, study: optuna.Study, locks: Locks, number: int) -> bool:
    """End a trial whose time is over and whose worker was killed. The caller must hold the claim lock.

    The trial is pruned at its last epoch. If no epoch is stored, the trial fails.

    Args:
        store: the database.
        study: the study.
        locks: the locks of the database.
        number: number of the trial.

    Returns:
        Whether the trial was still running.
    """
    trial_id = store.storage.get_trial_id_from_study_id_trial_number(get_study_id(study), number)
    with _without_worker(store, locks, trial_id) as is_interrupted:
        if is_interrupted:
            trial = optuna.Trial(study, trial_id)
            epochs = read_epochs(trial)
            write_end(trial, epochs, {"reason": TRIAL_TIME if epochs else TIME_SPENT})
            study.tell(trial, state=TrialState.PRUNED if epochs else TrialState.FAIL)
        return is_interrupted


def is_being_searched(study: optuna.Study, locks: Locks) -> bool:
    """Return whether a living worker trains a trial of the study.

    Args:
        study: the study.
        locks: the locks of its database.

    Returns:
        True if the lease of a running trial is held.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(_is_locked(locks, trial_lock(get_trial_id(trial))) for trial in running)


def _is_locked(locks: Locks, name: str) -> bool:
    lease = locks.acquire(name)
    if lease is not None:
        lease.release()
    return lease is None


@contextmanager
def _without_worker(store: Store, locks: Locks, trial_id: int) -> Iterator[bool]:
    """Hold the lease of a trial in a block. Yield whether the trial is running without a living worker.

    A trial of another program has no worker of hpsearch. That program may be training it.
    """
    lease = locks.acquire(trial_lock(trial_id))
    if lease is None:
        yield False
        return
    try:
        # Read the state while holding the lease, because the worker may have just finished the trial.
        trial = store.storage.get_trial(trial_id)
        yield trial.state == TrialState.RUNNING and is_own_trial(trial)
    finally:
        lease.release()
