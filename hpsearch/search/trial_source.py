"""Make the trials of a study: a sampler draws them, or a plan repeats some configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.analysis.paired import Scores
from hpsearch.config.sections import Budget
from hpsearch.config.seeds import derive_seed
from hpsearch.config.space import Space
from hpsearch.config.train_config import TrainConfig
from hpsearch.search.budget import Clock, budget_allows_trial
from hpsearch.storage.optuna_internals import get_storage, get_study_id
from hpsearch.storage.records import TrialKey, candidate_scores, failed_candidates, repeat_of


class TrialSource(Protocol):
    """Makes the trials of a study. The caller holds the study's claim lock."""

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Start a new trial.

        Args:
            trials: all trials of the study.

        Returns:
            The running trial, or None if none can be started now.
        """

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """Return the configuration that a trial trains.

        Args:
            trial: a running trial.

        Returns:
            The configuration.

        Raises:
            StudyStoppedError: no draw was within the limits.
        """

    @property
    def is_over(self) -> bool:
        """Whether no trial will start later, whatever the running trials result in."""


@dataclass(frozen=True, kw_only=True)
class SampledTrials:
    """Trials drawn by the study's sampler, up to the budget. The methods are those of `TrialSource`."""

    study: optuna.Study
    space: Space
    budget: Budget
    clock: Clock
    seed: int

    is_over = True  # the budget does not grow during a run

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Start a trial without values.

        Args:
            trials: all trials of the study.

        Returns:
            The running trial, or None if the budget is spent.
        """
        if not budget_allows_trial(trials, trials=self.budget.trials):
            return None
        if self.budget.time is not None and self.clock.spent(self.study) >= self.budget.time:
            return None
        # `Study.ask` would first take a trial that waits for another worker.
        return optuna.Trial(self.study, get_storage(self.study).create_new_trial(get_study_id(self.study)))

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """Draw the values of a trial; return those that it drew before.

        Args:
            trial: a running trial.

        Returns:
            The configuration, with a seed of the trial's own.
        """
        return self.space.config(self.space.sample(trial), seed=derive_seed(self.seed, "trial", trial.number))


class NextRuns(Protocol):
    """Runs to start, each a configuration's name and the number of the repeat."""

    @property
    def required_runs(self) -> Sequence[tuple[str, int]]:
        """Needed runs, the most useful first."""

    @property
    def optional_runs(self) -> Sequence[tuple[str, int]]:
        """Runs that will probably be needed, for workers without other work."""


@dataclass(frozen=True, kw_only=True)
class RepeatedTrials:
    """Trials that repeat a few configurations, all with the same seeds and splits. The methods are those of `TrialSource`.

    Attributes:
        next_runs: returns the next runs for the scores so far and the names of configurations that always fail.
        config_of: returns the configuration of a name; its seed has no effect.
        seed_of: returns the seed of a repeat.
    """

    study: optuna.Study
    next_runs: Callable[[Scores, frozenset[str]], NextRuns]
    config_of: Callable[[str], TrainConfig]
    seed_of: Callable[[int], int]

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Start the most useful run that no other trial does.

        Args:
            trials: all trials of the study.

        Returns:
            The running trial, or None if no run is left.
        """
        runs = self._runs(trials)
        taken = {repeat_of(trial) for trial in trials if not trial.state.is_finished()}
        free = [run for run in (*runs.required_runs, *runs.optional_runs) if run not in taken]
        if not free:
            return None
        name, repeat = free[0]
        trial_id = get_storage(self.study).create_new_trial(
            get_study_id(self.study),
            # The trial gets its name at once, so that it is known even if this process is killed now.
            optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={TrialKey.CANDIDATE: name, TrialKey.REPEAT: repeat}),
        )
        get_storage(self.study).set_trial_state_values(trial_id, TrialState.RUNNING)
        return optuna.Trial(self.study, trial_id)

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """Return the configuration of a trial, with the seed of its repeat.

        Args:
            trial: a running trial.

        Returns:
            The configuration.
        """
        return replace(self.config_of(trial.user_attrs[TrialKey.CANDIDATE]), seed=self.seed_of(trial.user_attrs[TrialKey.REPEAT]))

    @property
    def is_over(self) -> bool:
        """Whether no wanted run is left."""
        return not self._runs(self.study.get_trials(deepcopy=False)).required_runs

    def _runs(self, trials: Sequence[FrozenTrial]) -> NextRuns:
        return self.next_runs(candidate_scores(trials), failed_candidates(trials))
