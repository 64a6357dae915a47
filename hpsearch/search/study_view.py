"""A study of which a sampler or pruner sees only some trials."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.components import Scalar
from hpsearch.storage.optuna_internals import get_storage


class TrialsView:
    """Stands for `study` where Optuna's samplers and pruners ask for its trials; all else is the study's own.

    However often they ask while they decide, they see the trials as they were at first, and the study is read once.
    """

    def __init__(self, study: optuna.Study | TrialsView, keep: Callable[[FrozenTrial], bool]) -> None:
        self._study = study
        self._keep = keep
        self._seen: list[FrozenTrial] | None = None

    def get_trials(self, deepcopy: bool = True, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        """The trials that are seen."""
        if self._seen is None:
            self._seen = [trial for trial in self._study.get_trials(deepcopy=False) if self._keep(trial)]
        seen = [trial for trial in self._seen if states is None or trial.state in states]
        return copy.deepcopy(seen) if deepcopy else seen

    def _get_trials(
        self, deepcopy: bool = True, states: tuple[TrialState, ...] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        # Samplers ask by this name; without their cache, which holds the trials as they were when the trial began.
        return self.get_trials(deepcopy=deepcopy, states=states)

    @property
    def _storage(self) -> _StorageView:
        # Hyperband makes a study of its own on the storage, and asks that for all trials.
        return _StorageView(get_storage(self._study), self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class _StorageView:
    """Stands for the storage of a study that is seen in part; all but its trials is the storage's own."""

    def __init__(self, storage: Any, view: TrialsView) -> None:
        self._storage = storage
        self._view = view

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        """The trials that are seen."""
        return self._view.get_trials(deepcopy=deepcopy, states=states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def trials_with(study: optuna.Study | TrialsView, parameter: str, value: Scalar | None) -> Any:
    """The study with only those trials in which the parameter has that value."""
    return TrialsView(study, lambda trial: value_of(trial, parameter) == value)


def unlike_spaces(study: Any) -> Any:
    """The study with the first trial alone of all that have the same state and the very same distributions.

    For whoever asks which parameters there are: of ten thousand trials that is a fifth of a draw, and a worker's cache keeps the
    distributions of many trials once.
    """
    seen: set[tuple[TrialState, int]] = set()

    def is_first(trial: FrozenTrial) -> bool:
        before = len(seen)
        seen.add((trial.state, id(trial.distributions)))
        return len(seen) > before

    return TrialsView(study, is_first)


def value_of(trial: FrozenTrial, parameter: str) -> Scalar | None:
    """A parameter of a trial, also of one that waits with its values given."""
    value: Scalar | None = trial.params.get(parameter, trial.system_attrs.get("fixed_params", {}).get(parameter))
    return value
