"""Interrupted trials go back to the queue, under their own numbers and with what they have."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from hpsearch.storage.database import Store
from hpsearch.storage.locks import Locks, trial_lock
from hpsearch.storage.records import stored_epochs, write_end

TRIAL_TIME = "trial_time"
"""The reason of a trial that was pruned because its time was spent."""
TIME_SPENT = "trial_time was spent before its first epoch"


def requeue_interrupted(store: Store, study: optuna.Study, locks: Locks) -> list[int]:
    """Set every running trial that nobody trains back to waiting; returns their numbers.

    The caller holds the study's claim lock. A trial whose lease can be taken has no living worker;
    its state is read again under the lease, since its worker may have just finished it.
    """
    requeued = []
    for trial_id, number in store.running_trials(study._study_id):
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
    trial_id = store.storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    lease = locks.acquire(trial_lock(trial_id))
    if lease is None:
        return False
    try:
        if store.storage.get_trial(trial_id).state != TrialState.RUNNING:
            return False
        trial = optuna.Trial(study, trial_id)
        epochs = stored_epochs(trial)
        write_end(trial, epochs, {"reason": TRIAL_TIME if epochs else TIME_SPENT})
        study.tell(trial, state=TrialState.PRUNED if epochs else TrialState.FAIL)
        return True
    finally:
        lease.release()


def is_being_searched(study: optuna.Study, locks: Locks) -> bool:
    """Whether a living worker trains a trial of the study."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lease = locks.acquire(trial_lock(trial._trial_id))
        if lease is None:
            return True
        lease.release()
    return False
