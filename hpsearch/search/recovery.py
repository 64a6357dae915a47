"""Interrupted trials go back to the queue, under their own numbers and with what they have."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from hpsearch.database import Store
from hpsearch.search.lease import FileLocks, trial_lock


def requeue_interrupted(store: Store, study: optuna.Study, locks: FileLocks) -> list[int]:
    """Set every running trial that nobody trains back to waiting; returns their numbers.

    The caller holds the study's claim lock. A trial whose lease can be taken has no living worker;
    its state is read again under the lease, since its worker may have just finished it.
    """
    requeued = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lease = locks.acquire(trial_lock(trial._trial_id))
        if lease is None:
            continue
        try:
            if store.storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                requeue(store, trial._trial_id)
                requeued.append(trial.number)
        finally:
            lease.release()
    return requeued


def requeue(store: Store, trial_id: int) -> None:
    """Set a running trial back to waiting: the next claim takes it up again."""
    store.storage.set_trial_state_values(trial_id, TrialState.WAITING)


def is_being_searched(study: optuna.Study, locks: FileLocks) -> bool:
    """Whether a living worker trains a trial of the study."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lease = locks.acquire(trial_lock(trial._trial_id))
        if lease is None:
            return True
        lease.release()
    return False
