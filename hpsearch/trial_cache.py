"""The cache of trials in a process; in a worker, which lives as long as the search, it must not grow with it.

Optuna keeps every finished trial in each process. A worker's samplers, pruners and budget look at
its values, its state and few of its attributes; the rest stays in the database, where `storage.py`
reads it.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Container, Hashable
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState

from hpsearch.storage import TrialKey
from hpsearch.trial_reader import trials_in

LEFT_OUT = frozenset(
    (
        TrialKey.RUN,
        TrialKey.EPOCHS,
        TrialKey.PARAMETERS,
        TrialKey.FLOPS,
        TrialKey.SECONDS,
        TrialKey.TRAIN_ACCURACY,
        TrialKey.GAP,
        TrialKey.EPOCHS_DONE,
    )
)
"""Attributes of a finished trial that a search does not look at, and that are different in each."""
TPE_DRAW = "tpe:relative_params:"
"""What Optuna's TPE notes of a draw for others to see while the trial runs; of a finished one it looks at the parameters."""

Value = TypeVar("Value")
Outlast = Callable[[Callable[[], list[FrozenTrial]]], list[FrozenTrial]]


class PromptCache(_CachedStorage):
    """Optuna's cache over a database, but that it begins with one statement a table.

    Args:
        outlast: makes a call that reads the database, and waits where that is away.
    """

    def __init__(self, backend: RDBStorage, outlast: Outlast) -> None:
        super().__init__(backend)
        self._outlast = outlast
        self._begun: set[int] = set()

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials of a study, by number."""
        self._read_trials_from_remote_storage(study_id)
        with self._lock:
            known = self._studies[study_id].trials
            # Several times in each trial, and of thousands: numbers are sorted in no time, trials by number are not.
            trials = [known[number] for number in sorted(known) if states is None or known[number].state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._lock:
            if study_id not in self._begun:
                self._begin(study_id)
        super()._read_trials_from_remote_storage(study_id)

    def _begin(self, study_id: int) -> None:
        """Read what was finished before this process, all at once: Optuna makes an object of every stored value."""
        backend = self._backend
        assert isinstance(backend, RDBStorage), "a store is a database"
        trials = self._outlast(lambda: trials_in(backend, study_id, reports=True))
        study = self._studies.setdefault(study_id, _StudyInfo())
        finished = [trial for trial in trials if trial.state.is_finished()]
        self._add_trials_to_cache(study_id, finished)
        # As Optuna notes it: what is beyond the last finished one, and what is not over, is read again.
        study.unfinished_trial_ids.update(trial._trial_id for trial in trials if not trial.state.is_finished())
        study.last_finished_trial_id = max((trial._trial_id for trial in finished), default=study.last_finished_trial_id)
        self._begun.add(study_id)


class LeanCache(PromptCache):
    """The same, with finished trials that have lost what a search does not look at.

    What many trials have in common, names and distributions and attributes, is kept once.
    """

    def __init__(self, backend: RDBStorage, outlast: Outlast) -> None:
        super().__init__(backend, outlast)
        self._shared: dict[Hashable, Any] = {}

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        for trial in trials:
            if trial.state.is_finished():
                self._make_lean(trial)
        super()._add_trials_to_cache(study_id, trials)

    def _make_lean(self, trial: FrozenTrial) -> None:
        kept = {key: _lean(key, value) for key, value in trial.user_attrs.items() if key not in LEFT_OUT}
        trial.user_attrs = self._share(json.dumps(kept, sort_keys=True), kept)
        trial.system_attrs = {key: value for key, value in trial.system_attrs.items() if not key.startswith(TPE_DRAW)}
        trial.distributions = self._share(tuple(trial.distributions.items()), trial.distributions)
        values = trial.params
        trial.params = {name: _interned(values[name]) for name in trial.distributions}

    def _share(self, key: Hashable, value: Value) -> Value:
        shared: Value = self._shared.setdefault(key, value)
        return shared


def _lean(key: str, value: Any) -> Any:
    """Of an attribute what a search looks at: the run of each attempt, the reason of an end."""
    if key == TrialKey.ATTEMPTS:
        return [{"run": attempt["run"]} for attempt in value]
    if key == TrialKey.END:
        return {"reason": value.get("reason")}
    return value


def _interned(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) else value
