"""Make the trials of a study. Either a sampler draws the trials, or a plan repeats some configurations."""

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
from hpsearch.storage.records import TrialKey, candidate_scores, failed_candidates, read_config, repeat_attributes, repeat_of


class TrialSource(Protocol):
    """Makes the trials of a study. The caller must hold the claim lock of the study."""

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Start a new trial.

        Args:
            trials: all trials of the study.

        Returns:
            The running trial, or None if no trial can be started now.
        """

    def unneeded(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Find the waiting trials that nobody needs any more.

        Args:
            trials: all trials of the study.

        Returns:
            The waiting trials that must not be trained.
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
        """Whether no more trials will start. The results of the running trials cannot change this."""


@dataclass(frozen=True, kw_only=True)
class SampledTrials:
    """Trials drawn by the study's sampler, up to the budget. This class implements `TrialSource`."""

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
        if not budget_allows_trial(trials, self.budget, self.space):
            return None
        if self.budget.time is not None and self.clock.spent(self.study) >= self.budget.time:
            return None
        # Do not use `Study.ask`, because it would first take a trial that waits for another worker.
        trial_id = get_storage(self.study).create_new_trial(
            get_study_id(self.study),
            # The attribute shows that the trial belongs to the search, even if this process is killed now.
            optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={TrialKey.ATTEMPTS: []}),
        )
        return optuna.Trial(self.study, trial_id)

    def unneeded(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Return nothing, because the budget counts every trial.

        Args:
            trials: all trials of the study.

        Returns:
            No trials.
        """
        return ()

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """Draw the values of a trial. Values that the trial drew before stay the same.

        Args:
            trial: a running trial.

        Returns:
            The configuration. Each trial has its own seed.
        """
        return self.space.config(self.space.sample(trial), seed=derive_seed(self.seed, "trial", trial.number))


class NextRuns(Protocol):
    """Runs to start. A run is given by the name of a configuration and the number of the repeat."""

    @property
    def required_runs(self) -> Sequence[tuple[str, int]]:
        """Runs that are needed, the most useful run first."""

    @property
    def optional_runs(self) -> Sequence[tuple[str, int]]:
        """Runs that will probably be needed, for workers without other work."""


@dataclass(frozen=True, kw_only=True)
class RepeatedTrials:
    """Trials that repeat a few configurations, all with the same seeds and splits. This class implements `TrialSource`.

    Attributes:
        next_runs: returns the next runs. It takes the scores so far and the names of the configurations that failed too often.
        config_of: returns the configuration of a run that `next_runs` has just returned. Its seed is not used.
        seed_of: returns the seed of a repeat.
    """

    study: optuna.Study
    next_runs: Callable[[Scores, frozenset[str]], NextRuns]
    config_of: Callable[[str], TrainConfig]
    seed_of: Callable[[int], int]

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Start the most useful run that no unfinished trial already does.

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
        config = replace(self.config_of(name), seed=self.seed_of(repeat))
        trial_id = get_storage(self.study).create_new_trial(
            get_study_id(self.study),
            # The trial carries its config from its first moment, so that it can continue even if this process is killed now.
            optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=repeat_attributes(name, repeat, config)),
        )
        get_storage(self.study).set_trial_state_values(trial_id, TrialState.RUNNING)
        return optuna.Trial(self.study, trial_id)

    def unneeded(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Find the waiting trials that `next_runs` does not ask for any more.

        A trial waits (Optuna's state WAITING) if it was interrupted. After that, the user may have asked for fewer configurations, or
        the scores of other trials may have made its run useless.

        Args:
            trials: all trials of the study.

        Returns:
            The waiting trials that must not be trained. Trials without a config are among them. hpsearch 0.1 could leave such a
            trial when its process was killed.
        """
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        if not waiting:
            return ()
        runs = self._runs(trials)
        needed = {*runs.required_runs, *runs.optional_runs}
        return [trial for trial in waiting if repeat_of(trial) not in needed or read_config(trial) is None]

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """Return the configuration of a trial, with the seed of its repeat.

        Args:
            trial: a running trial.

        Returns:
            The configuration that is stored with the trial.
        """
        config = read_config(trial)
        assert config is not None  # `unneeded` lists the trials without a config
        return config

    @property
    def is_over(self) -> bool:
        """Whether no needed run is left."""
        return not self._runs(self.study.get_trials(deepcopy=False)).required_runs

    def _runs(self, trials: Sequence[FrozenTrial]) -> NextRuns:
        return self.next_runs(candidate_scores(trials), failed_candidates(trials))
