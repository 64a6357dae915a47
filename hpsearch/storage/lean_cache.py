"""The cache of trials in a process; in a worker, which lives as long as the search, it must not grow with it.

Optuna keeps every finished trial in each process. A worker's samplers, pruners and budget look at
its values, its state and few of its attributes; the rest stays in the database, where `storage.py`
reads it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from hpsearch.storage.records import TrialKey
from hpsearch.storage.trial_cache import BatchingCache, Outlast

LEFT_OUT = frozenset(
    (
        TrialKey.RUN,
        TrialKey.EPOCHS,
        TrialKey.N_PARAMETERS,
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


class TrimmedCache(BatchingCache):
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
