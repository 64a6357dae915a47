"""Make the trials of a study. Either a sampler draws the trials, or a plan repeats some configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hpsearch.analysis.paired import Scores
from hpsearch.config.sections import Budget
from hpsearch.config.seeds import derive_seed
from hpsearch.config.space import Space
from hpsearch.config.train_config import TrainConfig
from hpsearch.search.budget import Clock, budget_allows_trial, budget_has_epochs
from hpsearch.search.halving import Halving
from hpsearch.search.pruner import Audit
from hpsearch.storage.optuna_internals import get_storage, get_study_id, get_trial_id
from hpsearch.storage.records import (
    TrialKey,
    candidate_scores,
    counts_towards_budget,
    failed_candidates,
    is_own_trial,
    is_paused,
    read_config,
    repeat_attributes,
    repeat_of,
    trained_epochs,
)


class TrialSource(Protocol):
    """Makes the trials of a study. The caller must hold the claim lock of the study."""

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Start a new trial, or promote a paused trial.

        Args:
            trials: all trials of the study.

        Returns:
            The running trial, or None if no trial can be started now.
        """

    def is_held(self, trial: FrozenTrial) -> bool:
        """Return whether a waiting trial starts only if `begin` promotes it.

        Args:
            trial: a waiting trial.

        Returns:
            True for a paused trial.
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
    """Trials drawn by the study's sampler, up to the budget. This class implements `TrialSource`.

    Attributes:
        n_images: number of validation images.
        halving: the rule that pauses and promotes trials; None if trials are not paused.
        audit: draws the paused trials that are trained to their end when all others are stopped.
    """

    study: optuna.Study
    space: Space
    budget: Budget
    clock: Clock
    seed: int
    n_images: int
    halving: Halving | None
    audit: Audit

    def begin(self, trials: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Promote a paused trial, or else start a trial without values.

        Args:
            trials: all trials of the study.

        Returns:
            The running trial, or None if the budget is spent and no paused trial is among the best.
        """
        promoted = self._next_promotion(trials)
        if (paused := promoted or self._next_audited(trials)) is not None:
            with suppress(UpdateFinishedTrialError):
                if get_storage(self.study).set_trial_state_values(get_trial_id(paused), TrialState.RUNNING):
                    if promoted is None:
                        get_storage(self.study).set_trial_user_attr(get_trial_id(paused), TrialKey.AUDIT, trained_epochs(paused))
                    return optuna.Trial(self.study, get_trial_id(paused))
            return None  # somebody has just taken or ended it from outside; the next claim sees this
        if not self._may_begin(trials):
            return None
        # Do not use `Study.ask`, because it would first take a trial that waits for another worker.
        trial_id = get_storage(self.study).create_new_trial(
            get_study_id(self.study),
            # The attribute shows that the trial belongs to the search, even if this process is killed now.
            optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={TrialKey.ATTEMPTS: []}),
        )
        return optuna.Trial(self.study, trial_id)

    def is_held(self, trial: FrozenTrial) -> bool:
        """Return whether a waiting trial starts only if it is promoted.

        Args:
            trial: a waiting trial.

        Returns:
            True for a paused trial of a study that pauses trials. If the rungs were changed, so that the trial was measured at none of
            them, it goes on to the next one.
        """
        return self.halving is not None and is_paused(trial) and self.halving.can_compare(trial)

    def unneeded(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Find the paused trials that will never be promoted, because the budget is spent.

        Args:
            trials: all trials of the study.

        Returns:
            The paused trials, or nothing while any of them may go on.
        """
        if self.halving is None or not self._is_decided(trials):
            return ()
        return [trial for trial in trials if self.is_held(trial) and (self._is_time_over() or not self.audit.draws(trial.number))]

    @property
    def is_over(self) -> bool:
        """Whether no paused trial is left, and none can come. The budget does not grow during a run."""
        trials = self.study.get_trials(deepcopy=False)
        return self.halving is None or all(trial.state.is_finished() for trial in trials if is_own_trial(trial))

    def _is_decided(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether no paused trial can be promoted any more."""
        if self._may_begin(trials):
            return False
        others_go_on = any(
            not trial.state.is_finished() and not is_paused(trial) and TrialKey.AUDIT not in trial.user_attrs
            for trial in trials
            if is_own_trial(trial)
        )
        return not self._may_promote(trials) or not (others_go_on or self._next_promotion(trials) is not None)

    def _next_audited(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """Return a paused trial that the audit has drawn, once all other paused trials are to be stopped."""
        if self.halving is None or self._is_time_over() or not self._is_decided(trials):
            return None
        return next((trial for trial in trials if is_paused(trial) and self.audit.draws(trial.number)), None)

    def _next_promotion(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        if self.halving is None or not self._may_promote(trials):
            return None
        return self.halving.next_promotion(trials, at_least_one=not self._may_begin(trials))

    def _may_begin(self, trials: Sequence[FrozenTrial]) -> bool:
        return budget_allows_trial(trials, self.budget, self.n_images, self.space, self.halving) and not self._is_time_over()

    def _may_promote(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether epochs and time are left. If no trial is complete, the best goes on in any case, so that the search has a result."""
        if not any(trial.state == TrialState.COMPLETE and counts_towards_budget(trial) for trial in trials):
            return True
        return budget_has_epochs(trials, self.budget, self.space, self.halving) and not self._is_time_over()

    def _is_time_over(self) -> bool:
        return self.budget.time is not None and self.clock.spent(self.study) >= self.budget.time

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

    def is_held(self, trial: FrozenTrial) -> bool:
        """Return False, because no run is paused.

        Args:
            trial: a waiting trial.

        Returns:
            False.
        """
        return False

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
