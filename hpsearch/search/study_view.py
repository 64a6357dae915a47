"""Show samplers and pruners only some trials of a study."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config.components import Scalar
from hpsearch.storage.optuna_internals import get_storage


class TrialsView:
    """A study with some of its trials, for Optuna's samplers and pruners. Everything else is the study's own.

    It reads the study once, so that one decision sees the same trials throughout.

    Args:
        study: the study, or a view of it.
        keep: whether the view shows a trial.
    """

    def __init__(self, study: optuna.Study | TrialsView, keep: Callable[[FrozenTrial], bool]) -> None:
        self._study = study
        self._keep = keep
        self._kept: list[FrozenTrial] | None = None

    def get_trials(self, deepcopy: bool = True, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        """Return the trials of the view, as `Study.get_trials`.

        Args:
            deepcopy: whether to copy the trials.
            states: the states to return; None for all.

        Returns:
            The trials by number.
        """
        if self._kept is None:
            self._kept = [trial for trial in self._study.get_trials(deepcopy=False) if self._keep(trial)]
        kept = [trial for trial in self._kept if states is None or trial.state in states]
        return copy.deepcopy(kept) if deepcopy else kept

    def _get_trials(
        self, deepcopy: bool = True, states: tuple[TrialState, ...] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        # Samplers call this name. Optuna's cache behind it holds the trials as they were when the trial began.
        return self.get_trials(deepcopy=deepcopy, states=states)

    @property
    def _storage(self) -> _StorageView:
        # Hyperband makes its own study on the storage, and asks the storage for all trials.
        return _StorageView(get_storage(self._study), self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class _StorageView:
    """The storage of a view: it returns the view's trials; everything else is the storage's own."""

    def __init__(self, storage: Any, view: TrialsView) -> None:
        self._storage = storage
        self._view = view

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        return self._view.get_trials(deepcopy=deepcopy, states=states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def trials_with(study: optuna.Study | TrialsView, parameter: str, value: Scalar | None) -> Any:
    """Return the study with only those trials in which a parameter has a value.

    Args:
        study: the study.
        parameter: name of the parameter.
        value: its value.

    Returns:
        The view, typed as Optuna's functions need it.
    """
    return TrialsView(study, lambda trial: value_of(trial, parameter) == value)


def one_trial_per_space(study: Any) -> Any:
    """Return the study with one trial for each pair of state and distributions.

    It is for Optuna's search for the joint space, which takes a fifth of a draw at 10,000 trials. A worker's
    cache shares equal distributions between trials, so their identity tells them apart.

    Args:
        study: the study.

    Returns:
        The view, typed as Optuna's functions need it.
    """
    seen: set[tuple[TrialState, int]] = set()

    def is_first(trial: FrozenTrial) -> bool:
        n_before = len(seen)
        seen.add((trial.state, id(trial.distributions)))
        return len(seen) > n_before

    return TrialsView(study, is_first)


def value_of(trial: FrozenTrial, parameter: str) -> Scalar | None:
    """Return a parameter of a trial; of a waiting trial, the value that was queued.

    Args:
        trial: the trial.
        parameter: name of the parameter.

    Returns:
        The value, or None if the trial has none.
    """
    value: Scalar | None = trial.params.get(parameter, trial.system_attrs.get("fixed_params", {}).get(parameter))
    return value
