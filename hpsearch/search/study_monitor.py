"""What a supervisor sees of a study: all trials as numbers, and as rows only those that run or have just ended.

It reads only what changed since its last look, so that a look costs the same at the thousandth trial as at the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.analysis.leaderboard import rank
from hpsearch.storage.database import Store
from hpsearch.storage.optuna_internals import get_study_id, get_trial_id
from hpsearch.storage.records import TrialKey, TrialRow, repeat_of


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is.

    Attributes:
        ended: the trials that ended since the look before, by number.
        running: the trials that run, by number.
        counts: trials by state.
        best: the best complete trial; of repeats, which only several of them together can rank, there is none.
    """

    ended: tuple[TrialRow, ...]
    running: tuple[TrialRow, ...]
    counts: Mapping[str, int]
    best: TrialRow | None

    @property
    def total(self) -> int:
        """How many trials there are."""
        return sum(self.counts.values())

    @property
    def finished(self) -> int:
        """How many trials are over."""
        return sum(self.counts.get(state, 0) for state in ("complete", "pruned", "fail"))


class StudyMonitor:
    """Looks at one study again and again; what ended before the first look is no news."""

    def __init__(self, store: Store, study: optuna.Study) -> None:
        self._store = store
        self._study_id = get_study_id(study)
        self._unfinished: dict[int, FrozenTrial] = {}
        self._last_finished = -1
        self._finished: Counter[str] = Counter()
        self._best: list[FrozenTrial] = []
        self._workers: set[str] = set()
        self._news: list[FrozenTrial] = []
        self._read()
        self._news.clear()

    def read_progress(self) -> Progress:
        """The study as it is now.

        Raises:
            KeyError: it is no more.
        """
        self._read()
        news, self._news = self._news, []
        unfinished = self._unfinished.values()
        return Progress(
            ended=tuple(TrialRow.from_trial(trial) for trial in news),
            running=tuple(TrialRow.from_trial(trial) for trial in unfinished if trial.state == TrialState.RUNNING),
            counts=self._finished + Counter(_state(trial) for trial in unfinished),
            best=TrialRow.from_trial(self._best[0]) if self._best else None,
        )

    def has_claimed(self, worker: str) -> bool:
        """Whether the worker of that name ever took up a trial."""
        self._read()
        return worker in self._workers

    def _read(self) -> None:
        """Read what is new, and again what was not over; what is over never changes."""
        trials = self._store.storage.read_trials(self._study_id, unfinished=self._unfinished, last_finished=self._last_finished)
        self._unfinished = {get_trial_id(trial): trial for trial in trials if not trial.state.is_finished()}
        for trial in trials:
            self._workers.update(attempt["worker"] for attempt in trial.user_attrs.get(TrialKey.ATTEMPTS, []))
            if trial.state.is_finished():
                self._last_finished = max(self._last_finished, get_trial_id(trial))
                self._finished[_state(trial)] += 1
                self._news.append(trial)
        self._best = rank([*self._best, *(trial for trial in trials if repeat_of(trial) is None)])[:1]


def _state(trial: FrozenTrial) -> str:
    return trial.state.name.lower()
