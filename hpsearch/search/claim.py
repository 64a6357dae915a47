"""Take up a trial: the one place where a trial begins, one at a time for a whole study.

Under the study's claim lock: interrupted trials go back to the queue, the budget is counted, a
trial is taken or made, its lease acquired, its point drawn and the attempt put on record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.paths import StudyPaths
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import LeaseLostError, StudyStoppedError
from hpsearch.search.budget import refuse_repeated_failure
from hpsearch.search.trial_source import TrialSource
from hpsearch.storage.database import Store
from hpsearch.storage.locks import LOCK_POLL, Lease, Locks, claim_lock, manual_lock, require_held, trial_lock
from hpsearch.storage.optuna_internals import get_study_id, get_trial_id
from hpsearch.storage.records import BY_HAND, TrialKey, read_epochs, write_attempt, write_end

MOST_DEATHS = 3
"""A trial whose worker died so many times with no epoch in between is the cause of it."""
LEAVING_SECONDS = 5.0
"""A worker that puts its trial back lets go of the lease right after."""
LATER_POLL = 0.5
"""Seconds between two looks whether a trial can be begun by now."""
LOG_TAIL = 2000
"""Characters of a dead worker's log that are kept with its trial."""
TRIAL_TIME = "trial_time"
"""The reason of a trial that was pruned because its time was spent."""
TIME_SPENT = "trial_time was spent before its first epoch"
CRASH = "Fatal Python error"
"""How the interpreter's report of a crash begins."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial that this process has taken up, and nobody else can."""

    trial: optuna.Trial
    config: TrainConfig
    lease: Lease


@dataclass(frozen=True, kw_only=True)
class Claimer:
    """Takes up trials of one study.

    Attributes:
        source: where trials come from when none waits.
        run: id of this run.
        only: the number of the only trial to take up, or None for whatever comes.
        stopping: whether the worker was asked to stop.
    """

    store: Store
    study: optuna.Study
    locks: Locks
    source: TrialSource
    run: str
    paths: StudyPaths
    worker: str
    only: int | None
    stopping: Callable[[], bool]

    def claim(self) -> Claim | None:
        """The next trial, or None when there is nothing left to do.

        Where the next one depends on trials that others still train, it waits for them.

        Raises:
            StudyStoppedError: the same failure again and again, or no draw within the limits.
            KeyError, StorageInternalError: the study was deleted.
        """
        while True:
            try:
                return self._claim()
            except LeaseLostError:  # somebody else may be claiming by now; what was begun here is found by recovery
                continue

    def _claim(self) -> Claim | None:
        while True:
            self.store.database.require_exists()
            with self.locks.hold(claim_lock(get_study_id(self.study))):
                requeue_interrupted(self.store, self.study, self.locks)
                if self.stopping():
                    return None
                claim = self._take()
                if claim is not None or self.only is not None or self.source.is_over:
                    return claim
            time.sleep(LATER_POLL)

    def _take(self) -> Claim | None:
        while (trial := self._next()) is not None:
            lease = self._lease(trial)
            if lease is None:
                requeue(self.store, get_trial_id(trial))
                return None
            try:
                attempts = write_attempt(trial, worker=self.worker, run=self.run, at=time.time())
                if not self._is_deadly(trial, attempts):
                    return Claim(trial=trial, config=self._config(trial, lease), lease=lease)
            except BaseException:
                lease.release()
                raise
            lease.release()
        return None

    def _lease(self, trial: optuna.Trial) -> Lease | None:
        """The trial's lease, for which its last worker may have to be waited for a moment: it is just leaving."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while (lease := self.locks.acquire(trial_lock(get_trial_id(trial)))) is None and time.monotonic() < deadline:
            time.sleep(LOCK_POLL)
        return lease

    def _is_spoken_for(self, trial: FrozenTrial) -> bool:
        """Whether somebody who queued the trial by hand waits for it, and has a worker of its own for it."""
        if trial.user_attrs.get(TrialKey.ORIGIN) != BY_HAND:
            return False
        lease = self.locks.acquire(manual_lock(get_trial_id(trial)))
        if lease is not None:
            lease.release()
        return lease is None

    def _next(self) -> optuna.Trial | None:
        trials = self.study.get_trials(deepcopy=False)
        refuse_repeated_failure(self.study.study_name, trials, self.run)
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        if self.only is not None:
            waiting = [trial for trial in waiting if trial.number == self.only]
        else:
            waiting = [trial for trial in waiting if not self._is_spoken_for(trial)]
        for trial in waiting:
            with suppress(UpdateFinishedTrialError):  # failed from outside a moment ago
                if self.store.storage.set_trial_state_values(get_trial_id(trial), TrialState.RUNNING):
                    return optuna.Trial(self.study, get_trial_id(trial))
        return None if self.only is not None else self.source.begin(trials)

    def _config(self, trial: optuna.Trial, lease: Lease) -> TrainConfig:
        try:
            with self.store.storage.transaction():
                config = self.source.config(trial)
                # Nothing of the point is written yet; by now somebody else may have drawn another.
                require_held(lease)
                return config
        except StudyStoppedError as error:
            write_end(trial, [], {"reason": error.message})
            self.study.tell(trial, state=TrialState.FAIL)
            raise

    def _is_deadly(self, trial: optuna.Trial, attempts: list[dict[str, Any]]) -> bool:
        """Fail a trial that has killed its workers; returns whether it was."""
        # This worker has let go of it, and lives.
        died = [attempt for attempt in attempts[:-1] if not attempt.get("left") and attempt["worker"] != self.worker]
        in_vain = [attempt for attempt in died if attempt["epochs"] == attempts[-1]["epochs"]]
        if len(in_vain) < MOST_DEATHS:
            return False
        end = {"reason": f"its worker died {len(in_vain)} times at the same epoch", "traceback": self._log_tail(in_vain[-1]["worker"])}
        write_end(trial, read_epochs(trial), end)
        self.study.tell(trial, state=TrialState.FAIL)
        return True

    def _log_tail(self, worker: str) -> str:
        try:
            log = self.paths.log(worker).read_text(errors="replace")
        except OSError:
            return ""
        # A crash is told from its cause on, and ends with a long list of modules.
        crash = log.rfind(CRASH)
        return log[-LOG_TAIL:] if crash < 0 else log[crash : crash + LOG_TAIL]


def requeue_interrupted(store: Store, study: optuna.Study, locks: Locks) -> list[int]:
    """Set every running trial that nobody trains back to waiting; returns their numbers.

    The caller holds the study's claim lock. A trial whose lease can be taken has no living worker;
    its state is read again under the lease, since its worker may have just finished it.
    """
    requeued = []
    for trial_id, number in store.storage.read_running(get_study_id(study)):
        lease = locks.acquire(trial_lock(trial_id))
        if lease is None:
            continue
        try:
            if store.storage.get_trial(trial_id).state == TrialState.RUNNING:
                requeue(store, trial_id)
                requeued.append(number)
        finally:
            lease.release()
    return requeued


def requeue(store: Store, trial_id: int) -> None:
    """Set a running trial back to waiting: the next claim takes it up again."""
    store.storage.set_trial_state_values(trial_id, TrialState.WAITING)


def end_hung(store: Store, study: optuna.Study, locks: Locks, number: int) -> bool:
    """End a trial whose time is spent and whose worker was killed; returns whether it was still running.

    It is pruned at its last epoch, or failed if it has none. The caller holds the study's claim lock.
    """
    trial_id = store.storage.get_trial_id_from_study_id_trial_number(get_study_id(study), number)
    lease = locks.acquire(trial_lock(trial_id))
    if lease is None:
        return False
    try:
        if store.storage.get_trial(trial_id).state != TrialState.RUNNING:
            return False
        trial = optuna.Trial(study, trial_id)
        epochs = read_epochs(trial)
        write_end(trial, epochs, {"reason": TRIAL_TIME if epochs else TIME_SPENT})
        study.tell(trial, state=TrialState.PRUNED if epochs else TrialState.FAIL)
        return True
    finally:
        lease.release()


def is_being_searched(study: optuna.Study, locks: Locks) -> bool:
    """Whether a living worker trains a trial of the study."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lease = locks.acquire(trial_lock(get_trial_id(trial)))
        if lease is None:
            return True
        lease.release()
    return False
