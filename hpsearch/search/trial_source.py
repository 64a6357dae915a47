"""Where the trials of a study come from: a sampler draws them, or a plan repeats some configurations."""

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
    """What a study's trials are, one after another. All is called under the study's claim lock."""

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """A new trial that runs, or None if there is none to begin now.

        Args:
            trials: all that there are.
        """

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """What a trial trains.

        Raises:
            StudyStoppedError: no draw was within the limits.
        """

    @property
    def is_over(self) -> bool:
        """Whether no trial will be begun later either, whatever becomes of those that run."""


@dataclass(frozen=True, kw_only=True)
class SampledTrials:
    """Trials drawn by the study's sampler, as many as the budget allows."""

    study: optuna.Study
    space: Space
    budget: Budget
    clock: Clock
    seed: int

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """A trial with nothing drawn yet."""
        if not budget_allows_trial(trials, trials=self.budget.trials):
            return None
        if self.budget.time is not None and self.clock.spent(self.study) >= self.budget.time:
            return None
        # Not by `ask`, which would first take a trial that waits for somebody else.
        return optuna.Trial(self.study, get_storage(self.study).create_new_trial(get_study_id(self.study)))

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """The point that the trial draws, or has drawn before."""
        return self.space.config(self.space.sample(trial), seed=derive_seed(self.seed, "trial", trial.number))

    @property
    def is_over(self) -> bool:
        """The budget does not grow while a run lasts."""
        return True


class NextRuns(Protocol):
    """Runs to begin: configuration and repeat."""

    @property
    def required_runs(self) -> Sequence[tuple[str, int]]:
        """Those that are needed to go on, the most useful first."""

    @property
    def optional_runs(self) -> Sequence[tuple[str, int]]:
        """Those that will most likely be needed, for workers with nothing better to do."""


@dataclass(frozen=True, kw_only=True)
class RepeatedTrials:
    """Trials of a few configurations, each with the seeds and splits that all of them share.

    Attributes:
        next_runs: of the scores so far, and the names of those that cannot be trained.
        config_of: the configuration of a name; its seed does not matter.
        seed_of: the seed of a repeat.
    """

    study: optuna.Study
    next_runs: Callable[[Scores, frozenset[str]], NextRuns]
    config_of: Callable[[str], TrainConfig]
    seed_of: Callable[[int], int]

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """The most useful run that nobody has taken up."""
        runs = self._runs(trials)
        taken = {run for trial in trials if not trial.state.is_finished() and (run := repeat_of(trial)) is not None}
        free = [run for run in (*runs.required_runs, *runs.optional_runs) if run not in taken]
        if not free:
            return None
        name, repeat = free[0]
        number = get_storage(self.study).create_new_trial(
            get_study_id(self.study),
            # With its name from the start: a trial that is killed here still says what it is.
            optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={TrialKey.CANDIDATE: name, TrialKey.REPEAT: repeat}),
        )
        get_storage(self.study).set_trial_state_values(number, TrialState.RUNNING)
        return optuna.Trial(self.study, number)

    def config(self, trial: optuna.Trial) -> TrainConfig:
        """The configuration with the seed of the repeat."""
        return replace(self.config_of(trial.user_attrs[TrialKey.CANDIDATE]), seed=self.seed_of(trial.user_attrs[TrialKey.REPEAT]))

    @property
    def is_over(self) -> bool:
        """Whether all that is wanted is done."""
        return not self._runs(self.study.get_trials(deepcopy=False)).required_runs

    def _runs(self, trials: Sequence[FrozenTrial]) -> NextRuns:
        return self.next_runs(candidate_scores(trials), failed_candidates(trials))
