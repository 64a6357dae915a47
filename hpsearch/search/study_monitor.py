"""Follow a study. The monitor counts the trials and shows the trials that run or have just ended.

Each reading fetches only the trials that may have changed since the last reading. So a reading costs the same at the
thousandth trial as at the first trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from hpsearch.analysis.leaderboard import rank
from hpsearch.storage.database import Store
from hpsearch.storage.optuna_internals import get_study_id, get_trial_id
from hpsearch.storage.records import TrialKey, TrialRow, counts_towards_budget, is_own_trial, read_rungs, repeat_of, state_of


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a study.

    Attributes:
        ended: trials that ended since the last reading.
        running: trials that are running.
        counts: number of trials by state.
        epochs: number of epochs that all trials have trained, with the parts of epochs after which trials are paused.
        best: the best complete trial, if any. The trials of a follow-up study are not ranked.
    """

    ended: tuple[TrialRow, ...]
    running: tuple[TrialRow, ...]
    counts: Mapping[str, int]
    epochs: float
    best: TrialRow | None

    @property
    def total(self) -> int:
        """The number of trials."""
        return sum(self.counts.values())

    @property
    def finished(self) -> int:
        """The number of finished trials."""
        return sum(self.counts.get(state, 0) for state in ("complete", "pruned", "fail"))


class StudyMonitor:
    """Reads the progress of one study again and again. Trials that ended before the monitor was made are not reported as ended."""

    def __init__(self, store: Store, study: optuna.Study) -> None:
        self._store = store
        self._study_id = get_study_id(study)
        self._unfinished: dict[int, FrozenTrial] = {}
        self._last_finished = -1
        self._finished: Counter[str] = Counter()
        self._finished_epochs = 0.0
        self._best: FrozenTrial | None = None
        self._workers: set[str] = set()
        self._ended: list[FrozenTrial] = []
        self._read()
        self._ended.clear()

    def read_progress(self) -> Progress:
        """Read the changes since the last reading.

        Returns:
            The progress of the study now.

        Raises:
            KeyError: the study was deleted.
        """
        self._read()
        ended, self._ended = self._ended, []
        unfinished = self._unfinished.values()
        rows = [TrialRow.from_trial(trial) for trial in unfinished]
        return Progress(
            ended=tuple(TrialRow.from_trial(trial) for trial in ended),
            running=tuple(row for row in rows if row.state == "running"),
            counts=self._finished + Counter(state_of(trial) for trial in unfinished),
            epochs=self._finished_epochs + sum(row.trained_epochs if row.audited_at is None else row.audited_at for row in rows),
            best=None if self._best is None else TrialRow.from_trial(self._best),
        )

    def has_claimed(self, worker: str) -> bool:
        """Return whether a worker ever claimed a trial.

        Args:
            worker: name of the worker.

        Returns:
            True if an attempt of the worker is stored.
        """
        self._read()
        return worker in self._workers

    def _read(self) -> None:
        """Read new trials, and trials that were unfinished at the last reading. A finished trial never changes."""
        read = self._store.storage.read_trials(self._study_id, unfinished=self._unfinished, last_finished=self._last_finished)
        trials = [trial for trial in read if is_own_trial(trial)]
        self._unfinished = {get_trial_id(trial): trial for trial in trials if not trial.state.is_finished()}
        finished = [trial for trial in trials if trial.state.is_finished()]
        for trial in trials:
            self._workers.update(attempt["worker"] for attempt in trial.user_attrs.get(TrialKey.ATTEMPTS, []))
        self._last_finished = max([self._last_finished, *(get_trial_id(trial) for trial in finished)])
        self._finished.update(map(state_of, finished))
        self._finished_epochs += sum(map(_epochs, filter(counts_towards_budget, finished)))
        self._ended += finished
        ranked = rank([*([self._best] if self._best else []), *(trial for trial in finished if repeat_of(trial) is None)])
        self._best = ranked[0] if ranked else None


def _epochs(finished: FrozenTrial) -> float:
    # The reported values of the trial are not read here.
    audited_at = finished.user_attrs.get(TrialKey.AUDIT)  # the budget does not count what the audit trained
    if audited_at is not None:
        return float(audited_at)
    return float(finished.user_attrs.get(TrialKey.EPOCHS_DONE, sum(rung.share for rung in read_rungs(finished)[-1:])))
