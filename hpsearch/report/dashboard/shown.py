"""The storage as the dashboard sees it: without the records that only hpsearch reads.

A trial's epochs and its resolved config are kilobytes of text each. optuna-dashboard would send all of it with every page and
print it on one line: of 2,000 trials that is most of the megabytes, and on a trial's own page a line of a hundred screens.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpsearch.storage.optuna_internals import CachedStorage
from hpsearch.storage.records import PREFIX, TrialKey

HIDDEN = frozenset({TrialKey.RUN, TrialKey.EPOCHS, TrialKey.ATTEMPTS})
"""Of a trial; where it comes from and why it ended are worth reading."""


class DashboardStorage(CachedStorage):
    """An Optuna storage that leaves these records out where trials and studies are listed; it writes like any other."""

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """All trials of a study."""
        return [_shown(trial) for trial in super().get_all_trials(study_id, deepcopy, states)]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best trial of a study."""
        return _shown(super().get_best_trial(study_id))

    def get_all_studies(self) -> list[Any]:
        """All studies; the note says what hpsearch keeps with them."""
        studies = super().get_all_studies()
        for study in studies:
            study.user_attrs = {key: value for key, value in study.user_attrs.items() if not key.startswith(PREFIX)}
        return studies


def _shown(trial: FrozenTrial) -> FrozenTrial:
    # The trial itself is in the cache of finished ones, and stays whole.
    shown = copy.copy(trial)
    attrs: Mapping[str, Any] = trial.user_attrs
    shown.user_attrs = {key: value for key, value in attrs.items() if key not in HIDDEN}
    return shown
